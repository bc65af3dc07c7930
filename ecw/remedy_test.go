package ecw

import (
	"strings"
	"testing"
)

// TestRemediesNameTheCause: a remedy names the possible causes of the code, and nothing else.
func TestRemediesNameTheCause(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		code  string
		names []string
		not   string
	}{
		{CodeRateLimited, []string{"ECW_RATE_LIMIT", "try again"}, "ECW_TOKEN_URL"},
		{
			"invalid_client",
			[]string{"ECW_CLIENT_ID", "JWKS", "ECW_KEY_ID", "ECW_PRIVATE_KEY", "ECW_TOKEN_URL", "aud", "proxy"},
			"ECW_ENVIRONMENT",
		},
		{"insufficient_scope", []string{"portal", "ECW_SCOPE", "system/Observation.c", "nothing can be delivered"}, "ECW_TOKEN_URL"},
		{"invalid_scope", []string{"ECW_SCOPE", "system/Observation.c", "nothing can be delivered"}, "ECW_TOKEN_URL"},
	} {
		remedy := Remedy(tc.code)
		for _, name := range tc.names {
			if !strings.Contains(remedy, name) {
				t.Errorf("%s: %q is missing: %s", tc.code, name, remedy)
			}
		}

		if strings.Contains(remedy, tc.not) {
			t.Errorf("%s: mentions %s: %s", tc.code, tc.not, remedy)
		}
	}
}
