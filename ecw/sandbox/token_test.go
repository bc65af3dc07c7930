package sandbox_test

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

func TestTokenGranted(t *testing.T) {
	t.Parallel()
	r := start(t)
	a := r.askToken(form(r.assertion(nil), "system/Patient.read"))
	if a.status != http.StatusOK || a.str("access_token") == "" || a.str("token_type") != "bearer" ||
		a.num("expires_in") != 300 || a.str("scope") != "system/Patient.read" {
		t.Fatalf("got %d %s", a.status, a.text)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Error("a token must not be cached (RFC 6749 §5.1)")
	}

	stats := r.do("GET", "/admin/stats", "")
	if stats.num("tokens", "issued") != 1 || stats.num("requests", "POST token", "200") != 1 {
		t.Errorf("stats: %s", stats.text)
	}
}

func TestTokenRefused(t *testing.T) {
	t.Parallel()
	r := start(t)
	change := func(f func(header, claims map[string]any)) url.Values { return form(r.assertion(f), allScopes) }
	claim := func(name string, value any) url.Values {
		return change(func(_, claims map[string]any) { claims[name] = value })
	}
	without := func(name string) url.Values { return change(func(_, claims map[string]any) { delete(claims, name) }) }

	header := func(name string, value any) url.Values {
		return change(func(header, _ map[string]any) { header[name] = value })
	}

	edit := func(name string, values ...string) url.Values {
		f := form(r.assertion(nil), allScopes)
		f[name] = values
		return f
	}

	in := func(d time.Duration) int64 { return r.clock.Now().Add(d).Unix() }
	otherKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}

	used := form(r.assertion(nil), allScopes)
	if a := r.askToken(used); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.text)
	}

	for name, c := range map[string]struct {
		form   url.Values
		status int
		code   string
	}{
		"grant_type missing":     {edit("grant_type"), 400, "invalid_request"},
		"grant_type other":       {edit("grant_type", "password"), 400, "unsupported_grant_type"},
		"scope missing":          {edit("scope"), 400, "invalid_request"},
		"scope not registered":   {edit("scope", "system/Patient.read system/Condition.read"), 400, "invalid_grant"},
		"scope twice":            {edit("scope", allScopes, allScopes), 400, "invalid_request"},
		"assertion missing":      {edit("client_assertion"), 400, "invalid_request"},
		"assertion type missing": {edit("client_assertion_type"), 400, "invalid_request"},
		"assertion type other":   {edit("client_assertion_type", "urn:x"), 400, "invalid_request"},
		"assertion no JWT":       {edit("client_assertion", "a.b.c"), 400, "invalid_grant"},
		"secret as well":         {edit("client_secret", "s3cret"), 400, "invalid_request"},
		"client_id of another":   {edit("client_id", "app-2"), 401, "invalid_client"},
		"iss of another":         {claim("iss", "app-2"), 401, "invalid_client"},
		"sub of another":         {claim("sub", "app-2"), 401, "invalid_client"},
		"aud of another":         {claim("aud", "https://elsewhere.example.com/token"), 401, "invalid_client"},
		"aud missing":            {without("aud"), 400, "invalid_grant"},
		"exp missing":            {without("exp"), 400, "invalid_grant"},
		"expired":                {claim("exp", in(-time.Second)), 400, "invalid_grant"},
		"exp too far":            {claim("exp", in(5*time.Minute+time.Second)), 400, "invalid_grant"},
		"not valid yet":          {claim("nbf", in(time.Minute)), 400, "invalid_grant"},
		"issued in the future":   {claim("iat", in(time.Minute)), 400, "invalid_grant"},
		"jti missing":            {without("jti"), 400, "invalid_grant"},
		"jti used":               {used, 401, "invalid_client"},
		"kid missing":            {change(func(h, _ map[string]any) { delete(h, "kid") }), 401, "invalid_client"},
		"kid unknown":            {header("kid", "key-9"), 401, "invalid_client"},
		"typ missing":            {change(func(h, _ map[string]any) { delete(h, "typ") }), 400, "invalid_grant"},
		"signed by another key":  {form(r.signed(jwt.SigningMethodRS384, otherKey, nil), allScopes), 401, "invalid_client"},
		"signed with RS256":      {form(r.signed(jwt.SigningMethodRS256, sharedKey(), nil), allScopes), 401, "invalid_client"},
		"signed with PS384":      {form(r.signed(jwt.SigningMethodPS384, sharedKey(), nil), allScopes), 401, "invalid_client"},
		"signed with HS384":      {form(r.signed(jwt.SigningMethodHS384, []byte("secret"), nil), allScopes), 401, "invalid_client"},
		"signed with none at all": {
			form(r.signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), allScopes),
			401,
			"invalid_client",
		},
		"secret only": {
			url.Values{"grant_type": {"client_credentials"}, "scope": {allScopes}, "client_id": {clientID}, "client_secret": {"s"}},
			401,
			"invalid_client",
		},
		"five minutes to the dot":   {claim("exp", in(5*time.Minute)), 200, ""},
		"several audiences, one us": {claim("aud", []string{"https://elsewhere.example.com", r.server.TokenURL()}), 200, ""},
	} {
		a := r.askToken(c.form)
		if a.status != c.status || a.str("error") != c.code {
			t.Errorf("%s: got %d %s, want %d %s", name, a.status, a.text, c.status, c.code)
		}
		if c.status != 200 && a.str("error_description") == "" {
			t.Errorf("%s: no description", name)
		}
	}
}

