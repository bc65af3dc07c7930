package ecw

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 6, 12, 0, 40, 500e6, time.UTC)
	ahead := now.Add(10 * time.Second) // eCW's clock, when it differs from ours

	for _, tc := range []struct {
		name, retryAfter, date string
		want                   time.Duration
	}{
		{"top of the next minute", "", "", 19500 * time.Millisecond},
		{"top of eCW's next minute", "", ahead.Format(http.TimeFormat), 10 * time.Second},
		{"seconds", "7", "", 7 * time.Second},
		{"zero", "0", "", time.Second},
		{"capped", "86400", "", time.Hour},
		{"date", now.Add(30 * time.Second).Format(http.TimeFormat), now.Format(http.TimeFormat), 30 * time.Second},
		{"date on eCW's clock", ahead.Add(30 * time.Second).Format(http.TimeFormat), ahead.Format(http.TimeFormat), 30 * time.Second},
		{"date in the past", now.Add(-time.Hour).Format(http.TimeFormat), "", time.Second},
		{"nonsense", "soon", "", 19500 * time.Millisecond},
		{"negative", "-1", "", 19500 * time.Millisecond},
	} {
		h := http.Header{}
		h.Set("Retry-After", tc.retryAfter)
		h.Set("Date", tc.date)
		if got := retryAt(h, now).Sub(now); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestIDFromLocation(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]string{
		"Observation/o-1":                                    "o-1",
		"Observation/o-1/_history/2":                         "o-1",
		"/fhir/r4/X/Observation/o-1/":                        "o-1",
		"https://h.example/fhir/r4/X/Observation/o.1":        "o.1",
		"https://h.example/Observation/o-1/_history/1?a=b#c": "o-1",
		"":                       "",
		"o-1":                    "",
		"Patient/p-1":            "",
		"Observation/":           "",
		"Observation/a b":        "",
		"%zz":                    "",
		"Observation/_history/1": "",
	} {
		if got := idFromLocation(location); got != want {
			t.Errorf("%q: %q, want %q", location, got, want)
		}
	}
}
