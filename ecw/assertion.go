package ecw

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

const (
	// assertionType is the client_assertion_type of RFC 7523 §2.2.
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// assertionLifetime stays a minute below the five minutes eCW allows, so that a clock ahead of eCW's does not matter.
	assertionLifetime = 4 * time.Minute
	// issuedBefore dates an assertion back: a server whose clock is a second behind ours refuses one from the future. With
	// assertionLifetime it stays below five minutes, for servers that measure from iat.
	issuedBefore = 30 * time.Second
)

// signAssertion makes the client assertion of SMART Backend Services. Every request needs a fresh one: eCW rejects a
// jti that it has seen. There is no nbf and iat lies in the past, so a clock a little ahead of eCW's does no harm.
func signAssertion(key *Key, clientID, tokenURL string, now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS384, jwt.MapClaims{
		"iss": clientID,
		"sub": clientID,
		"aud": tokenURL, // a string: not every server accepts the array form
		"iat": now.Add(-issuedBefore).Unix(),
		"exp": now.Add(assertionLifetime).Unix(),
		"jti": uuid.NewString(),
	})
	t.Header["kid"] = key.id
	signed, err := t.SignedString(key.private)
	if err != nil {
		return "", fmt.Errorf("sign the client assertion: %w", err)
	}
	return signed, nil
}
