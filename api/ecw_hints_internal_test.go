package api

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/ecw"
)

// TestHintsNameTheCause: a hint names what can be the cause of the code, and nothing that cannot.
func TestHintsNameTheCause(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		code  string
		names []string
		not   string
	}{
		{ecw.CodeRateLimited, []string{"ECW_RATE_LIMIT", "try again"}, "ECW_TOKEN_URL"},
		{"invalid_client", []string{"ECW_CLIENT_ID", "JWKS", "ECW_KEY_ID", "ECW_PRIVATE_KEY", "ECW_TOKEN_URL", "aud", "proxy"}, "ECW_ENVIRONMENT"},
		{"insufficient_scope", []string{"portal", "ECW_SCOPE", "system/Observation.c", "nothing can be delivered"}, "ECW_TOKEN_URL"},
		{"invalid_scope", []string{"ECW_SCOPE", "system/Observation.c", "nothing can be delivered"}, "ECW_TOKEN_URL"},
	} {
		recorder := httptest.NewRecorder()
		c := echo.New().NewContext(httptest.NewRequest("POST", "/", nil), recorder)
		if err := answerECWFailure(c, &ecw.Error{Code: tc.code, Message: "a message"}); err != nil {
			t.Fatal(err)
		}
		for _, name := range tc.names {
			if !strings.Contains(recorder.Body.String(), name) {
				t.Errorf("%s: %q is missing: %s", tc.code, name, recorder.Body)
			}
		}
		if strings.Contains(recorder.Body.String(), tc.not) {
			t.Errorf("%s: speaks of %s: %s", tc.code, tc.not, recorder.Body)
		}
	}
}
