package fhir

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidateAccepts(t *testing.T) {
	tests := []struct {
		typ    Type
		values string
	}{
		// The extremes that were measured on real people (0.753 kg is a newborn), then extreme but possible values.
		{BloodPressure, `{"systolic":40,"diastolic":25}`},
		{BloodPressure, `{"systolic":182,"diastolic":121}`},
		{BloodPressure, `{"systolic":260,"diastolic":150,"heart_rate":220}`},
		{HeartRate, `{"value":25}`},
		{HeartRate, `{"value":220}`},
		{RespiratoryRate, `{"value":9}`},
		{RespiratoryRate, `{"value":33}`},
		{RespiratoryRate, `{"value":90}`},
		{Temperature, `{"value":35.72222,"unit":"Cel"}`},
		{Temperature, `{"value":42.5,"unit":"Cel"}`},
		{Temperature, `{"value":107.9,"unit":"F"}`},
		{Weight, `{"value":0.753,"unit":"kg"}`},
		{Weight, `{"value":118.52369,"unit":"kg"}`},
		{Weight, `{"value":753,"unit":"g"}`},
		{Weight, `{"value":660.0,"unit":"lb"}`},
		{Height, `{"value":45,"unit":"cm"}`},
		{Height, `{"value":198,"unit":"cm"}`},
		{BMI, `{"value":12.8}`},
		{BMI, `{"value":92}`},
		{OxygenSaturation, `{"value":77}`},
		{OxygenSaturation, `{"value":100}`},
		{BloodGlucose, `{"value":18,"unit":"mg/dL"}`},
		{BloodGlucose, `{"value":33.3,"unit":"mmol/L"}`},
		{HeartRate, " {\"value\" :\n 72 , \"unit\": null} "},
		{BloodGlucose, `{"value":105,"unit":"mg/dL","meal":"pre"}`},
		{BloodGlucose, `{"value":5.8,"unit":"mmol/L","meal":"post","method":"cgm"}`},
		{BloodGlucose, `{"value":105,"unit":"mg/dL","meal":null,"method":null}`},
	}

	for _, test := range tests {
		r := reading(test.typ, test.values)
		if err := r.Validate(updated); err != nil {
			t.Errorf("%s %s: %v", test.typ, test.values, err)
		}
	}
}

