package fhir

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fastenhealth/gofhir-models/fhir401"
)

var (
	measured = time.Date(2026, 2, 6, 10, 30, 0, 0, time.UTC)
	updated  = time.Date(2026, 2, 6, 10, 30, 5, 0, time.UTC)
	jane     = Subject{PatientID: "d290f1ee-6c54-4b01-90e6-d701748f0851", Display: "Jane Doe"}
)

const (
	readingID    = "d4e5f6a7-b8c9-0123-defa-234567890123"
	ecwPatientID = "ecw-patient-fhir-id-001"
)

func reading(typ Type, values string) Reading {
	return Reading{
		ID:          readingID,
		Type:        typ,
		EffectiveAt: measured,
		Device:      "BP-OMRON-7250",
		Values:      json.RawMessage(values),
	}
}

func observe(t testing.TB, r Reading) *fhir401.Observation {
	t.Helper()
	if err := r.Validate(updated); err != nil {
		t.Fatalf("Validate: %v", err)
	}
	o, err := Observation(r, jane, 1, updated)
	if err != nil {
		t.Fatalf("Observation: %v", err)
	}
	return o
}

// The resource equals the example "Get FHIR Observation" of the API reference in every field and number.
func TestObservationOfTheAPIReference(t *testing.T) {
	want, err := os.ReadFile("testdata/observation.json")
	if err != nil {
		t.Fatal(err)
	}
	got := judge(t, observe(t, reading(BloodPressure, `{"systolic": 142, "diastolic": 92, "heart_rate": 78}`)))
	if !reflect.DeepEqual(tree(t, got), tree(t, want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Every type in every unit becomes the expected resources, both for the API and for the EHR. The expectations
// are written out and not taken from the catalogue.
func TestEveryTypeAndUnit(t *testing.T) {
	const us, cgm = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-", "http://hl7.org/fhir/uv/cgm/StructureDefinition/"
	tests := []struct {
		typ                      Type
		values                   string
		profile, category, codes string
		quantity                 string // value unit code
	}{
		{HeartRate, `{"value":72}`, us + "heart-rate", "vital-signs", "8867-4", "72 beats/minute /min"},
		{HeartRate, `{"value":72,"unit":"bpm"}`, us + "heart-rate", "vital-signs", "8867-4", "72 beats/minute /min"},
		{RespiratoryRate, `{"value":16,"unit":"breaths/min"}`, us + "respiratory-rate", "vital-signs", "9279-1", "16 breaths/minute /min"},
		{Temperature, `{"value":98.60,"unit":"°F"}`, us + "body-temperature", "vital-signs", "8310-5", "98.60 degF [degF]"},
		{Temperature, `{"value":98.6,"unit":"[degF]"}`, us + "body-temperature", "vital-signs", "8310-5", "98.6 degF [degF]"},
		{Temperature, `{"value":37.0,"unit":"C"}`, us + "body-temperature", "vital-signs", "8310-5", "37.0 Cel Cel"},
		{Weight, `{"value":81.6,"unit":"kg"}`, us + "body-weight", "vital-signs", "29463-7", "81.6 kg kg"},
		{Weight, `{"value":180,"unit":"Lbs"}`, us + "body-weight", "vital-signs", "29463-7", "180 lb [lb_av]"},
		{Weight, `{"value":3250,"unit":"g"}`, us + "body-weight", "vital-signs", "29463-7", "3250 g g"},
		{Height, `{"value":178,"unit":"cm"}`, us + "body-height", "vital-signs", "8302-2", "178 cm cm"},
		{Height, `{"value":70.25,"unit":"in"}`, us + "body-height", "vital-signs", "8302-2", "70.25 in [in_i]"},
		{BMI, `{"value":24.9}`, us + "bmi", "vital-signs", "39156-5", "24.9 kg/m2 kg/m2"},
		{OxygenSaturation, `{"value":97,"unit":"%"}`, us + "pulse-oximetry", "vital-signs", "59408-5 2708-6", "97 % %"},
		{BloodGlucose, `{"value":105,"unit":"mg/dL"}`, us + "observation-lab", "laboratory", "41653-7", "105 mg/dL mg/dL"},
		{
			BloodGlucose,
			`{"value":5.8,"unit":"mmol/L","method":"finger_stick"}`,
			us + "observation-lab",
			"laboratory",
			"14743-9",
			"5.8 mmol/L mmol/L",
		},
		{
			BloodGlucose,
			`{"value":105,"unit":"mg/dl","method":"cgm"}`,
			cgm + "cgm-sensor-reading-mass-per-volume",
			"laboratory",
			"99504-3",
			"105 mg/dl mg/dL",
		},
		{
			BloodGlucose,
			`{"value":5.8,"unit":"mmol/L","method":"cgm"}`,
			cgm + "cgm-sensor-reading-moles-per-volume",
			"laboratory",
			"105272-9",
			"5.8 mmol/l mmol/L",
		},
	}

	for _, test := range tests {
		t.Run(string(test.typ)+test.values, func(t *testing.T) {
			view := observe(t, reading(test.typ, test.values))
			judge(t, view)
			sent, err := ForDelivery(view, ecwPatientID)
			if err != nil {
				t.Fatal(err)
			}

			judge(t, sent)
			for _, o := range []*fhir401.Observation{view, sent} {
				var codes []string
				for _, c := range o.Code.Coding {
					codes = append(codes, *c.Code)
				}

				q := o.ValueQuantity
				quantity := string(*q.Value) + " " + *q.Unit + " " + *q.Code
				got := []string{o.Meta.Profile[0], *o.Category[0].Coding[0].Code, strings.Join(codes, " "), quantity}
				if want := []string{test.profile, test.category, test.codes, test.quantity}; !slices.Equal(got, want) {
					t.Errorf("got  %q\nwant %q", got, want)
				}
			}
		})
	}
}

// Every row, unit and spelling of the catalogue can be transformed, including those that are added later.
func TestEveryRowAndSpellingTransforms(t *testing.T) {
	for _, e := range catalogue {
		for _, u := range e.units {
			if strings.ContainsFunc(u.display, func(r rune) bool { return r > '~' }) {
				t.Errorf("%s: the display %q is not ASCII", e.typ, u.display)
			}

			for _, name := range slices.Concat([]string{u.ucum, u.display, " " + strings.ToUpper(u.display) + " "}, u.spellings) {
				values := fmt.Sprintf(`{"value":%v,"unit":%q}`, u.max, name)
				if e.method != "" {
					values = fmt.Sprintf(`{"value":%v,"unit":%q,"method":%q}`, u.min, name, e.method)
				}

				o := observe(t, reading(e.typ, values))
				judge(t, o)
				if got := *o.ValueQuantity.Code; got != u.ucum {
					t.Errorf("%s %s became %s", e.typ, values, got)
				}
			}
		}
	}
}

// If a part of a blood pressure is missing, the resource declares it absent.
func TestMissingComponents(t *testing.T) {
	tests := []struct{ values, want string }{
		{`{"systolic":120,"diastolic":80}`, "8480-6=120 8462-4=80"},
		{`{"systolic":120}`, "8480-6=120 8462-4=unknown"},
		{`{"diastolic":80,"systolic":null}`, "8480-6=unknown 8462-4=80"},
		{`{"diastolic":80,"heart_rate":61,"unit":"mmHg"}`, "8480-6=unknown 8462-4=80 8867-4=61"},
		{`{"systolic":120.50,"heart_rate":null}`, "8480-6=120.50 8462-4=unknown"},
	}

	for _, test := range tests {
		t.Run(test.values, func(t *testing.T) {
			o := observe(t, reading(BloodPressure, test.values))
			judge(t, o)
			var got []string

			for _, c := range o.Component {
				part := *c.Code.Coding[0].Code + "="
				if c.ValueQuantity != nil {
					part += string(*c.ValueQuantity.Value)
				}
				if c.DataAbsentReason != nil {
					part += *c.DataAbsentReason.Coding[0].Code
				}
				got = append(got, part)
			}

			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if o.ValueQuantity != nil {
				t.Error("a panel has a value of its own")
			}
		})
	}
}

func TestTimesAreUTCToTheMicrosecond(t *testing.T) {
	r := reading(HeartRate, `{"value":60}`)
	r.EffectiveAt = time.Date(2026, 2, 6, 5, 30, 0, 123456789, time.FixedZone("", -5*3600))
	o := observe(t, r)
	judge(t, o)
	if got := *o.EffectiveDateTime; got != "2026-02-06T10:30:00.123456Z" {
		t.Error(got)
	}
}

func TestTextsSurvive(t *testing.T) {
	r := reading(HeartRate, `{"value":60}`)
	r.Device = " A&D <UA-651> Ä "
	s := Subject{PatientID: jane.PatientID, Display: `Zoë "Z" O'Neil & Söhne`}
	o, err := Observation(r, s, 1, updated)
	if err != nil {
		t.Fatal(err)
	}

	raw := string(judge(t, o))
	for _, want := range []string{`"A&D <UA-651> Ä"`, `"Zoë \"Z\" O'Neil & Söhne"`} {
		if !strings.Contains(raw, want) {
			t.Errorf("no %s in %s", want, raw)
		}
	}

	if o, _ = Observation(r, Subject{PatientID: jane.PatientID}, 2, updated); o.Subject.Display != nil || *o.Meta.VersionId != "2" {
		t.Error("an empty display is shown, or the version is not")
	}
}

func TestObservationRefuses(t *testing.T) {
	good := reading(HeartRate, `{"value":60}`)
	noID, bad := good, good
	noID.ID = "not an id"
	bad.Values = json.RawMessage(`{"value":900}`)

	if _, err := Observation(bad, jane, 1, updated); !isFieldErrors(err) {
		t.Errorf("an impossible reading: %v", err)
	}
	if _, err := Observation(noID, jane, 1, updated); err == nil || isFieldErrors(err) {
		t.Errorf("a broken reading id: %v", err)
	}
	if _, err := Observation(good, Subject{PatientID: "a/b"}, 1, updated); err == nil || isFieldErrors(err) {
		t.Errorf("a broken patient id: %v", err)
	}
}

func isFieldErrors(err error) bool {
	_, ok := err.(FieldErrors)
	return ok
}

// A resource that is stored and read again is unchanged.
func TestMarshalRoundTrip(t *testing.T) {
	raw := judge(t, observe(t, reading(Temperature, `{"value":98.60,"unit":"F"}`)))
	o, err := fhir401.UnmarshalObservation(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Marshal(&o)
	if err != nil || string(again) != string(raw) {
		t.Errorf("%v\ngot  %s\nwant %s", err, again, raw)
	}
	if !strings.HasPrefix(string(raw), `{"resourceType":"Observation","id":`) || !strings.Contains(string(raw), `"value":98.60,`) {
		t.Errorf("%s", raw)
	}
}

func BenchmarkTransform(b *testing.B) {
	r := reading(BloodPressure, `{"systolic": 142, "diastolic": 92, "heart_rate": 78}`)
	b.ReportAllocs()
	for b.Loop() {
		o, err := Observation(r, jane, 1, updated)
		if err != nil {
			b.Fatal(err)
		}

		sent, err := ForDelivery(o, ecwPatientID)
		if err != nil {
			b.Fatal(err)
		}

		if _, err := Marshal(sent); err != nil {
			b.Fatal(err)
		}
	}
}