func TestTokenRequestForm(t *testing.T) {
	t.Parallel()
	r := start(t)
	good := func() string { return form(r.assertion(nil), allScopes).Encode() }

	for name, a := range map[string]answer{
		"JSON body":     r.do("POST", "/oauth/oauth2/token", `{}`, "Content-Type", "application/json"),
		"in the URL":    r.do("POST", "/oauth/oauth2/token?"+good(), "", "Content-Type", "application/x-www-form-urlencoded"),
		"basic as well": r.askToken(form(r.assertion(nil), allScopes), "Authorization", "Basic YTpi"),
	} {
		if a.status != 400 || a.str("error") != "invalid_request" {
			t.Errorf("%s: got %d %s", name, a.status, a.text)
		}
	}

	if a := r.do("GET", "/oauth/oauth2/token", ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %d", a.status)
	}

	basic := r.askToken(url.Values{"grant_type": {"client_credentials"}, "scope": {allScopes}}, "Authorization", "Basic YTpi")
	if basic.status != 401 || !strings.HasPrefix(basic.header.Get("WWW-Authenticate"), "Basic") {
		t.Errorf("secret in a header: got %d %v", basic.status, basic.header)
	}
}

func TestKeySet(t *testing.T) {
	t.Parallel()
	public := sharedKey().Public()
	for name, jwks := range map[string]string{
		"two keys with the kid": twice(jwksOf(t, keyID, public)),
		"no keys":               `{"keys":[]}`,
		"no JSON":               `<html>`,
		"a private key as well": strings.TrimSuffix(jwksOf(t, keyID, public), "]}") + "," + strings.TrimPrefix(jwksOf(t, "other", sharedKey()), `{"keys":[`),
		"for encryption":        strings.Replace(jwksOf(t, keyID, public), `"kty"`, `"use":"enc","kty"`, 1),
		"of another algorithm":  strings.Replace(jwksOf(t, keyID, public), "RS384", "RS256", 1),
	} {
		r := start(t)
		r.jwks.Store(jwks)
		if a := r.askToken(form(r.assertion(nil), allScopes)); a.status != 401 || a.str("error") != "invalid_client" {
			t.Errorf("%s: got %d %s", name, a.status, a.text)
		}
	}

	r := start(t, func(c *sandbox.Config) { c.JWKSURL = "http://127.0.0.1:1/jwks.json" })
	if a := r.askToken(form(r.assertion(nil), allScopes)); a.status != 401 || a.str("error") != "invalid_client" {
		t.Errorf("unreachable: got %d %s", a.status, a.text)
	}
}

// twice doubles the one key of a set.
func twice(set string) string {
	key := strings.TrimSuffix(strings.TrimPrefix(set, `{"keys":[`), `]}`)
	return `{"keys":[` + key + `,` + key + `]}`
}

func TestKeySetIsKeptAndFetchedAgain(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.token(allScopes)
	r.token(allScopes)

	if n := r.fetched.Load(); n != 1 {
		t.Errorf("fetched %d times for two tokens", n)
	}

	rotated, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}

	r.jwks.Store(jwksOf(t, "key-2", rotated.Public()))
	second := r.signed(jwt.SigningMethodRS384, rotated, func(h, _ map[string]any) { h["kid"] = "key-2" })
	if a := r.askToken(form(second, allScopes)); a.status != 200 {
		t.Errorf("rotated key: got %d %s", a.status, a.text)
	}
	if a := r.askToken(form(r.assertion(nil), allScopes)); a.status != 401 {
		t.Errorf("key no longer published: got %d %s", a.status, a.text)
	}

	r.jwks.Store(jwksOf(t, keyID, sharedKey().Public()))
	r.clock.advance(time.Minute)
	r.token(allScopes)
}

