package api_test

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/vantrexia/vantrexia/account"
)

type claims = jwt.MapClaims

// kid names the secret of the tests, as account's Signer does.
const kid = "07fd83320acdbf0e"

// sign makes a token as the API does. The claims given replace good ones; nil removes a claim.
func (c caller) sign(tb testing.TB, change claims) string {
	tb.Helper()
	return c.signWith(tb, jwt.SigningMethodHS256, []byte(tokenSecret), change)
}

func (c caller) signWith(tb testing.TB, method jwt.SigningMethod, key any, change claims) string {
	tb.Helper()
	return c.signAs(tb, method, key, kid, change)
}

func (c caller) signAs(tb testing.TB, method jwt.SigningMethod, key any, kid string, change claims) string {
	tb.Helper()
	good := claims{
		"role": "admin",
		"sub":  "tests",
		"jti":  "a token of the tests",
		"iss":  "vantrexia",
		"aud":  "tests",
		"iat":  time.Now().Unix(),
		"exp":  time.Now().Add(time.Hour).Unix(),
	}
	for name, value := range change {
		if good[name] = value; value == nil {
			delete(good, name)
		}
	}

	unsigned := jwt.NewWithClaims(method, good)
	if kid != "" {
		unsigned.Header["kid"] = kid
	}
	token, err := unsigned.SignedString(key)
	if err != nil {
		tb.Fatal(err)
	}

	c.secret(token)
	return token
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}

	good := s.token
	header, payload, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(payload, ".")
	otherPayload := strings.Split(s.sign(t, claims{"role": "admin", "sub": "another"}), ".")[1]

	bearer := func(token string) string { return "Bearer " + token }
	for name, test := range map[string]struct {
		header string
		code   string // "" lets the request in
	}{
		"good":                       {bearer(good), ""},
		"the scheme in small":        {"bearer " + good, ""},
		"no header":                  {"", "not_authenticated"},
		"another scheme":             {"Basic dXNlcjpwYXNz", "not_authenticated"},
		"no scheme":                  {good, "not_authenticated"},
		"no token":                   {"Bearer ", "not_authenticated"},
		"no JWT":                     {bearer("secret"), "invalid_token"},
		"cut":                        {bearer(header + "." + payload), "invalid_token"},
		"another signature":          {bearer(header + "." + payload + "." + strings.Repeat("A", len(signature))), "invalid_token"},
		"another payload":            {bearer(header + "." + otherPayload + "." + signature), "invalid_token"},
		"another secret":             {bearer(s.signWith(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 40)), nil)), "invalid_token"},
		"an empty secret":            {bearer(s.signWith(t, jwt.SigningMethodHS256, []byte{}, nil)), "invalid_token"},
		"the public key as secret":   {bearer(s.signWith(t, jwt.SigningMethodHS256, jwks(t)(), nil)), "invalid_token"},
		"alg none":                   {bearer(s.signWith(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil)), "invalid_token"},
		"alg RS256":                  {bearer(s.signWith(t, jwt.SigningMethodRS256, rsaKey, nil)), "invalid_token"},
		"alg HS512, the secret":      {bearer(s.signWith(t, jwt.SigningMethodHS512, []byte(tokenSecret), nil)), "invalid_token"},
		"expired":                    {bearer(s.sign(t, claims{"exp": time.Now().Add(-time.Minute).Unix()})), "token_expired"},
		"expired, another secret":    {bearer(s.signWith(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 40)), claims{"exp": 1})), "invalid_token"},
		"never expires":              {bearer(s.sign(t, claims{"exp": nil})), "invalid_token"},
		"expires in words":           {bearer(s.sign(t, claims{"exp": "tomorrow"})), "invalid_token"},
		"not valid yet":              {bearer(s.sign(t, claims{"nbf": time.Now().Add(time.Hour).Unix()})), "invalid_token"},
		"a role that is a number":    {bearer(s.sign(t, claims{"role": 1})), "invalid_token"},
		"the last character changed": {bearer(lastCharacterChanged(good)), "invalid_token"},
		"another kid":                {bearer(s.signAs(t, jwt.SigningMethodHS256, []byte(tokenSecret), "0123456789abcdef", nil)), "invalid_token"},
		"no kid":                     {bearer(s.signAs(t, jwt.SigningMethodHS256, []byte(tokenSecret), "", nil)), "invalid_token"},
		"no id":                      {bearer(s.sign(t, claims{"jti": nil})), "invalid_token"},
		"no subject":                 {bearer(s.sign(t, claims{"sub": nil})), "invalid_token"},
		"the subject of a person":    {bearer(s.sign(t, claims{"sub": "d4e5f6a7-b8c9-0123-defa-234567890123"})), "invalid_token"},
		"the subject of an API key":  {bearer(s.sign(t, claims{"sub": "key:d4e5f6a7-b8c9-0123-defa-234567890123"})), "invalid_token"},
		"no issuer":                  {bearer(s.sign(t, claims{"iss": nil})), "invalid_token"},
		"another issuer":             {bearer(s.sign(t, claims{"iss": "other"})), "invalid_token"},
		"no audience":                {bearer(s.sign(t, claims{"aud": nil})), "invalid_token"},
		"another audience":           {bearer(s.sign(t, claims{"aud": "other"})), "invalid_token"},
		"one of two audiences":       {bearer(s.sign(t, claims{"aud": []string{"other", "tests"}})), ""},
		"issued at no time":          {bearer(s.sign(t, claims{"iat": nil})), "invalid_token"},
		"issued by a clock 10 s off": {bearer(s.sign(t, claims{"iat": time.Now().Add(10 * time.Second).Unix()})), ""},
		"issued in 10 minutes":       {bearer(s.sign(t, claims{"iat": time.Now().Add(10 * time.Minute).Unix()})), "invalid_token"},
		"lives for 13 hours":         {bearer(s.sign(t, claims{"exp": time.Now().Add(13 * time.Hour).Unix()})), "invalid_token"},
		"of a session":               {bearer(s.sign(t, claims{"sid": "d4e5f6a7-b8c9-0123-defa-234567890123"})), "session_ended"},
		"very long":                  {bearer(s.sign(t, claims{"sub": strings.Repeat("x", 3000)})), "invalid_token"},
		"no role":                    {bearer(s.sign(t, claims{"role": nil})), "forbidden"},
		"an unknown role":            {bearer(s.sign(t, claims{"role": "root"})), "forbidden"},
		"a role in other letters":    {bearer(s.sign(t, claims{"role": "Admin"})), "forbidden"},
		"a list of roles":            {bearer(s.sign(t, claims{"role": []string{"admin"}})), "invalid_token"},
		"a service where it may not": {bearer(s.sign(t, claims{"role": "service"})), "forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			status := http.StatusUnauthorized
			switch test.code {
			case "":
				status = http.StatusOK
			case "forbidden":
				status = http.StatusForbidden
			}
			s.in(t).do("GET", "/api/v1/patients/", "", "Authorization", test.header).want(t, status, test.code)
		})
	}
}

// lastCharacterChanged sets the bits of the signature's last character that stand for nothing.
func lastCharacterChanged(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last^1])
}

// A caller without a valid token learns nothing, not even whether the body is valid.
func TestAuthenticationComesFirst(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.with("").do("POST", "/api/v1/patients/", `{`).want(t, http.StatusUnauthorized, "not_authenticated")
	s.as(account.Service).do("POST", "/api/v1/patients/", `{`).want(t, http.StatusForbidden, "forbidden")
	s.as(account.Service).do("GET", "/api/v1/patients/no-uuid", ``).want(t, http.StatusForbidden, "forbidden")
}

func TestTwoAuthorizationHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+"/api/v1/patients/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Authorization"] = []string{"Bearer " + s.token, "Bearer " + s.token}
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d", res.StatusCode)
	}
}
