// Package fhir turns home vital-sign readings into FHIR R4 Observations that meet US Core, and FHIR Patients into
// demographics. It is pure: no network, no database, no clock of its own; everything it needs is an argument.
//
// The way of a reading: [Reading.Validate] refuses what cannot become a valid Observation, [Observation] builds the resource
// as our API shows it, and [ForDelivery] derives from that the resource to send to the EHR. What a type of reading looks like
// in FHIR stands in one table, the catalogue in catalogue.go.
package fhir

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// clockSkew is how far ahead of ours a device's clock may run.
	clockSkew = 5 * time.Minute
	// earliestYear stops dates that are a parser's or a device's zero value (year 1, 1601).
	earliestYear = 1900
	// maxDeviceRunes keeps device, a display text, short enough to be shown on one line.
	maxDeviceRunes = 128
)

// Reading is one measurement as a device reported it.
type Reading struct {
	// ID is ours, a UUID. It becomes the resource's id and, towards the EHR, its identifier. Validate does not look at it,
	// so that a reading can be validated before it is given one.
	ID string
	// Type says what was measured, and with that what Values holds.
	Type Type
	// EffectiveAt is when it was measured. Any zone is accepted; resources carry UTC, in microseconds at most.
	EffectiveAt time.Time
	// Device is the display name of the measuring device (the cuff, not the gateway), such as "BP-OMRON-7250".
	Device string
	// Values is the JSON object the device sent, untouched: its decimals keep the digits they were written with.
	//
	// A blood pressure has "systolic", "diastolic" (at least one of the two), optionally "heart_rate" and "unit". Every other
	// type has "value" and "unit"; the unit may be left out where the type has only one. A glucose may say by which "method"
	// it was measured: "finger_stick" (the default) or "cgm". A null counts as left out.
	Values json.RawMessage
}

// FieldError is one broken field of a reading: Field as the API names it ("values.systolic"), Message with the remedy. Message
// may repeat the value that was sent, so it is an answer for the sender and has no place in a log.
type FieldError struct{ Field, Message string }

func (e FieldError) Error() string { return e.Field + ": " + e.Message }

// FieldErrors is every broken field of a reading, in the order of the fields. It is never empty when returned as an error.
type FieldErrors []FieldError

func (e FieldErrors) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "; ")
}

// Names lists the broken fields for places where nothing that was sent may stand: a field that no reading has is "values".
func (e FieldErrors) Names() []string {
	var names []string
	for _, f := range e {
		name := f.Field
		if of, field, inside := strings.Cut(name, "."); inside && !isField(field) {
			name = of
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// isField reports whether some type of reading has the field in its values.
func isField(name string) bool {
	if name == "value" || name == "unit" || name == "method" {
		return true
	}
	for _, e := range catalogue {
		if slices.ContainsFunc(e.components, func(c component) bool { return c.field == name }) {
			return true
		}
	}
	return false
}

func (e *FieldErrors) add(field, format string, args ...any) {
	*e = append(*e, FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
}

// Validate says whether the reading can become a valid Observation: nil, or FieldErrors with all broken fields. The time now
// is what "in the future" is measured against; a device's clock may run 5 minutes ahead of it.
func (r Reading) Validate(now time.Time) error {
	_, errs := r.measure()
	if r.EffectiveAt.After(now.Add(clockSkew)) {
		errs.add("effective_at", "is in the future; check the clock of the device")
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// measure checks all that does not depend on the time of day and returns what was measured.
func (r Reading) measure() (measurement, FieldErrors) {
	var errs FieldErrors
	_, err := ParseType(string(r.Type))
	if err != nil {
		errs = append(errs, unknownType(string(r.Type)))
	}

	if msg := checkTime(r.EffectiveAt); msg != "" {
		errs.add("effective_at", "%s", msg)
	}
	if msg := checkDevice(r.Device); msg != "" {
		errs.add("device", "%s", msg)
	}
	if err != nil {
		return measurement{}, errs // without a type, nobody can say what the values should be
	}

	m, valueErrs := measure(r.Type, r.Values)
	return m, append(errs, valueErrs...)
}

// checkTime returns what is wrong with the time of a measurement, or "".
func checkTime(t time.Time) string {
	switch year := t.UTC().Year(); {
	case t.IsZero():
		return "is required: the time of the measurement in RFC 3339, such as 2026-02-06T10:30:00Z"
	case year < earliestYear:
		return fmt.Sprintf("is before %d; check the clock of the device", earliestYear)
	case year > 9999: // FHIR's dateTime has four digits for the year
		return "is after the year 9999; check the clock of the device"
	}
	return ""
}

// checkDevice returns what is wrong with the name of a device, or "".
func checkDevice(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "is required: the name of the measuring device, such as BP-OMRON-7250"
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case utf8.RuneCountInString(name) > maxDeviceRunes:
		return fmt.Sprintf("is longer than %d characters", maxDeviceRunes)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return "contains control or invisible characters; send the plain name"
	}
	return ""
}
