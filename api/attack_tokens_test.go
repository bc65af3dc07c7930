package api_test

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/vantrexia/vantrexia/account"
)

// base64URL are the characters of a token, in the order of what they stand for.
const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// asks sends a request with a token to a page of patients, without all that is checked of other answers.
func (c caller) asks(token string) (status int, body string) {
	c.tb.Helper()
	req, err := http.NewRequestWithContext(c.tb.Context(), http.MethodGet, c.base+"/api/v1/patients/", nil)
	if err != nil {
		c.tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.client.Do(req)
	if err != nil {
		c.tb.Fatal(err)
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	return res.StatusCode, string(said)
}

// wantRefusedTokens fails the test for each token that lets its bearer in.
func (c caller) wantRefusedTokens(tokens map[string]string) {
	c.tb.Helper()
	for name, token := range tokens {
		c.secret(token)
		if status, body := c.asks(token); status != http.StatusUnauthorized || !strings.Contains(body, `"invalid_token"`) {
			c.tb.Errorf("%s: %d %s", name, status, clip(body))
		}
	}
}

// with other header parameters, such as a key of the sender's own.
func (c caller) signHeaded(tb testing.TB, method jwt.SigningMethod, key any, header map[string]any, change claims) string {
	tb.Helper()
	all := claims{
		"role": "admin", "sub": "tests", "jti": "of an attacker", "iss": "vantrexia", "aud": "tests",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	for name, value := range change {
		all[name] = value
	}
	unsigned := jwt.NewWithClaims(method, all)
	for name, value := range header {
		unsigned.Header[name] = value
	}
	token, err := unsigned.SignedString(key)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// Whoever signs a token decides neither with which key nor with which algorithm it is checked: the key is one of
// ours, named by kid, and the algorithm is HS256. No address in a token is asked.
func TestATokenDoesNotChooseItsKey(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	var asked atomic.Int64
	theirs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(theirs.Close)

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var ours struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(jwks(t)(), &ours); err != nil || len(ours.Keys) == 0 {
		t.Fatalf("our JWKS: %v", err)
	}
	published, err := json.Marshal(ours.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	modulus, err := base64.RawURLEncoding.DecodeString(fmt.Sprint(ours.Keys[0]["n"]))
	if err != nil {
		t.Fatal(err)
	}
	symmetric := map[string]any{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString([]byte("a secret of the attacker, long enough"))}
	own := map[string]any{
		"kty": "RSA", "kid": "theirs",
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": "AQAB",
	}

	hs := func(secret []byte, header map[string]any) string {
		return s.signHeaded(t, jwt.SigningMethodHS256, secret, header, nil)
	}
	rs := func(header map[string]any) string { return s.signHeaded(t, jwt.SigningMethodRS256, key, header, nil) }
	long := []byte("a secret of the attacker, long enough")
	tokens := map[string]string{
		"the published JWKS as the secret":           hs(jwks(t)(), map[string]any{"kid": kid}),
		"the published key as the secret":            hs(published, map[string]any{"kid": kid}),
		"the published modulus as the secret":        hs(modulus, map[string]any{"kid": kid}),
		"the published key's kid, HS256":             hs(jwks(t)(), map[string]any{"kid": keyID}),
		"the published key's kid, RS256":             rs(map[string]any{"kid": keyID}),
		"RS256 and the secret's kid":                 rs(map[string]any{"kid": kid}),
		"RS256 and jku":                              rs(map[string]any{"kid": kid, "jku": theirs.URL + "/jwks.json"}),
		"RS256 and jwk":                              rs(map[string]any{"kid": kid, "jwk": own}),
		"RS256 and x5u":                              rs(map[string]any{"kid": kid, "x5u": theirs.URL + "/chain.pem"}),
		"RS256 and x5c":                              rs(map[string]any{"kid": kid, "x5c": []string{"MIIB"}}),
		"HS256 and jku":                              hs(long, map[string]any{"kid": kid, "jku": theirs.URL}),
		"HS256 and jwk":                              hs(long, map[string]any{"kid": kid, "jwk": symmetric}),
		"HS256 and x5u":                              hs(long, map[string]any{"kid": kid, "x5u": theirs.URL}),
		"a kid that is unknown":                      hs([]byte(tokenSecret), map[string]any{"kid": "00000000deadbeef"}),
		"a kid that is a path":                       hs([]byte(""), map[string]any{"kid": "../../../../dev/null"}),
		"a kid that is SQL":                          hs([]byte(tokenSecret), map[string]any{"kid": "' UNION SELECT 'secret' --"}),
		"a kid that is an address":                   hs(long, map[string]any{"kid": theirs.URL}),
		"a kid that is a list":                       hs([]byte(tokenSecret), map[string]any{"kid": []string{kid}}),
		"a kid in capitals":                          hs([]byte(tokenSecret), map[string]any{"kid": strings.ToUpper(kid)}),
		"no kid and an empty secret":                 hs([]byte{}, nil),
		"HS384 with the secret":                      s.signHeaded(t, jwt.SigningMethodHS384, []byte(tokenSecret), map[string]any{"kid": kid}, nil),
		"HS512 with the secret":                      s.signHeaded(t, jwt.SigningMethodHS512, []byte(tokenSecret), map[string]any{"kid": kid}, nil),
		"HS512 with the secret, that says HS256":     relabelled(s.signHeaded(t, jwt.SigningMethodHS512, []byte(tokenSecret), map[string]any{"kid": kid}, nil), "HS256"),
		"PS256":                                      s.signHeaded(t, jwt.SigningMethodPS256, key, map[string]any{"kid": kid}, nil),
		"alg none":                                   s.signHeaded(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, map[string]any{"kid": kid}, nil),
		"alg none, by name":                          relabelled(s.token, "none"),
		"alg None":                                   unsigned(relabelled(s.token, "None")),
		"alg NONE":                                   unsigned(relabelled(s.token, "NONE")),
		"alg nOnE, and a signature":                  relabelled(s.token, "nOnE"),
		"alg hs256":                                  relabelled(s.token, "hs256"),
		"alg empty":                                  relabelled(s.token, ""),
		"HS256 with the signature left out":          unsigned(s.token),
		"HS256 that says none in a second parameter": doubled(t, s.token),
	}
	s.wantRefusedTokens(tokens)
	if n := asked.Load(); n != 0 {
		t.Errorf("an address in a token was asked %d times", n)
	}
}

// relabelled is a token whose header names another algorithm.
func relabelled(token, alg string) string {
	parts := strings.Split(token, ".")
	header := fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, alg, kid)
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + parts[2]
}

// unsigned is a token without its signature.
func unsigned(token string) string { return token[:strings.LastIndex(token, ".")+1] }

// doubled is a token whose header names two algorithms.
func doubled(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	header := fmt.Sprintf(`{"alg":"HS256","kid":%q,"typ":"JWT","alg":"none"}`, kid)
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "."
}

// Times that no sound token has, signed with the right secret, as by somebody who once had it.
func TestTimesOfTokens(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	now, year := time.Now(), 365*24*time.Hour
	s.wantRefusedTokens(map[string]string{
		"no exp":                               s.sign(t, claims{"exp": nil}),
		"exp null":                             s.sign(t, claims{"exp": json.RawMessage("null")}),
		"exp in ten years":                     s.sign(t, claims{"exp": now.Add(10 * year).Unix()}),
		"exp and iat in ten years":             s.sign(t, claims{"iat": now.Add(10 * year).Unix(), "exp": now.Add(10*year + time.Hour).Unix()}),
		"exp beyond all times":                 s.sign(t, claims{"exp": 1e18}),
		"exp of a list":                        s.sign(t, claims{"exp": []int64{now.Add(time.Hour).Unix()}}),
		"iat long ago, exp soon":               s.sign(t, claims{"iat": now.Add(-year).Unix(), "exp": now.Add(time.Hour).Unix()}),
		"iat of 1970, exp soon":                s.sign(t, claims{"iat": 0, "exp": now.Add(time.Hour).Unix()}),
		"iat in an hour":                       s.sign(t, claims{"iat": now.Add(time.Hour).Unix(), "exp": now.Add(2 * time.Hour).Unix()}),
		"iat in two minutes":                   s.sign(t, claims{"iat": now.Add(2 * time.Minute).Unix()}),
		"no iat":                               s.sign(t, claims{"iat": nil}),
		"nbf in an hour":                       s.sign(t, claims{"nbf": now.Add(time.Hour).Unix()}),
		"nbf of a text":                        s.sign(t, claims{"nbf": "now"}),
		"aud of another":                       s.sign(t, claims{"aud": "another"}),
		"aud of another, with ours inside":     s.sign(t, claims{"aud": "tests.example.com"}),
		"aud in capitals":                      s.sign(t, claims{"aud": "TESTS"}),
		"aud empty":                            s.sign(t, claims{"aud": []string{}}),
		"aud of an object":                     s.sign(t, claims{"aud": map[string]string{"tests": "tests"}}),
		"iss of another":                       s.sign(t, claims{"iss": "https://vantrexia.example.com"}),
		"iss with more":                        s.sign(t, claims{"iss": "vantrexia "}),
		"iss of a list":                        s.sign(t, claims{"iss": []string{"vantrexia"}}),
		"sub of the command line":              s.sign(t, claims{"sub": account.Local}),
		"sub of the command line, with a user": s.sign(t, claims{"sub": account.Local + ":root"}),
	})
	if status, body := s.asks(s.sign(t, claims{"exp": 1e308})); status != http.StatusUnauthorized { // no such time: what it becomes differs by processor
		t.Errorf("exp 1e308: %d %s", status, body)
	}
}

// A token has one spelling. Whatever changes in its text, a bit that stands for nothing too, it is refused: a
// token that was refused once, or is searched in a log, does not come back in other letters.
func TestATokenHasOneSpelling(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	good := s.token
	if status, body := s.asks(good); status != http.StatusOK {
		t.Fatalf("the token itself: %d %s", status, body)
	}

	parts := strings.Split(good, ".")
	changed := map[string]string{}
	for i, part := range parts {
		for _, c := range base64URL {
			other := slices.Clone(parts)
			if other[i] = part[:len(part)-1] + string(c); other[i] != part {
				changed[fmt.Sprintf("the last character of part %d is %c", i, c)] = strings.Join(other, ".")
			}
		}
	}
	if len(changed) != 3*63 {
		t.Fatalf("%d changes", len(changed))
	}

	header, payload, signature := parts[0], parts[1], parts[2]
	for name, token := range map[string]string{
		"four parts":                 good + ".",
		"four parts, signed twice":   good + "." + signature,
		"five parts, like JWE":       good + "." + signature + "." + signature,
		"two tokens":                 good + "," + good,
		"two parts":                  header + "." + payload,
		"one part":                   header,
		"three empty parts":          "..",
		"an empty payload":           header + ".." + signature,
		"padded":                     header + "." + payload + "." + signature + "=",
		"padded payload":             header + "." + payload + "==." + signature,
		"a space inside":             header + ". " + payload + "." + signature,
		"a space in the signature":   header + "." + payload + "." + signature[:10] + " " + signature[10:],
		"a tab inside":               header + ".\t" + payload + "." + signature,
		"standard base64":            header + "." + payload + "." + signature[:len(signature)-1] + "+",
		"an escape":                  strings.Replace(good, ".", "%2e", 1),
		"the signature in the front": signature + "." + header + "." + payload,
		"the signature cut":          header + "." + payload + "." + signature[:len(signature)-1],
		"the signature longer":       header + "." + payload + "." + signature + "A",
		"quoted":                     `"` + good + `"`,
		"a JWS in JSON":              fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, header, payload, signature),
		"20 kB of signature":         header + "." + payload + "." + strings.Repeat("A", 20_000),
		"20 kB of dots":              strings.Repeat(".", 20_000),
		"20 kB of tokens":            strings.Repeat(good+".", 20_000/len(good)),
	} {
		changed[name] = token
	}
	s.wantRefusedTokens(changed)
	if status, body := s.asks(good); status != http.StatusOK {
		t.Errorf("the token itself, afterwards: %d %s", status, body)
	}
}

// A header over two lines, and one that no parser should take, do not smuggle a token in.
func TestAuthorizationOnTheWire(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	address := strings.TrimPrefix(s.base, "http://")
	ask := func(lines string) int {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = fmt.Fprintf(conn, "GET /api/v1/patients/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", address, lines)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}

	half := len(s.token) / 2
	if got := ask("Authorization: Bearer " + s.token + "\r\n"); got != http.StatusOK {
		t.Fatalf("the plain header: %d", got)
	}
	for name, lines := range map[string]string{
		"folded inside the token":        "Authorization: Bearer " + s.token[:half] + "\r\n " + s.token[half:] + "\r\n",
		"a line feed inside":             "Authorization: Bearer " + s.token[:half] + "\n" + s.token[half:] + "\r\n",
		"a carriage return inside":       "Authorization: Bearer " + s.token[:half] + "\r" + s.token[half:] + "\r\n",
		"a NUL inside":                   "Authorization: Bearer " + s.token[:half] + "\x00" + s.token[half:] + "\r\n",
		"a space before the colon":       "Authorization : Bearer " + s.token + "\r\n",
		"twice":                          "Authorization: Bearer " + s.token + "\r\nAuthorization: Bearer " + s.token + "\r\n",
		"twice, one of another scheme":   "Authorization: Basic dXNlcjpwYXNz\r\nAuthorization: Bearer " + s.token + "\r\n",
		"in another header":              "X-Authorization: Bearer " + s.token + "\r\nProxy-Authorization: Bearer " + s.token + "\r\n",
		"in a cookie":                    "Cookie: access=" + s.token + "; token=" + s.token + "\r\n",
		"as the password of Basic":       "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+s.token)) + "\r\n",
		"joined to another with a comma": "Authorization: Basic dXNlcjpwYXNz, Bearer " + s.token + "\r\n",
	} {
		if got := ask(lines); got != http.StatusUnauthorized && got != http.StatusBadRequest {
			t.Errorf("%s: %d", name, got)
		}
	}
	s.do("GET", "/api/v1/patients/?access_token="+s.token+"&token="+s.token, "", "Authorization", "").
		want(t, http.StatusUnauthorized, "not_authenticated")
}
