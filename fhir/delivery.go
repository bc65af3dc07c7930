package fhir

import (
	"errors"
	"fmt"

	"github.com/fastenhealth/gofhir-models/fhir401"
)

// IdentifierSystem is the namespace of the identifiers that we put on what we send; the value is the reading's UUID. The EHR
// finds a reading again by the two, and a repeated delivery is recognised by them, so it must never change.
const IdentifierSystem = "https://vantrexia.com/fhir/sid/observation"

// The tags of what we send. US Core 8 asks for patient-supplied on what a patient measured at home.
const (
	sourceTagSystem = "https://vantrexia.com/fhir/CodeSystem/source"
	usCoreTagSystem = "http://hl7.org/fhir/us/core/CodeSystem/us-core-tags"
)

// ForDelivery derives from an Observation as our API shows it the one to send to the EHR. Four things differ: the elements
// that a server assigns are gone (id, meta.versionId, meta.lastUpdated), the subject is the EHR's patient without a name, the
// reading's UUID becomes an identifier, and tags name the source "Vantrexia RPM" and say that it is supplied by the patient.
//
// The result passes Check, or there is an error, which repeats no value. The input is left as it is, and the result shares no
// memory with it.
func ForDelivery(o *fhir401.Observation, ecwPatientID string) (*fhir401.Observation, error) {
	if o.Id == nil || !idPattern.MatchString(*o.Id) {
		return nil, fmt.Errorf("the Observation has no id to identify it by")
	}

	if !idPattern.MatchString(ecwPatientID) {
		return nil, fmt.Errorf("the patient's eCW id is not a FHIR id (1 to 64 letters, digits, dots and hyphens): "+
			"correct it, without %q in front", "Patient/")
	}

	d, err := clone(o)
	if err != nil {
		return nil, err
	}

	d.Identifier = []fhir401.Identifier{{System: new(IdentifierSystem), Value: d.Id}}
	d.Id = nil
	if d.Meta == nil {
		d.Meta = &fhir401.Meta{}
	}

	d.Meta.VersionId, d.Meta.LastUpdated = nil, nil
	d.Meta.Tag = []fhir401.Coding{
		{System: new(sourceTagSystem), Code: new("vantrexia-rpm"), Display: new("Vantrexia RPM")},
		{System: new(usCoreTagSystem), Code: new("patient-supplied")},
	}
	d.Subject = &fhir401.Reference{Reference: new("Patient/" + ecwPatientID)}

	if err := Check(d); err != nil {
		return nil, err
	}

	return d, nil
}

// clone copies by way of JSON, which cannot forget a pointer, and keeps decimals as written (they are json.Numbers).
func clone(o *fhir401.Observation) (*fhir401.Observation, error) {
	raw, err := Marshal(o)
	if err != nil {
		return nil, errors.New("the Observation cannot be written as JSON")
	}
	c, err := fhir401.UnmarshalObservation(raw)
	if err != nil {
		return nil, errors.New("the Observation has an element that FHIR does not know")
	}
	return &c, nil
}
