package fhir_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/vantrexia/vantrexia/fhir"
)

// A weight becomes a US Core Observation, as our API shows it.
func ExampleObservation() {
	reading := fhir.Reading{
		ID:          "d4e5f6a7-b8c9-0123-defa-234567890123",
		Type:        fhir.Weight,
		EffectiveAt: time.Date(2026, 2, 6, 10, 30, 0, 0, time.UTC),
		Device:      "A&D UC-352",
		Values:      json.RawMessage(`{"value": 182.50, "unit": "lb"}`),
	}

	subject := fhir.Subject{PatientID: "d290f1ee-6c54-4b01-90e6-d701748f0851", Display: "Jane Doe"}
	observation, err := fhir.Observation(reading, subject, 1, reading.EffectiveAt.Add(5*time.Second))
	if err != nil {
		log.Fatal(err)
	}

	resource, err := fhir.Marshal(observation)
	if err != nil {
		log.Fatal(err)
	}

	var indented bytes.Buffer
	if err := json.Indent(&indented, resource, "", "  "); err != nil {
		log.Fatal(err)
	}

	fmt.Println(indented.String())
	// Output:
	// {
	//   "resourceType": "Observation",
	//   "id": "d4e5f6a7-b8c9-0123-defa-234567890123",
	//   "meta": {
	//     "versionId": "1",
	//     "lastUpdated": "2026-02-06T10:30:05Z",
	//     "profile": [
	//       "http://hl7.org/fhir/us/core/StructureDefinition/us-core-body-weight"
	//     ]
	//   },
	//   "status": "final",
	//   "category": [
	//     {
	//       "coding": [
	//         {
	//           "system": "http://terminology.hl7.org/CodeSystem/observation-category",
	//           "code": "vital-signs",
	//           "display": "Vital Signs"
	//         }
	//       ]
	//     }
	//   ],
	//   "code": {
	//     "coding": [
	//       {
	//         "system": "http://loinc.org",
	//         "code": "29463-7",
	//         "display": "Body weight"
	//       }
	//     ]
	//   },
	//   "subject": {
	//     "reference": "Patient/d290f1ee-6c54-4b01-90e6-d701748f0851",
	//     "display": "Jane Doe"
	//   },
	//   "effectiveDateTime": "2026-02-06T10:30:00Z",
	//   "valueQuantity": {
	//     "value": 182.50,
	//     "unit": "lb",
	//     "system": "http://unitsofmeasure.org",
	//     "code": "[lb_av]"
	//   },
	//   "device": {
	//     "display": "A&D UC-352"
	//   }
	// }
}

// The resource for the EHR names the patient by the EHR's id only, and has the reading's id as an identifier.
func ExampleForDelivery() {
	reading := fhir.Reading{
		ID:          "d4e5f6a7-b8c9-0123-defa-234567890123",
		Type:        fhir.HeartRate,
		EffectiveAt: time.Date(2026, 2, 6, 10, 30, 0, 0, time.UTC),
		Device:      "BP-OMRON-7250",
		Values:      json.RawMessage(`{"value": 78}`),
	}

	subject := fhir.Subject{PatientID: "d290f1ee-6c54-4b01-90e6-d701748f0851", Display: "Jane Doe"}
	shown, err := fhir.Observation(reading, subject, 1, reading.EffectiveAt)
	if err != nil {
		log.Fatal(err)
	}

	sent, err := fhir.ForDelivery(shown, "ecw-patient-fhir-id-001")
	if err != nil {
		log.Fatal(err)
	}

	var parts struct{ Subject, Identifier json.RawMessage }
	resource, err := fhir.Marshal(sent)
	if err == nil {
		err = json.Unmarshal(resource, &parts)
	}
	if err != nil {
		log.Fatal(err)
	}

	fmt.Printf("%s\n%s\n", parts.Subject, parts.Identifier)
	// Output:
	// {"reference":"Patient/ecw-patient-fhir-id-001"}
	// [{"system":"https://vantrexia.com/fhir/sid/observation","value":"d4e5f6a7-b8c9-0123-defa-234567890123"}]
}

// The error names every invalid field, and the remedy.
func ExampleReading_Validate() {
	now := time.Date(2026, 2, 6, 10, 31, 0, 0, time.UTC)
	reading := fhir.Reading{
		Type:        fhir.BloodPressure,
		EffectiveAt: now.Add(time.Hour),
		Device:      "BP-OMRON-7250",
		Values:      json.RawMessage(`{"systolic": "142", "diastolic": 92}`),
	}

	var fields fhir.FieldErrors
	if errors.As(reading.Validate(now), &fields) {
		for _, field := range fields {
			fmt.Printf("%s: %s\n", field.Field, field.Message)
		}
	}
	// Output:
	// values.systolic: must be a number, not a string
	// effective_at: is in the future; check the clock of the device
}

// The identifier of type MR becomes the MRN of the demographics.
func ExampleParsePatient() {
	patient, err := fhir.ParsePatient(json.RawMessage(`{
		"resourceType": "Patient",
		"id": "ecw-patient-fhir-id-001",
		"identifier": [
			{"system": "https://ehr.example/account", "value": "778"},
			{"system": "https://ehr.example/mrn", "value": "ECW-10042",
			 "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}}
		],
		"name": [{"use": "official", "family": "Smith", "given": ["John", "Q"]}],
		"gender": "male",
		"birthDate": "1958-03-14",
		"telecom": [{"system": "phone", "value": "918-555-0142", "use": "mobile"}]
	}`), "")
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(patient.ID, patient.MRN)
	fmt.Println(patient.FirstName, patient.LastName, patient.BirthDate, patient.Gender, patient.Phone, patient.Active)
	// Output:
	// ecw-patient-fhir-id-001 ECW-10042
	// John Smith 1958-03-14 male 918-555-0142 true
}
