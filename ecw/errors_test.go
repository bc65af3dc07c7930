package ecw

import "testing"

func TestUnavailable(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		op     string
		class  Class
		code   string
		status int
		want   bool
	}{
		{OpCreate, ClassRetryable, "dns", 0, true},
		{OpCreate, ClassRetryable, "connect", 0, true},
		{OpCreate, ClassRetryable, "tls", 0, true},
		{OpCreate, ClassRetryable, "timeout", 0, true},
		{OpCreate, ClassUnknown, "timeout", 0, true},
		{OpCreate, ClassUnknown, "reset", 0, true},
		{OpFind, ClassRetryable, "reset", 200, true},
		{OpCreate, ClassUnknown, "http_408", 408, true},
		{OpCreate, ClassUnknown, "http_500", 500, true},
		{OpCreate, ClassUnknown, "exception", 500, true},
		{OpFind, ClassRetryable, "http_502", 502, true},
		{OpCreate, ClassUnknown, "lock-error", 503, true},
		{OpCreate, ClassUnknown, "http_503", 200, true}, // a Bundle's entry
		{OpCreate, ClassRetryable, "http_404", 404, true},
		{OpCreate, ClassUnknown, "redirect", 307, true},
		{OpFind, ClassRetryable, "malformed_response", 200, true},
		{OpToken, ClassRetryable, "connect", 0, true},
		{OpToken, ClassRetryable, "access_denied", 500, true},
		{OpToken, ClassRetryable, "http_204", 204, true},
		{OpToken, ClassRetryable, "canceled", 0, false},
		{OpToken, ClassPermanentCredentials, "invalid_client", 500, false},
		{OpToken, ClassThrottled, CodeRateLimited, 0, false},
		{OpCreate, ClassUnknown, "canceled", 0, false},
		{OpCreate, ClassUnknown, "2", 200, false},
		{OpCreate, ClassRetryable, "103", 200, false},
		{OpCreate, ClassUnknown, "103", 500, false},
		{OpCreate, ClassUnknown, "777", 200, false},
		{OpCreate, ClassUnknown, "duplicate", 409, false},
		{OpCreate, ClassUnknown, "no_id", 201, false},
		{OpCreate, ClassUnknown, "unknown_status", 200, false},
		{OpCreate, ClassUnknown, "exception", 200, false},
		{OpCreate, ClassRetryable, "lock-error", 200, false},
		{OpCreate, ClassRetryable, "no-store", 400, false},
		{OpFind, ClassRetryable, "incomplete_search", 200, false},
		{OpFind, ClassRetryable, "response_too_large", 200, false},
		{OpCreate, ClassThrottled, "throttled", 429, false},
		{OpCreate, ClassPermanentData, "not-found", 404, false},
		{OpCreate, ClassPermanentData, "http_400", 400, false},
		{OpCreate, ClassPermanentCredentials, "forbidden", 403, false},
		{OpCreate, ClassPermanentCredentials, "308", 200, false},
	} {
		e := &Error{
			Op:         tc.op,
			Class:      tc.class,
			Code:       tc.code,
			HTTPStatus: tc.status,
		}

		if got := e.Unavailable(); got != tc.want {
			t.Errorf("%s %s %s %d: %v", tc.op, tc.class, tc.code, tc.status, got)
		}
	}
}
