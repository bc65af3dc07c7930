package fhir

import (
	"encoding/json"
	"strings"
	"testing"
)

// What a meter says about the meal stands in the resource as a note, in the API's view and in what is sent.
func TestMealIsANote(t *testing.T) {
	for values, want := range map[string]string{
		`{"value":105,"unit":"mg/dL","meal":"pre"}`:                 `"note":[{"text":"Measured before a meal."}]`,
		`{"value":5.8,"unit":"mmol/L","meal":"post"}`:               `"note":[{"text":"Measured after a meal."}]`,
		`{"value":105,"unit":"mg/dL","method":"cgm","meal":"post"}`: `"note":[{"text":"Measured after a meal."}]`,
		`{"value":105,"unit":"mg/dL"}`:                              ``,
		`{"value":105,"unit":"mg/dL","meal":null,"method":"cgm"}`:   ``,
	} {
		view := observe(t, reading(BloodGlucose, values))
		sent, err := ForDelivery(view, ecwPatientID)
		if err != nil {
			t.Fatalf("%s: %v", values, err)
		}

		for _, raw := range []json.RawMessage{judge(t, view), judge(t, sent)} {
			if has := strings.Contains(string(raw), `"note"`); has != (want != "") || !strings.Contains(string(raw), want) {
				t.Errorf("%s: want %s in %s", values, want, raw)
			}
		}
	}
}

// A reading whose device is not known has no device in the resource.
func TestNoDevice(t *testing.T) {
	r := reading(BloodPressure, `{"systolic":142,"diastolic":92}`)
	r.Device = ""
	view := observe(t, r)
	sent, err := ForDelivery(view, ecwPatientID)
	if err != nil {
		t.Fatal(err)
	}

	for _, raw := range []json.RawMessage{judge(t, view), judge(t, sent)} {
		if strings.Contains(string(raw), `"device"`) {
			t.Errorf("there is a device in %s", raw)
		}
	}
}