func TestValidateRefusesValues(t *testing.T) {
	tests := []struct {
		name   string
		typ    Type
		values string
		want   string
	}{
		{
			"impossible",
			BloodPressure,
			`{"systolic":900,"diastolic":80}`,
			`values.systolic: 900 is outside 30 to 300 mmHg; check the device or the unit`,
		},
		{
			"impossible percentage",
			OxygenSaturation,
			`{"value":120,"unit":"%"}`,
			`values.value: 120 is outside 20 to 100 %; check the device or the unit`,
		},
		{
			"wrong unit gives itself away",
			Temperature,
			`{"value":98.6,"unit":"C"}`,
			`values.value: 98.6 is outside 20 to 45 Cel; check the device or the unit`,
		},
		{
			"the range is that of the unit",
			Weight,
			`{"value":81.6,"unit":"g"}`,
			`values.value: 81.6 is outside 200 to 650000 g; check the device or the unit`,
		},
		{"just over", OxygenSaturation, `{"value":100.1}`, `values.value: 100.1 is outside 20 to 100 %; check the device or the unit`},
		{"exponent", HeartRate, `{"value":7.2E2}`, `values.value: 720 is outside 20 to 300 beats/minute; check the device or the unit`},
		{"negative", HeartRate, `{"value":-72}`, `values.value: -72 is outside 20 to 300 beats/minute; check the device or the unit`},
		{
			"swapped",
			BloodPressure,
			`{"systolic":80,"diastolic":120}`,
			`values.systolic: 80 does not exceed the diastolic 120; check whether the two are swapped`,
		},
		{
			"equal",
			BloodPressure,
			`{"systolic":80.0,"diastolic":80}`,
			`values.systolic: 80.0 does not exceed the diastolic 80; check whether the two are swapped`,
		},
		{"all of them", BloodPressure, `{"systolic":"142","diastolic":9,"heart_rate":true,"pulse":3}`,
			`values.systolic: must be a number, not a string; ` +
				`values.diastolic: 9 is outside 10 to 200 mmHg; check the device or the unit; ` +
				`values.heart_rate: must be a number, not a boolean; ` +
				`values.pulse: is not a field of blood_pressure; use systolic, diastolic, heart_rate or unit`},
		{
			"neither pressure",
			BloodPressure,
			`{"heart_rate":60,"systolic":null}`,
			`values: has neither systolic nor diastolic; send at least one of them`,
		},
		{
			"pressure in kPa",
			BloodPressure,
			`{"systolic":120,"unit":"kPa"}`,
			`values.unit: "kPa" is not a unit for blood_pressure; use mm[Hg] (or mmHg)`,
		},
		{"no value", HeartRate, `{}`, `values.value: is required: the number that was measured`},
		{"null value", HeartRate, `{"value":null}`, `values.value: is required: the number that was measured`},
		{
			"no value, no unit",
			Height,
			`{}`,
			`values.value: is required: the number that was measured; values.unit: is required; use cm or [in_i] (or in, inch, inches, in_i)`,
		},
		{
			"unknown unit",
			Weight,
			`{"value":12,"unit":"stone"}`,
			`values.unit: "stone" is not a unit for weight; use kg (or kgs), [lb_av] (or lb, lbs, lb_av) or g`,
		},
		{
			"unit of another type",
			HeartRate,
			`{"value":16,"unit":"breaths/min"}`,
			`values.unit: "breaths/min" is not a unit for heart_rate; use /min (or beats/minute, bpm, beats/min, {beats}/min, 1/min)`,
		},
		{"unit of the wrong type", Weight, `{"value":12,"unit":7}`, `values.unit: must be a string, not a number`},
		{
			"unknown method",
			BloodGlucose,
			`{"value":100,"unit":"mg/dL","method":"guess"}`,
			`values.method: "guess" is not a method for blood_glucose; use finger_stick or cgm`,
		},
		{"method of the wrong type", BloodGlucose, `{"value":100,"unit":"mg/dL","method":[]}`, `values.method: must be a string, not an array`},
		{
			"unknown meal",
			BloodGlucose,
			`{"value":100,"unit":"mg/dL","meal":"PRE"}`,
			`values.meal: "PRE" is not known; use pre or post`,
		},
		{"meal of the wrong type", BloodGlucose, `{"value":100,"unit":"mg/dL","meal":true}`, `values.meal: must be a string, not a boolean`},
		{"meal elsewhere", HeartRate, `{"value":80,"meal":"pre"}`, `values.meal: is not a field of heart_rate; use value or unit`},
		{
			"another field of a glucose",
			BloodGlucose,
			`{"value":100,"unit":"mg/dL","food":"pre"}`,
			`values.food: is not a field of blood_glucose; use value, unit, method or meal`,
		},
		{"method elsewhere", Weight, `{"value":80,"unit":"kg","method":"cgm"}`, `values.method: is not a field of weight; use value or unit`},
		{"unit missing for glucose", BloodGlucose, `{"value":100}`, `values.unit: is required; use mg/dL or mmol/L`},
		{
			"case of a field",
			HeartRate,
			`{"Value":60}`,
			`values.value: is required: the number that was measured; values.Value: is not a field of heart_rate; use value or unit`,
		},
		{"twice", HeartRate, `{"value":60,"value":61}`, `values.value: is given twice; send it once`},
		{"twice, escaped", HeartRate, `{"value":60,"v\u0061lue":61}`, `values.value: is given twice; send it once`},
		{
			"too many digits",
			HeartRate,
			`{"value":72.00000000000000001}`,
			`values.value: has more than 18 digits, which FHIR does not allow; round it to what the device can measure`,
		},
		{
			"huge exponent",
			HeartRate,
			`{"value":1e999999999}`,
			`values.value: has more than 18 digits, which FHIR does not allow; round it to what the device can measure`,
		},
		{"absent", HeartRate, ``, `values: is required: an object with what was measured`},
		{"null", HeartRate, ` null `, `values: is required: an object with what was measured`},
		{"array", HeartRate, `[{"value":60}]`, `values: must be an object, not an array`},
		{"number", HeartRate, `60`, `values: must be an object, not a number`},
		{"truncated", HeartRate, `{"value":60`, `values: is not valid JSON`},
		{"two objects", HeartRate, `{"value":60}{"value":61}`, `values: is not valid JSON`},
		{
			"long name",
			HeartRate,
			`{"value":60,"` + strings.Repeat("x", 500) + `":1}`,
			`values.` + strings.Repeat("x", 40) + `...: is not a field of heart_rate; use value or unit`,
		},
	}

	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantFieldErrors(t, reading(test.typ, test.values), test.want)
		})
	}
}

