package sandbox

import (
	"fmt"
	"regexp"
	"time"
)

// span is the time that a FHIR date or dateTime stands for, from ≤ t < to: a day, a month, a second. Dates without a
// zone are UTC.
type span struct{ from, to time.Time }

// dateForms are the precisions of FHIR R4's dateTime (§2.24.0.1). A time needs seconds and a zone.
func dateForms() []dateForm {
	return []dateForm{
		{regexp.MustCompile(`^\d{4}$`), "2006", func(t time.Time) time.Time { return t.AddDate(1, 0, 0) }},
		{regexp.MustCompile(`^\d{4}-\d\d$`), "2006-01", func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }},
		{regexp.MustCompile(`^\d{4}-\d\d-\d\d$`), "2006-01-02", func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }},
		{regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$`), time.RFC3339, plus(time.Second)},
		{regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)$`), time.RFC3339Nano, plus(time.Millisecond)},
	}
}

type dateForm struct {
	pattern *regexp.Regexp
	layout  string
	end     func(time.Time) time.Time
}

func plus(d time.Duration) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return t.Add(d) }
}

func parseDate(s string) (span, error) {
	for _, form := range dateForms() {
		if !form.pattern.MatchString(s) {
			continue
		}
		t, err := time.Parse(form.layout, s)
		if err != nil {
			return span{}, fmt.Errorf("%q is no date of the calendar", s)
		}
		return span{from: t, to: form.end(t)}, nil
	}
	return span{}, fmt.Errorf("%q is no FHIR date; write 2026-02-06 or 2026-02-06T10:30:00Z", s)
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