func TestBearer(t *testing.T) {
	t.Parallel()
	r := start(t)
	readOnly := r.token("system/Patient.read system/Observation.read")
	writeOnly := r.token("system/Observation.write")

	for name, c := range map[string]struct {
		answer answer
		status int
		issue  string
	}{
		"no token":              {r.do("GET", base("/Patient/"+patientID), ""), 401, "login"},
		"basic":                 {r.do("GET", base("/Patient/"+patientID), "", "Authorization", "Basic YTpi"), 401, "login"},
		"unknown token":         {r.fhirGet("nonsense", "/Patient/"+patientID), 401, "login"},
		"good token":            {r.fhirGet(readOnly, "/Patient/"+patientID), 200, ""},
		"write without scope":   {r.create(readOnly, weight("a")), 403, "forbidden"},
		"bundle without scope":  {r.do("POST", base(""), "{}", "Authorization", "Bearer "+readOnly), 403, "forbidden"},
		"read without scope":    {r.fhirGet(writeOnly, "/Observation/x"), 403, "forbidden"},
		"search without scope":  {r.fhirGet(writeOnly, "/Patient"), 403, "forbidden"},
		"another practice":      {r.do("GET", "/fhir/r4/OTHER/Patient", "", "Authorization", "Bearer "+readOnly), 404, "not-found"},
		"another type":          {r.fhirGet(readOnly, "/Condition"), 404, "not-supported"},
		"metadata needs none":   {r.do("GET", base("/metadata"), ""), 200, ""},
		"scheme in lower case":  {r.do("GET", base("/Patient/"+patientID), "", "Authorization", "bearer "+readOnly), 200, ""},
		"delete is not offered": {r.do("DELETE", base("/Patient/"+patientID), "", "Authorization", "Bearer "+readOnly), 405, "not-supported"},
		"only JSON is served": {
			r.do("GET", base("/Patient"), "", "Authorization", "Bearer "+readOnly, "Accept", "application/fhir+xml"),
			406,
			"not-supported",
		},
		"token in another place": {r.do("GET", base("/Patient?access_token="+readOnly), ""), 401, "login"},
	} {
		if c.answer.status != c.status || c.answer.str("issue", 0, "code") != c.issue {
			t.Errorf("%s: got %d %s", name, c.answer.status, c.answer.text)
		}
		if challenge := c.answer.header.Get("WWW-Authenticate"); (c.status == 401) != strings.HasPrefix(challenge, "Bearer") {
			t.Errorf("%s: WWW-Authenticate is %q", name, challenge)
		}
	}

	r.clock.advance(5*time.Minute - time.Second)
	if a := r.fhirGet(readOnly, "/Patient/"+patientID); a.status != 200 {
		t.Errorf("before the expiry: got %d", a.status)
	}

	r.clock.advance(time.Second)
	if a := r.fhirGet(readOnly, "/Patient/"+patientID); a.status != 401 ||
		!strings.Contains(a.header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("after the expiry: got %d %s", a.status, a.text)
	}
}

func TestScopesOfSMART2(t *testing.T) {
	t.Parallel()
	scopes := []string{"system/Observation.cu", "system/Observation.rs", "system/*.r"}
	r := start(t, func(c *sandbox.Config) { c.Scopes = scopes })
	creates := r.token("system/Observation.cu")

	if a := r.create(creates, weight("a")); a.status != 201 {
		t.Errorf("create: got %d %s", a.status, a.text)
	}
	if a := r.fhirGet(creates, "/Observation"); a.status != 403 {
		t.Errorf("search with a scope for creating: got %d", a.status)
	}

	reads := r.token("system/*.r")
	if a := r.fhirGet(reads, "/Patient/"+patientID); a.status != 200 {
		t.Errorf("read of any type: got %d", a.status)
	}
	if a := r.fhirGet(reads, "/Patient"); a.status != 403 {
		t.Errorf("search with a scope for reading: got %d", a.status)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := sandbox.Config{
		ClientID:     "a",
		PracticeCode: "P",
		JWKSURL:      "http://a/jwks",
		PublicURL:    "http://b/",
	}

	server, err := sandbox.New(good)
	if err != nil {
		t.Fatal(err)
	}
	if server.TokenURL() != "http://b/oauth/oauth2/token" || server.FHIRBaseURL() != "http://b/fhir/r4/P" {
		t.Errorf("got %s, %s", server.TokenURL(), server.FHIRBaseURL())
	}

	for field, spoil := range map[string]func(*sandbox.Config){
		"ClientID":      func(c *sandbox.Config) { c.ClientID = "" },
		"PracticeCode":  func(c *sandbox.Config) { c.PracticeCode = "a/b" },
		"JWKSURL":       func(c *sandbox.Config) { c.JWKSURL = "localhost:8000" },
		"PublicURL":     func(c *sandbox.Config) { c.PublicURL = "" },
		"Patients":      func(c *sandbox.Config) { c.Patients = -1 },
		"RatePerMinute": func(c *sandbox.Config) { c.RatePerMinute = -1 },
		"TokenLifetime": func(c *sandbox.Config) { c.TokenLifetime = -time.Second },
		"Scopes":        func(c *sandbox.Config) { c.Scopes = []string{"patient/Observation.read"} },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := sandbox.New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
}