func TestValidateRefusesTheRest(t *testing.T) {
	const (
		wantType   = `; use blood_pressure, heart_rate, respiratory_rate, temperature, weight, height, bmi, oxygen_saturation or blood_glucose`
		wantDevice = `device: is blank: send the name of the measuring device, such as BP-OMRON-7250, or leave it out`
	)

	tests := []struct {
		name   string
		change func(*Reading)
		want   string
	}{
		{"no type", func(r *Reading) { r.Type = "" }, `observation_type: is required` + wantType},
		{"unknown type", func(r *Reading) { r.Type = "mood" }, `observation_type: "mood" is not a type of reading` + wantType},
		{"no time", func(r *Reading) { r.EffectiveAt = time.Time{} },
			`effective_at: is required: the time of the measurement in RFC 3339, such as 2026-02-06T10:30:00Z`},
		{"1899", func(r *Reading) { r.EffectiveAt = time.Date(1899, 12, 31, 23, 59, 59, 0, time.UTC) },
			`effective_at: is before 1900; check the clock of the device`},
		{"future", func(r *Reading) { r.EffectiveAt = updated.Add(5*time.Minute + time.Second) },
			`effective_at: is in the future; check the clock of the device`},
		{"blank device", func(r *Reading) { r.Device = " \t " }, wantDevice},
		{"long device", func(r *Reading) { r.Device = strings.Repeat("ä", 129) }, `device: is longer than 128 characters`},
		{
			"control character",
			func(r *Reading) { r.Device = "cuff\x00" },
			`device: contains control or invisible characters; send the plain name`,
		},
		{
			"newline",
			func(r *Reading) { r.Device = "cuff\nERROR forged" },
			`device: contains control or invisible characters; send the plain name`,
		},
		{
			"direction override",
			func(r *Reading) { r.Device = "cuff\u202e" },
			`device: contains control or invisible characters; send the plain name`,
		},
		{"bad UTF-8", func(r *Reading) { r.Device = "cuff\xff" }, `device: is not valid UTF-8`},
		{"everything", func(r *Reading) { *r = Reading{Type: HeartRate, Device: " "} },
			`effective_at: is required: the time of the measurement in RFC 3339, such as 2026-02-06T10:30:00Z; ` + wantDevice +
				`; values: is required: an object with what was measured`},
	}

	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := reading(HeartRate, `{"value":60}`)
			test.change(&r)
			wantFieldErrors(t, r, test.want)
		})
	}
}

func wantFieldErrors(t *testing.T, r Reading, want string) {
	t.Helper()
	err := r.Validate(updated)
	if !isFieldErrors(err) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestValidateTimeLimits(t *testing.T) {
	for _, at := range []time.Time{updated.Add(5 * time.Minute), time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)} {
		r := reading(HeartRate, `{"value":60}`)
		r.EffectiveAt = at
		if err := r.Validate(updated); err != nil {
			t.Errorf("%v: %v", at, err)
		}
	}
	r := reading(HeartRate, `{"value":60}`)
	r.EffectiveAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := Observation(r, jane, 1, updated); !isFieldErrors(err) {
		t.Errorf("the year 10000: %v", err)
	}
}

