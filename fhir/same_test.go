package fhir

import (
	"encoding/json"
	"testing"
)

func TestSameValues(t *testing.T) {
	tests := []struct {
		typ  Type
		a, b string
		same bool
	}{
		{BloodPressure, `{"systolic":142,"diastolic":92}`, ` {"diastolic":92.0,"systolic":1.42e2} `, true},
		{BloodPressure, `{"systolic":142,"diastolic":92}`, `{"systolic":142,"diastolic":92,"heart_rate":null,"unit":"mmHg"}`, true},
		{BloodPressure, `{"systolic":142,"diastolic":92}`, `{"systolic":142,"diastolic":92,"heart_rate":78}`, false},
		{BloodPressure, `{"systolic":142,"diastolic":92}`, `{"systolic":142}`, false},
		{BloodPressure, `{"systolic":142}`, `{"systolic":142,"diastolic":null}`, true},
		{BloodPressure, `{"systolic":142,"diastolic":92}`, `{"systolic":142,"diastolic":92.00000000000001}`, false},
		{HeartRate, `{"value":72}`, `{"value":72,"unit":"bpm"}`, true},
		{HeartRate, `{"value":72}`, `{"value":73}`, false},
		{Weight, `{"value":180,"unit":"lbs"}`, `{"value":180.0,"unit":"[lb_av]"}`, true},
		{Weight, `{"value":180,"unit":"lbs"}`, `{"value":180,"unit":"kg"}`, false},
		{Weight, `{"value":1,"unit":"kg"}`, `{"value":1000,"unit":"g"}`, false},
		{Temperature, `{"value":98.60,"unit":"F"}`, `{"value":98.6,"unit":"°F"}`, true},
		{BloodGlucose, `{"value":105,"unit":"mg/dL"}`, `{"value":105,"unit":"mg/dl","method":"finger_stick","meal":null}`, true},
		{BloodGlucose, `{"value":105,"unit":"mg/dL"}`, `{"value":105,"unit":"mg/dL","method":"cgm"}`, false},
		{BloodGlucose, `{"value":105,"unit":"mg/dL"}`, `{"value":105,"unit":"mg/dL","meal":"pre"}`, false},
		{BloodGlucose, `{"value":105,"unit":"mg/dL","meal":"pre"}`, `{"value":105,"unit":"mg/dL","meal":"post"}`, false},
		{BloodGlucose, `{"value":105,"unit":"mg/dL","meal":"pre"}`, `{"meal":"pre","unit":"mg/dL","value":105}`, true},

		{HeartRate, `{"value":900}`, `{"value":900}`, false},
		{HeartRate, `{"value":72}`, ``, false},
		{"mood", `{"value":72}`, `{"value":72}`, false},
	}

	for _, test := range tests {
		for _, pair := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			if got := SameValues(test.typ, json.RawMessage(pair[0]), json.RawMessage(pair[1])); got != test.same {
				t.Errorf("%s %s and %s: %t", test.typ, pair[0], pair[1], got)
			}
		}
	}
}
