package fhir

import (
	"errors"
	"fmt"

	"github.com/fastenhealth/gofhir-models/fhir401"
)

// IdentifierSystem is the system of the identifiers that we give to the resources we send; the value is the
// reading's UUID. It must never change, because the EHR finds a reading, and recognises a repeated delivery,
// by system and value.
const IdentifierSystem = "https://vantrexia.com/fhir/sid/observation"

// The tags of the resources that we send. US Core 8 asks for patient-supplied on a patient's own
// measurements.
const (
	sourceTagSystem = "https://vantrexia.com/fhir/CodeSystem/source"
	usCoreTagSystem = "http://hl7.org/fhir/us/core/CodeSystem/us-core-tags"
)

// ForDelivery makes the Observation to send to the EHR from the one that our API shows. They differ in four
// things. The elements that a server assigns are removed (id, meta.versionId, meta.lastUpdated). The subject
// is the EHR's patient, without a name. The reading's UUID becomes an identifier. And tags name the source
// "Vantrexia RPM" and say that the reading was supplied by the patient.
//
// The result has passed Check. The error repeats no value. The input is not changed, and the result shares no
// memory with it.
func ForDelivery(o *fhir401.Observation, ecwPatientID string) (*fhir401.Observation, error) {
	if o.Id == nil || !idPattern.MatchString(*o.Id) {
		return nil, fmt.Errorf("the Observation has no valid id to identify it by; transform the reading again")
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

// clone makes a deep copy by way of JSON. It keeps decimals as written, because they are json.Numbers.
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