func TestTypes(t *testing.T) {
	want := []Type{BloodPressure, HeartRate, RespiratoryRate, Temperature, Weight, Height, BMI, OxygenSaturation, BloodGlucose}
	if got := Types(); !slices.Equal(got, want) {
		t.Errorf("Types() = %v", got)
	}

	for _, typ := range want {
		if got, err := ParseType(string(typ)); got != typ || err != nil {
			t.Errorf("ParseType(%q) = %q, %v", typ, got, err)
		}
	}

	_, err := ParseType("Weight")
	if fields, ok := errors.AsType[FieldErrors](err); !ok || fields[0].Field != "observation_type" {
		t.Errorf("ParseType of another case: %v", err)
	}
}

func TestDecimal(t *testing.T) {
	tests := []struct{ in, want string }{
		{"98.6", "98.6"},
		{"98.60", "98.60"},
		{"0.753", "0.753"},
		{"142", "142"},
		{"9.86e1", "98.6"},
		{"9.860E+1", "98.60"},
		{"1420e-1", "142.0"},
		{"1e2", "100"},
		{"1.5e0", "1.5"},
		{"5e-3", "0.005"},
		{"0.0005e3", "0.5"},
		{"-1.5e1", "-15"},
		{"123456789012345678", "123456789012345678"},
		{"1e17", "100000000000000000"},
		{"1234567890123456789", ""},
		{"0.123456789012345678", ""},
		{"1e18", ""},
		{"1e-18", ""},
		{"1e99999999999999999999", ""},
		{"1e-99999999999999999999", ""},
	}

	for _, test := range tests {
		got, ok := decimal(test.in)
		if string(got) != test.want || ok != (test.want != "") {
			t.Errorf("decimal(%s) = %q, %v; want %q", test.in, got, ok, test.want)
		}
	}
}

// FuzzReading: nothing panics, and a reading that Validate accepts becomes resources for the API and for the
// EHR that pass judge and contain the numbers that were sent.
func FuzzReading(f *testing.F) {
	for i, values := range []string{
		`{"value":105,"unit":"mg/dL","meal":"pre"}`,
		`{"systolic":142,"diastolic":92,"heart_rate":78}`, `{"value":72}`, `{"value":1.6e1,"unit":"breaths/min"}`,
		`{"value":98.60,"unit":"°F"}`, `{"value":180,"unit":"lbs"}`, `{"value":70.25,"unit":"in"}`, `{"value":24.9,"unit":"kg/m²"}`,
		`{"value":97}`, `{"value":5.8,"unit":"mmol/L","method":"cgm"}`,
		`{"systolic":null,"diastolic":80}`, `{"value":1e999999999}`, `{"value":60,"value":61}`, `[]`, ``, `{"value":-0.0e-0}`, `{"":{}}`, `{"value":60`,
	} {
		f.Add(byte(i), "BP-OMRON-7250", int64(1770373800), values)
		f.Add(byte(len(Types())-1), "", int64(1770373800), values) // a glucose, of an unknown device
	}

	f.Fuzz(func(t *testing.T, typ byte, device string, at int64, values string) {
		types := Types()
		r := Reading{
			ID:          readingID,
			Type:        types[int(typ)%len(types)],
			EffectiveAt: time.Unix(at, 0),
			Device:      device,
			Values:      json.RawMessage(values),
		}

		if err := r.Validate(updated); err != nil {
			if !isFieldErrors(err) || err.Error() == "" {
				t.Errorf("Validate: %#v", err)
			}
			return
		}

		o, err := Observation(r, jane, 1, updated)
		if err != nil {
			t.Fatalf("valid, but: %v", err)
		}

		judge(t, o)
		sent, err := ForDelivery(o, ecwPatientID)
		if err != nil {
			t.Fatalf("valid, but not for delivery: %v", err)
		}

		judge(t, sent)
		if (o.Device == nil) != (device == "") {
			t.Errorf("the device %q became %v", device, o.Device)
		}
		if !SameValues(r.Type, r.Values, r.Values) {
			t.Errorf("%s %s is not the same as itself", r.Type, values)
		}
		if o.ValueQuantity != nil {
			var in struct{ Value json.Number }
			if err := json.Unmarshal(r.Values, &in); err != nil {
				t.Fatal(err)
			}
			if want, got := in.Value.String(), string(*sent.ValueQuantity.Value); got != want && !strings.ContainsAny(want, "eE") {
				t.Errorf("sent %s for %s", got, want)
			}
		}
	})
}
