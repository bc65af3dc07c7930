package ecw

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestTheWordsOfARefusal: what eCW says of a refused token names the cause. Whoever asks for the test is shown it, bounded
// and in plain characters; the error, which is logged and stored, never has it.
func TestTheWordsOfARefusal(t *testing.T) {
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
					t.Errorf("it stands in %s", text)
				}
			}
		})
	}
}

// TestMayCreate: a token that does not let us create Observations is seen before the first reading fails with it.
func TestMayCreate(t *testing.T) {
	t.Parallel()
	for scope, want := range map[string]bool{
		"system/Patient.read system/Observation.write": true,
		"system/Patient.rs system/Observation.crs":     true,
		"system/*.*": true,
		"system/Patient.read system/Observation.read": false,
		"system/Patient.write":                        false,
	} {
		e := newEHR(t)
		e.token = grant(`{"access_token":"tok-1","token_type":"Bearer","expires_in":300,"scope":"` + scope + `"}`)
		c := e.client(t, func(cfg *Config) { cfg.Scope = scope })
		if !c.MayCreate() {
			t.Errorf("%s: refused before anything is known", scope)
		}

		mustAuthenticate(t, c)
		if got := c.MayCreate(); got != want {
			t.Errorf("%s: %v", scope, got)
		}
	}
}
