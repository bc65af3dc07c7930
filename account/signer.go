package account

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

const (
	minSecretBytes = 32 // RFC 7518 §3.2: an HS256 key is at least as long as the hash
	// MaxTokenLife is how long a token signed with the shared secret may be good.
	MaxTokenLife = 12 * time.Hour
	// clockLeeway is how far the clocks of two of our processes may differ.
	clockLeeway = time.Minute
	// maxTokenBytes is more than any token of ours has.
	maxTokenBytes = 2048
	// keySubject begins the subject of every API key, and of nobody else.
	keySubject = "key:"
)

// The errors of tokens.
var (
	ErrTokenExpired = errors.New("the token has expired")
	ErrTokenInvalid = errors.New("the token is not valid")
	// ErrShortSecret means that a secret could be guessed.
	ErrShortSecret = fmt.Errorf("the secret is shorter than %d bytes: make one with `openssl rand -base64 48`", minSecretBytes)
)

// Claims are what a token says (RFC 7519).
type Claims struct {
	Role Role `json:"role"`
	// Session is the id of the session of a person who has signed in. A machine's token has none.
	Session string `json:"sid,omitempty"`
	jwt.RegisteredClaims
}

// Signer signs and checks the API's bearer tokens, JWTs with HS256.
type Signer struct {
	issuer, audience string
	signWith         string            // the kid of the secret that signs
	secrets          map[string][]byte // by kid
	parser           *jwt.Parser
}

// NewSigner returns a Signer that signs with the first secret, and takes tokens of all of them: while a secret
// is replaced there are two. Every token names the issuer and the audience.
func NewSigner(issuer, audience string, secrets ...[]byte) (*Signer, error) {
	s := &Signer{
		issuer:   issuer,
		audience: audience,
		secrets:  map[string][]byte{},
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
			jwt.WithStrictDecoding(), // else the last character of a signature could be changed
			jwt.WithExpirationRequired(),
			jwt.WithIssuer(issuer),
			jwt.WithAudience(audience),
		),
	}
	for i, secret := range secrets {
		if len(secret) < minSecretBytes {
			return nil, ErrShortSecret
		}
		kid := keyID(secret)
		s.secrets[kid] = secret
		if i == 0 {
			s.signWith = kid
		}
	}
	if s.signWith == "" {
		return nil, ErrShortSecret
	}
	return s, nil
}

// keyID names a secret in the header of tokens (RFC 7515 §4.1.4), and tells nothing about it.
func keyID(secret []byte) string {
	hash := sha256.Sum256(append([]byte("vantrexia token secret\x00"), secret...))
	return hex.EncodeToString(hash[:8])
}

// Sign makes a token that is good from now on for as long as life, MaxTokenLife at most. session is empty for
// a machine.
func (s *Signer) Sign(subject string, role Role, session string, life time.Duration) (string, error) {
	switch {
	case !role.Known():
		return "", fmt.Errorf("role %q is unknown: use %s", role, JoinRoles(Roles()))
	case strings.TrimSpace(subject) == "":
		return "", errors.New("the subject is empty: say who uses the token")
	case isTaken(subject, session):
		return "", fmt.Errorf("the subject %q is kept for somebody else, such as people and API keys: use a name such as gateway-7", subject)
	case life <= 0:
		return "", fmt.Errorf("ttl %s is not positive: use a duration such as 1h", life)
	case life > MaxTokenLife:
		return "", fmt.Errorf("ttl %s is too long: use %s at most, or an API key (vantrexia apikeys create)", life, MaxTokenLife)
	}

	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, Claims{
		Role:    role,
		Session: session,
		RegisteredClaims: jwt.RegisteredClaims{
			ID:        uuid.NewString(),
			Subject:   subject,
			Issuer:    s.issuer,
			Audience:  jwt.ClaimStrings{s.audience},
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(life)),
		},
	})
	token.Header["kid"] = s.signWith
	return token.SignedString(s.secrets[s.signWith])
}

// isTaken reports whether a subject belongs to somebody else than a machine with a token: to an API key, to the
// command line or the identity provider, which have no tokens, or to a person, whose subject is a UUID, and whose
// tokens all have a session. Who did something is never in doubt.
func isTaken(subject, session string) bool {
	switch {
	case subject == Local, subject == ActorOIDC, strings.HasPrefix(subject, Local+":"), strings.HasPrefix(subject, keySubject):
		return true
	}
	return session == "" && uuid.Validate(subject) == nil
}

// Parse returns the claims of a token that one of the secrets has signed and that is good now. Its errors are
// [ErrTokenExpired] and [ErrTokenInvalid].
func (s *Signer) Parse(text string) (Claims, error) {
	var claims Claims
	if len(text) > maxTokenBytes {
		return claims, ErrTokenInvalid
	}

	_, err := s.parser.ParseWithClaims(text, &claims, func(token *jwt.Token) (any, error) {
		kid, _ := token.Header["kid"].(string)
		secret, known := s.secrets[kid]
		if !known {
			return nil, ErrTokenInvalid
		}
		return secret, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return claims, ErrTokenExpired
	case err != nil, claims.ID == "", claims.Subject == "", claims.IssuedAt == nil,
		isTaken(claims.Subject, claims.Session):
		return claims, ErrTokenInvalid
	case claims.IssuedAt.After(time.Now().Add(clockLeeway)):
		return claims, ErrTokenInvalid
	case claims.ExpiresAt.Sub(claims.IssuedAt.Time) > MaxTokenLife:
		return claims, ErrTokenInvalid
	}
	return claims, nil
}

// TokenID returns the id (jti) of a token, whether the token is good or not.
func TokenID(text string) (string, error) {
	var claims Claims
	if _, _, err := jwt.NewParser().ParseUnverified(text, &claims); err != nil || claims.ID == "" {
		return "", errors.New("this is no token with a jti: give all of the token, or its jti alone")
	}
	return claims.ID, nil
}
