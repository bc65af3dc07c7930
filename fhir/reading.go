// Package fhir turns home vital-sign readings into FHIR R4 Observations that meet US Core, and FHIR Patients
// into demographics. It is pure: it uses no network, no database and no clock of its own; everything it needs
// is an argument.
//
// [Reading.Validate] refuses a reading that cannot become a valid Observation. [Observation] builds the
// resource that our API shows, and [ForDelivery] makes the resource to send to the EHR from that. The
// catalogue in catalogue.go says how each type of reading is represented in FHIR.
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
	// earliestYear excludes the zero dates of parsers and devices (year 1, 1601).
	earliestYear = 1900
	// maxDeviceRunes keeps the name of a device short enough to be shown on one line.
	maxDeviceRunes = 128
)

// Reading is one measurement as a device reported it.
type Reading struct {
	// ID is our UUID. It becomes the id of the resource that our API shows, and an identifier of the one for
	// the EHR. Validate does not check it, so that a reading can be validated before it has one.
	ID string
	// Type is the kind of measurement. It determines the fields of Values.
	Type Type
	// EffectiveAt is the time of the measurement. Any zone is accepted; resources have UTC, to the
	// microsecond at most.
	EffectiveAt time.Time
	// Device is the display name of the measuring device (the cuff, not the gateway), such as "BP-OMRON-7250".
	// It is empty if the device is not known.
	Device string
	// Values is the JSON object that the device sent, unchanged, so that its decimals keep their digits.
	//
	// A blood pressure has at least one of "systolic" and "diastolic", and optionally "heart_rate" and
	// "unit". Every other type has "value" and "unit"; the unit may be left out if the type has only one. A
	// glucose may have the "method" of its measurement, "finger_stick" (the default) or "cgm", and its "meal":
	// "pre" if it was measured before one, "post" if after. A null counts as left out.
	Values json.RawMessage
}

// FieldError is one invalid field of a reading. Field is its name in the API ("values.systolic"), and Message
// contains the remedy. Message may repeat the value that was sent, so it may be shown to the sender but must
// not be logged.
type FieldError struct{ Field, Message string }

func (e FieldError) Error() string { return e.Field + ": " + e.Message }

// FieldErrors are all invalid fields of a reading, in the order of the fields. It is never empty when
// returned as an error.
type FieldErrors []FieldError

func (e FieldErrors) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "; ")
}

// Names lists the invalid fields without anything that was sent, so that it may be logged: a field name that
// no type of reading has is replaced by "values".
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
	if slices.Contains([]string{"value", "unit", "method", "meal"}, name) {
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

// Validate checks whether the reading can become a valid Observation. It returns nil, or FieldErrors with all
// invalid fields. A reading is in the future if it is more than 5 minutes after now, because a device's clock
// may be ahead by that much.
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

// measure checks everything that does not depend on the current time, and returns what was measured.
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
		return measurement{}, errs // without a type the values cannot be checked
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

// checkDevice returns what is wrong with the name of a device, or "". An empty name is none.
func checkDevice(name string) string {
	switch {
	case name != "" && strings.TrimSpace(name) == "":
		return "is blank: send the name of the measuring device, such as BP-OMRON-7250, or leave it out"
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case utf8.RuneCountInString(name) > maxDeviceRunes:
		return fmt.Sprintf("is longer than %d characters", maxDeviceRunes)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return "contains control or invisible characters; send the plain name"
	}
	return ""
}
