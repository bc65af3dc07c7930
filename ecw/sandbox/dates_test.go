package sandbox

import "testing"

func TestParseDate(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{
		"2026":                             true,
		"2026-02":                          true,
		"2026-02-06":                       true,
		"2026-02-06T10:30:00Z":             true,
		"2026-02-06T10:30:00.123456+05:30": true,
		"":                                 false,
		"26":                               false,
		"2026-2-6":                         false,
		"2026-13":                          false,
		"2026-02-30":                       false,
		"2026-02-06T10:30Z":                false,
		"2026-02-06T10:30:00":              false,
		"2026-02-06T8:30:00Z":              false,
		"2026-02-06T25:30:00Z":             false,
		"2026-02-06 10:30:00Z":             false,
		"2026-02-06T10:30:00,5Z":           false,
		"2026-02-06T10:30:00Z\n":           false,
	} {
		if _, err := parseDate(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}
