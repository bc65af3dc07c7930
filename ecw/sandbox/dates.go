package sandbox

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// span is the period that a FHIR date or dateTime means, from ≤ t < to, such as a day, a month or a second. A
// date without a zone is in UTC.
type span struct{ from, to time.Time }

// datePattern is FHIR R4's dateTime (§2.24.0.1): a year, month or day, or a time with seconds and a zone.
// Go's parser alone would accept "T8:00:00Z".
var datePattern = regexp.MustCompile(`^\d{4}(-\d\d(-\d\d(T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))?)?)?$`)

func parseDate(s string) (span, error) {
	if !datePattern.MatchString(s) {
		return span{}, fmt.Errorf("%q is not a FHIR date; write 2026-02-06 or 2026-02-06T10:30:00Z", s)
	}

	layout := time.RFC3339
	end := func(t time.Time) time.Time { return t.Add(time.Second) }
	switch {
	case len(s) == len("2006"):
		layout, end = "2006", func(t time.Time) time.Time { return t.AddDate(1, 0, 0) }
	case len(s) == len("2006-01"):
		layout, end = "2006-01", func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }
	case len(s) == len(time.DateOnly):
		layout, end = time.DateOnly, func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }
	case strings.Contains(s, "."):
		end = func(t time.Time) time.Time { return t.Add(time.Millisecond) }
	}

	t, err := time.Parse(layout, s)
	if err != nil {
		return span{}, fmt.Errorf("%q is not a date of the calendar", s)
	}

	return span{from: t, to: end(t)}, nil
}

// dateTest reads a search value of type date, "ge2026-02-06", and returns its test (FHIR R4 §3.1.1.4.7).
func dateTest(value string) (func(span) bool, error) {
	prefix := "eq"
	if len(value) > 2 && value[0] >= 'a' {
		prefix, value = value[:2], value[2:]
	}

	p, err := parseDate(value)
	if err != nil {
		return nil, err
	}

	equal := func(s span) bool { return !s.from.Before(p.from) && !s.to.After(p.to) }
	switch prefix {
	case "eq":
		return equal, nil
	case "ne":
		return func(s span) bool { return !equal(s) }, nil
	case "gt":
		return func(s span) bool { return s.to.After(p.to) }, nil
	case "lt":
		return func(s span) bool { return s.from.Before(p.from) }, nil
	case "ge":
		return func(s span) bool { return s.to.After(p.from) }, nil
	case "le":
		return func(s span) bool { return s.from.Before(p.to) }, nil
	case "sa":
		return func(s span) bool { return !s.from.Before(p.to) }, nil
	case "eb":
		return func(s span) bool { return !s.to.After(p.from) }, nil
	default:
		return nil, fmt.Errorf("the prefix %q is not supported", prefix)
	}
}
