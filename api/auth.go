package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/labstack/echo/v4"
)

// The roles of a bearer token. An admin may do everything, a provider reads and triggers, a service posts
// readings.
const (
	RoleAdmin    = "admin"
	RoleProvider = "provider"
	RoleService  = "service"
)

const minSecretBytes = 32 // RFC 7518 §3.2: an HS256 key is at least as long as the hash

var errShortSecret = fmt.Errorf("API_TOKEN_SECRET is shorter than %d bytes: make one with `openssl rand -base64 48`", minSecretBytes)

type claims struct {
	Role string `json:"role"`
	jwt.RegisteredClaims
}

// Token describes a bearer token to sign.
type Token struct {
	Role    string
	Subject string
	TTL     time.Duration
	// Issuer and Audience are left out when they are empty.
	Issuer   string
	Audience string
}

// Sign makes a bearer token for the API, valid from now on.
func (t Token) Sign(secret []byte) (string, error) {
	switch {
	case !slices.Contains([]string{RoleAdmin, RoleProvider, RoleService}, t.Role):
		return "", fmt.Errorf("role %q is unknown: use admin, provider or service", t.Role)
	case t.TTL <= 0:
		return "", fmt.Errorf("ttl %s is not positive: use a duration such as 1h", t.TTL)
	case len(secret) < minSecretBytes:
		return "", errShortSecret
	}

	now := time.Now()
	signed := claims{Role: t.Role, RegisteredClaims: jwt.RegisteredClaims{
		Subject:   t.Subject,
		Issuer:    t.Issuer,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(t.TTL)),
	}}
	if t.Audience != "" {
		signed.Audience = jwt.ClaimStrings{t.Audience}
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, signed).SignedString(secret)
}

// The keys under which authenticate keeps the role and the subject of the token in the request's context.
const (
	roleKey    = "role"
	subjectKey = "subject"
)

// authenticate lets a request through that carries a valid bearer token, and keeps the token's role for
// allow.
func (s *server) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	options := []jwt.ParserOption{jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired()}
	if s.TokenIssuer != "" {
		options = append(options, jwt.WithIssuer(s.TokenIssuer))
	}
	if s.TokenAudience != "" {
		options = append(options, jwt.WithAudience(s.TokenAudience))
	}

	parser := jwt.NewParser(options...)
	return func(c echo.Context) error {
		scheme, token, _ := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " ")
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			return unauthorized("not_authenticated", "Send a token in the header: Authorization: Bearer <token>.")
		}

		var got claims
		_, err := parser.ParseWithClaims(strings.TrimSpace(token), &got, func(*jwt.Token) (any, error) { return s.TokenSecret, nil })
		switch {
		case errors.Is(err, jwt.ErrTokenExpired):
			return unauthorized("token_expired", "The token has expired: get a new one.")
		case err != nil:
			return unauthorized("invalid_token", "The token is not valid here: get a new one.")
		}

		c.Set(roleKey, got.Role)
		c.Set(subjectKey, got.Subject)
		return next(c)
	}
}

// allow lets a request through whose token is an admin's or has one of the roles. It is set on each route,
// not on their group: Echo answers 404 instead of 405 to a wrong method in a group with middleware.
func (s *server) allow(roles ...string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return s.authenticate(func(c echo.Context) error {
			role, _ := c.Get(roleKey).(string)
			if role != RoleAdmin && !slices.Contains(roles, role) {
				return &Error{
					Status: http.StatusForbidden,
					Code:   "forbidden",
					Detail: "The token's role may not do this. Send a token with one of these roles: " +
						strings.Join(append([]string{RoleAdmin}, roles...), ", ") + "."}
			}
			return next(c)
		})
	}
}

func unauthorized(code, detail string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: code, Detail: detail}
}
