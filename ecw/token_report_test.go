package ecw

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

func TestAuthenticationReport(t *testing.T) {
	t.Parallel()
	long := "eyJhbGciOiJSUzM4NCIs" + strings.Repeat("x", 200)
	for _, tc := range []struct {
		name, body string
		want       TokenReport // of the fields that the answer decides
	}{
		{"as documented", `{"access_token":"` + long + `","token_type":"bearer","expires_in":3600,"scope":"` + DefaultScope + `"}`,
			TokenReport{Preview: "eyJhbGciOiJSUzM4NCIs...truncated", TokenType: "bearer", ExpiresIn: 3600, Scope: DefaultScope}},
		{"scope and life unstated", `{"access_token":"` + long + `","token_type":"Bearer"}`,
			TokenReport{Preview: "eyJhbGciOiJSUzM4NCIs...truncated", TokenType: "Bearer", ExpiresIn: 60, Scope: DefaultScope}},
		{"short token", `{"access_token":"12345678","token_type":"bearer","expires_in":"300"}`,
			TokenReport{Preview: "1234...truncated", TokenType: "bearer", ExpiresIn: 300, Scope: DefaultScope}},
		{
			"scope in other words",
			`{"access_token":"` + long + `","token_type":"bearer","expires_in":300,"scope":"system/Patient.rs system/Observation.crs"}`,
			TokenReport{
				Preview:   "eyJhbGciOiJSUzM4NCIs...truncated",
				TokenType: "bearer",
				ExpiresIn: 300,
				Scope:     "system/Patient.rs system/Observation.crs",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.token = grant(tc.body)
			now := time.Now()
			tc.want.TokenEndpoint, tc.want.IssuedAt = e.URL+"/token", now.UTC()
			got, err := e.client(t, func(cfg *Config) { cfg.Now = func() time.Time { return now } }).TestAuthentication(context.Background())

			// Not compared by ==, because the test's clock has a monotonic reading.
			if same := got.IssuedAt.Equal(tc.want.IssuedAt) && got.IssuedAt.Location() == time.UTC; err != nil || !same {
				t.Fatalf("issued at %s, %v", got.IssuedAt, err)
			}

			got.IssuedAt = tc.want.IssuedAt
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// TestAuthenticationAsksAnew: each test signs a new assertion, and the token that it gets is used from then
// on.
func TestAuthenticationAsksAnew(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.token = first(e.token, grant(`{"access_token":"tok-2","token_type":"Bearer","expires_in":300}`))
	c := e.client(t)
	mustAuthenticate(t, c)

	for range 2 {
		if _, err := c.TestAuthentication(context.Background()); err != nil {
			t.Fatal(err)
		}
	}

	ids := map[any]bool{}
	for _, r := range e.requests("token") {
		form, err := url.ParseQuery(string(r.body))
		if err != nil {
			t.Fatal(err)
		}

		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(form.Get("client_assertion"), claims); err != nil {
			t.Fatal(err)
		}

		ids[claims["jti"]] = true
	}

	if len(ids) != 3 {
		t.Errorf("%d assertions in 3 token requests", len(ids))
	}
	if _, _, err := c.FindObservation(context.Background(), testID, ""); err != nil {
		t.Fatal(err)
	}
	if got := e.requests("GET")[0].header.Get("Authorization"); got != "Bearer tok-2" {
		t.Errorf("went on with %q", got)
	}

	e.checkLogs(t)
}

// TestFailedAuthenticationKeepsTheToken: if a test fails, deliveries go on with the token that the client
// holds.
func TestFailedAuthenticationKeepsTheToken(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		code   string
		answer http.HandlerFunc
	}{
		{"invalid_client", reply(401, "", `{"error":"invalid_client"}`)},
		{"invalid_grant", reply(400, "", `{"error":"invalid_grant"}`)},
		{"key_not_found", reply(400, "", `{"error":"key_not_found"}`)},
		{"insufficient_scope", grant(`{"access_token":"tok-2","token_type":"bearer","scope":"system/Patient.read"}`)},
		{"timeout", hang},
		{"reset", reset},
	} {
		t.Run(tc.code, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.token = first(e.token, tc.answer)
			c := e.client(t)
			mustAuthenticate(t, c)

			if tc.code == "timeout" {
				c.wire.timeout = 50 * time.Millisecond
			}

			report, err := c.TestAuthentication(context.Background())
			if ee := asError(t, err); ee.Code != tc.code || ee.Op != OpToken || report != (TokenReport{}) {
				t.Errorf("got %+v %v", report, ee)
			}

			mustAuthenticate(t, c)
			if n := len(e.requests("token")); n != 2 {
				t.Errorf("%d token requests, want 2", n)
			}

			e.checkLogs(t)
		})
	}
}

func TestReportNeverCarriesTheToken(t *testing.T) {
	t.Parallel()
	for n := 1; n < 100; n++ {
		value := strings.Repeat("0", n)
		if got := preview(value); strings.Contains(got, value) || len(got) > previewLength+len(previewEnd) {
			t.Errorf("%d characters: %s", n, got)
		}
	}
}

// TestRefusalTextIsShown: the person who tests the authentication is shown eCW's own text of a refusal,
// shortened and without control characters. The error, which is logged and stored, never contains it.
func TestRefusalTextIsShown(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, said, want string }{
		{"plain", "kid vantrexia-ecw-key-1 not found in JWKS", "kid vantrexia-ecw-key-1 not found in JWKS"},
		{"nothing", "", ""},
		{"lines and controls", "first\r\n\tsecond\x1b[31m\u202ethird\u0000", "first second[31mthird"},
		{"our own assertion", "bad assertion eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJ4In0.c2ln, expired", "bad assertion [token], expired"},
		{"our secret", "secret the-secret is wrong", "secret [secret] is wrong"},
		{"long", strings.Repeat("ä", 1000), strings.Repeat("ä", 300) + "..."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			said, err := json.Marshal(tc.said)
			if err != nil {
				t.Fatal(err)
			}

			e := newEHR(t)
			e.token = reply(401, "", fmt.Sprintf(`{"error":"invalid_client","error_description":%s}`, said))
			report, err := e.client(t).TestAuthentication(context.Background())
			ee := asError(t, err)
			if ee.Code != "invalid_client" || report.Refusal != tc.want || !utf8.ValidString(report.Refusal) {
				t.Errorf("got %q, %v; want %q", report.Refusal, ee, tc.want)
			}

			for _, text := range []string{fmt.Sprintf("%v %+v %#v", ee, ee, *ee), ee.LogValue().String(), e.logs.String()} {
				if tc.want != "" && (strings.Contains(text, tc.want) || strings.Contains(text, tc.said)) {
					t.Errorf("it is contained in %s", text)
				}
			}
		})
	}
}
