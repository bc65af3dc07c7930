package fhir

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParsePatient(t *testing.T) {
	const full = `{
		"resourceType": "Patient", "id": "ecw-patient-fhir-id-001", "active": false, "gender": "female", "birthDate": "1961-04-09",
		"extension": [{"url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
			"extension": [{"url": "text", "valueString": "White"}]}],
		"identifier": [
			{"system": "http://hl7.org/fhir/sid/us-ssn", "value": "999-12-3456",
				"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "SS"}]}},
			{"use": "usual", "value": "7", "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PI"}]}},
			{"use": "old", "value": "ECW-1", "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}},
			{"use": "primary", "value": " ECW-10087 ", "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}}],
		"name": [
			{"use": "maiden", "family": "Miller", "given": ["Sarah"]},
			{"use": "usual", "family": "Johnson", "given": ["Sally"]},
			{"use": "official", "family": "Johnson", "given": [null, "Sarah", "Jane"]}],
		"telecom": [
			{"system": "phone", "use": "old", "value": "555-0100"},
			{"system": "phone", "use": "work", "value": "555-0101"},
			{"system": "email", "value": "sarah@example.com"},
			{"system": "phone", "use": "mobile", "value": "555-0102"}],
		"address": [
			{"use": "old", "line": ["1 Past St"], "city": "Before"},
			{"use": "billing", "line": ["PO Box 1"], "city": "Billing"},
			{"use": "home", "line": ["80 Mill St", "", "Apt 21"], "city": "Sand Springs", "state": "OK", "postalCode": "74063",
				"country": "USA"}]
	}`

	tests := []struct {
		name, patient string
		want          Demographics
	}{
		{"full", full, Demographics{
			ID:        "ecw-patient-fhir-id-001",
			FirstName: "Sarah",
			LastName:  "Johnson",
			BirthDate: "1961-04-09",
			Gender:    "female",
			MRN:       "ECW-10087",
			Phone:     "555-0102",
			Email:     "sarah@example.com",
			Address: Address{
				Lines:      []string{"80 Mill St", "Apt 21"},
				City:       "Sand Springs",
				State:      "OK",
				PostalCode: "74063",
			},
		}},
		{"the least", `{}`, Demographics{Active: true}},
		{"nulls", `{"identifier":null,"name":[{"given":null}],"telecom":null,"address":null}`, Demographics{Active: true}},
		{"year of birth", `{"birthDate":"1961"}`, Demographics{BirthDate: "1961", Active: true}},
		{"month of birth", `{"birthDate":"1961-04","active":true}`, Demographics{BirthDate: "1961-04", Active: true}},
		{"gender is a code", `{"gender":"F"}`, Demographics{Active: true}},
		{"name as text", `{"name":[{"text":"Mary Ann Smith"}]}`, Demographics{FirstName: "Mary Ann", LastName: "Smith", Active: true}},
		{"one name", `{"name":[{"family":"Sukarno"}]}`, Demographics{LastName: "Sukarno", Active: true}},
		{
			"former name only",
			`{"name":[{"use":"old","family":"Smith","given":["Ann"]}]}`,
			Demographics{FirstName: "Ann", LastName: "Smith", Active: true},
		},
		{"empty official name", `{"name":[{"use":"official"},{"family":"Smith"}]}`, Demographics{LastName: "Smith", Active: true}},
		{
			"MRN in words",
			`{"identifier":[{"value":"1"},{"value":"2","type":{"text":"Medical Record Number"}}]}`,
			Demographics{MRN: "2", Active: true},
		},
		{
			"MRN of the internal number",
			`{"identifier":[{"value":"1","use":"usual"},{"value":"2","type":{"coding":[{"code":"PI"}]}}]}`,
			Demographics{MRN: "2", Active: true},
		},
		{"MRN of the usual identifier", `{"identifier":[{"value":"1"},{"value":"2","use":"usual"}]}`, Demographics{MRN: "2", Active: true}},
		{
			"MRN by the old table",
			`{"identifier":[{"value":"2","type":{"coding":[{"system":"http://hl7.org/fhir/v2/0203","code":"MR"}]}}]}`,
			Demographics{MRN: "2", Active: true},
		},
		{"no MRN of a licence", `{"identifier":[{"value":"1","use":"usual","type":{"coding":[{"code":"DL"}]}}]}`, Demographics{Active: true}},
		{
			"ranked phone",
			`{"telecom":[{"system":"phone","use":"mobile","value":"1"},{"system":"phone","use":"work","rank":2,"value":"2"},{"system":"phone","rank":1,"value":"3"}]}`,
			Demographics{Phone: "3", Active: true},
		},
		{
			"first of equals",
			`{"telecom":[{"system":"email","value":"a@example.com"},{"system":"email","value":"b@example.com"}]}`,
			Demographics{Email: "a@example.com", Active: true},
		},
		{"former address only", `{"address":[{"use":"old","city":"Before"}]}`, Demographics{Active: true}},
	}

	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			patient := test.patient
			if test.want.ID == "" {
				test.want.ID = "p1"
				patient = strings.Replace(patient, "{", `{"resourceType":"Patient","id":"p1",`, 1)
				patient = strings.Replace(patient, ",}", "}", 1)
			}

			got, err := ParsePatient(json.RawMessage(patient), "")
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// TestMRN lists which of a patient's identifiers is the medical record number, and which systems are returned
// if none is.
func TestMRN(t *testing.T) {
	t.Parallel()
	const ours = "urn:oid:1.2.840.114350.1.13.1"
	for _, tc := range []struct {
		name, identifiers, system string
		mrn                       string
		systems                   []string
	}{
		{"sole", `{"system":"http://ehr.example/mrn","value":" 10042 "}`, "", "10042", nil},
		{
			"sole, beside an old one and one without a value",
			`{"value":"9","use":"old"},{"system":"http://ehr.example/x"},{"value":"10042"}`,
			"",
			"10042",
			nil,
		},
		{"sole, but of another type", `{"value":"1","type":{"coding":[{"code":"DL"}]}}`, "", "", nil},
		{
			"sole, but a social security number",
			`{"system":"http://hl7.org/fhir/sid/us-ssn","value":"999-12-3456"}`,
			"",
			"",
			[]string{"http://hl7.org/fhir/sid/us-ssn"},
		},
		{
			"usual, but a social security number",
			`{"system":"urn:oid:2.16.840.1.113883.4.1","value":"999-12-3456","use":"usual"},{"value":"2"}`,
			"",
			"",
			[]string{"urn:oid:2.16.840.1.113883.4.1"},
		},
		{
			"two without a type",
			`{"system":"` + ours + `","value":"1"},{"system":"http://ehr.example/b","value":"2"}`,
			"",
			"",
			[]string{ours, "http://ehr.example/b"},
		},
		{"of the system", `{"system":"http://ehr.example/b","value":"2"},{"system":"` + ours + `","value":"1"}`, ours, "1", nil},
		{
			"of the system, whatever its type",
			`{"value":"2","type":{"coding":[{"code":"MR"}]}},{"system":"` + ours + `","value":"1","type":{"coding":[{"code":"PI"}]}}`,
			ours,
			"1",
			nil,
		},
		{
			"none of the system",
			`{"system":"http://ehr.example/b","value":"2","type":{"coding":[{"code":"MR"}]}}`,
			ours,
			"",
			[]string{"http://ehr.example/b"},
		},
		{"an old one of the system", `{"system":"` + ours + `","value":"1","use":"old"}`, ours, "", nil},
		{
			"systems that are no URIs",
			`{"system":"John Smith","value":"1"},{"system":"smith","value":"2"},{"system":"http://john@ehr.example/","value":"3"},` +
				`{"system":"http://ehr.example/?name=smith","value":"4"},{"system":"mailto:john@ehr.example","value":"5"},{"system":"http://ehr.example/#john","value":"6"},` +
				`{"system":"http://ehr.example/\u0007","value":"7"},{"system":"urn:","value":"8"},{"system":"http:///x","value":"9"},{"system":"urn:John Smith:1","value":"9"}`,
			"",
			"",
			nil,
		},
		{"the same system twice", `{"system":"urn:a:b","value":"1"},{"system":"urn:a:b","value":"2"}`, "", "", []string{"urn:a:b"}},
		{
			"many systems",
			`{"system":"urn:a:1","value":"1"},{"system":"urn:a:2","value":"1"},{"system":"urn:a:3","value":"1"},{"system":"urn:a:4","value":"1"},` +
				`{"system":"urn:a:5","value":"1"},{"system":"urn:a:6","value":"1"}`,
			"",
			"",
			[]string{"urn:a:1", "urn:a:2", "urn:a:3", "urn:a:4", "urn:a:5"},
		},
		{
			"a long system",
			`{"system":"urn:a:` + strings.Repeat("x", 200) + `","value":"1"},{"system":"urn:a:2","value":"1"}`,
			"",
			"",
			[]string{"urn:a:2"},
		},
	} {
		got, err := ParsePatient(json.RawMessage(`{"resourceType":"Patient","id":"p1","identifier":[`+tc.identifiers+`]}`), tc.system)
		if err != nil || got.MRN != tc.mrn || !slices.Equal(got.IdentifierSystems, tc.systems) {
			t.Errorf("%s: got %q, %q, %v; want %q, %q", tc.name, got.MRN, got.IdentifierSystems, err, tc.mrn, tc.systems)
		}
	}
}

func TestParsePatientRefuses(t *testing.T) {
	tests := []struct{ patient, want string }{
		{``, "the resource is not a JSON object"},
		{`<html>secret</html>`, "the resource is not a JSON object"},
		{`["secret"]`, "the resource is not a JSON object"},
		{`{"resourceType":"Observation","id":"secret"}`, "the resource is not a Patient"},
		{`{"resourceType":"Patient"}`, "the Patient's id is missing or is not a FHIR id"},
		{`{"resourceType":"Patient","id":"secret secret"}`, "the Patient's id is missing or is not a FHIR id"},
		{`{"resourceType":"Patient","id":"1","birthDate":"secret"}`, "Patient.birthDate is not a FHIR date"},
		{`{"resourceType":"Patient","id":"1","birthDate":"1961-02-30"}`, "Patient.birthDate is not a FHIR date"},
		{`{"resourceType":"Patient","id":"1","birthDate":"0000-01-01"}`, "Patient.birthDate is not a FHIR date"},
		{`{"resourceType":"Patient","id":"1","name":[{"family":["secret"]}]}`, "Patient.name.family has the wrong JSON type"},
		{`{"resourceType":"Patient","id":"1","name":{"family":"secret"}}`, "Patient.name has the wrong JSON type"},
		{`{"resourceType":"Patient","id":"1","address":[{"line":"secret"}]}`, "Patient.address.line has the wrong JSON type"},
		{`{"resourceType":"Patient","id":"1","name":[` + strings.Repeat("{},", 200) + `{}]}`, "a list of the Patient has more than 200 elements"},
	}

	for _, test := range tests {
		_, err := ParsePatient(json.RawMessage(test.patient), "")
		if err == nil || err.Error() != test.want || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s\ngot  %v\nwant %s", test.patient, err, test.want)
		}
	}
}
