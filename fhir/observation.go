package fhir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fastenhealth/gofhir-models/fhir401"
)

// Subject is the patient as our API shows them.
type Subject struct {
	PatientID string // our UUID, not the EHR's id
	Display   string // full name; empty leaves it out
}

// Observation builds the resource that our API shows: with our id, the version, the time of the last change,
// and our patient as the subject. It returns the same FieldErrors as Validate, except that it does not
// compare the time with now. Any other error means an invalid id, which is the caller's mistake and not the
// sender's.
//
// Use ForDelivery to make the resource for the EHR from it, and Marshal to write it as JSON.
func Observation(r Reading, s Subject, version int, lastUpdated time.Time) (*fhir401.Observation, error) {
	m, errs := r.measure()
	if len(errs) > 0 {
		return nil, errs
	}

	if !idPattern.MatchString(r.ID) {
		return nil, fmt.Errorf("reading id %q is not a FHIR id", clip(r.ID))
	}
	if !idPattern.MatchString(s.PatientID) {
		return nil, fmt.Errorf("patient id %q is not a FHIR id", clip(s.PatientID))
	}

	o := &fhir401.Observation{
		Id: &r.ID,
		Meta: &fhir401.Meta{
			VersionId:   new(strconv.Itoa(version)),
			LastUpdated: new(instant(lastUpdated)),
			Profile:     []string{m.entry.profile},
		},
		Status:            fhir401.ObservationStatusFinal,
		Category:          []fhir401.CodeableConcept{concept(categorySystem, m.entry.category)},
		Code:              concept(loincSystem, m.entry.codes...),
		Subject:           &fhir401.Reference{Reference: new("Patient/" + s.PatientID)},
		EffectiveDateTime: new(instant(r.EffectiveAt)),
		Note:              m.meal.notes(),
	}

	if r.Device != "" {
		o.Device = &fhir401.Reference{Display: new(strings.TrimSpace(r.Device))}
	}
	if s.Display != "" {
		o.Subject.Display = &s.Display
	}

	if len(m.entry.components) > 0 {
		o.Component = components(m)
	} else {
		o.ValueQuantity = m.value.quantity()
	}

	return o, nil
}

// components returns every component of a panel with its quantity, or with the statement that it is not
// known. Only an optional component is left out if it is not known, and none is given a made-up number.
func components(m measurement) []fhir401.ObservationComponent {
	var parts []fhir401.ObservationComponent
	for i, c := range m.entry.components {
		part := fhir401.ObservationComponent{Code: concept(loincSystem, c.code)}
		if a := m.components[i]; a != nil {
			part.ValueQuantity = a.quantity()
		} else if c.optional {
			continue
		} else {
			part.DataAbsentReason = new(concept(absentSystem, coding{"unknown", "Unknown"}))
		}

		parts = append(parts, part)
	}

	return parts
}

func (a amount) quantity() *fhir401.Quantity {
	return &fhir401.Quantity{
		Value:  &a.value,
		Unit:   &a.unit.display,
		System: new(ucumSystem),
		Code:   &a.unit.ucum,
	}
}

func concept(system string, codes ...coding) fhir401.CodeableConcept {
	var c fhir401.CodeableConcept
	for _, code := range codes {
		c.Coding = append(c.Coding, fhir401.Coding{System: &system, Code: &code.code, Display: &code.display})
	}
	return c
}

// instant writes a time in UTC to the microsecond, the precision that PostgreSQL stores and every FHIR server
// reads.
func instant(t time.Time) string {
	return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
}

// Marshal writes an Observation as compact JSON with "resourceType" first. Unlike the library's own method it
// does not escape <, > and &, so that a name such as "A&D UA-651" stays readable where the resource is shown.
func Marshal(o *fhir401.Observation) (json.RawMessage, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		ResourceType string `json:"resourceType"`
		*fhir401.OtherObservation
	}{"Observation", (*fhir401.OtherObservation)(o)})
	if err != nil {
		return nil, fmt.Errorf("write Observation: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
