package account_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/account"
)

func secret(letter string) []byte { return []byte(strings.Repeat(letter, 32)) }

func signer(t *testing.T, secrets ...[]byte) *account.Signer {
	t.Helper()
	made, err := account.NewSigner("vantrexia", "tests", secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	s := signer(t, secret("a"))
	for name, sign := range map[string]func() (string, error){
		"an unknown role":      func() (string, error) { return s.Sign("tests", "root", "", time.Hour) },
		"an API key's subject": func() (string, error) { return s.Sign("key:1", account.Admin, "", time.Hour) },
		"a person's subject": func() (string, error) {
			return s.Sign("d4e5f6a7-b8c9-0123-defa-234567890123", account.Admin, "", time.Hour)
		},
		"the command line's subject": func() (string, error) { return s.Sign("local:root", account.Admin, "", time.Hour) },
		"its subject alone":          func() (string, error) { return s.Sign("local", account.Admin, "", time.Hour) },
		"the identity provider's":    func() (string, error) { return s.Sign("oidc", account.Admin, "", time.Hour) },
		"no subject":                 func() (string, error) { return s.Sign(" ", account.Admin, "", time.Hour) },
		"no lifetime":                func() (string, error) { return s.Sign("tests", account.Admin, "", 0) },
		"more than 12 hours":         func() (string, error) { return s.Sign("tests", account.Admin, "", 12*time.Hour+time.Second) },
	} {
		if token, err := sign(); err == nil || token != "" {
			t.Errorf("%s: %q, %v", name, token, err)
		}
	}

	for name, secrets := range map[string][][]byte{"a short secret": {secret("a")[:31]}, "a short other secret": {secret("a"), secret("b")[:31]}, "none": nil} {
		if _, err := account.NewSigner("vantrexia", "tests", secrets...); !errors.Is(err, account.ErrShortSecret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// While the secret is replaced, processes with the new one and with the old one take each other's tokens.
func TestRotationOfTheSecret(t *testing.T) {
	t.Parallel()
	before, during, after := signer(t, secret("a")), signer(t, secret("b"), secret("a")), signer(t, secret("b"))
	sign := func(s *account.Signer) string {
		token, err := s.Sign("tests", account.Nurse, "", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}

	for name, test := range map[string]struct {
		from, to *account.Signer
		want     error
	}{
		"an old token during":   {before, during, nil},
		"a new token during":    {during, after, nil},
		"an old token after":    {before, after, account.ErrTokenInvalid},
		"a new token too early": {during, before, account.ErrTokenInvalid},
	} {
		claims, err := test.to.Parse(sign(test.from))
		if !errors.Is(err, test.want) || err == nil && (claims.Subject != "tests" || claims.Role != account.Nurse) {
			t.Errorf("%s: %+v, %v", name, claims, err)
		}
	}
}
