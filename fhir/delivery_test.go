package fhir

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fastenhealth/gofhir-models/fhir401"
)

// The result has the four differences of ForDelivery, and no other.
func TestForDelivery(t *testing.T) {
	view := observe(t, reading(BloodPressure, `{"systolic":142,"diastolic":92,"heart_rate":78}`))
	before := judge(t, view)
	sent, err := ForDelivery(view, ecwPatientID)
	if err != nil {
		t.Fatal(err)
	}

	got := tree(t, judge(t, sent)).(map[string]any)

	want := tree(t, before).(map[string]any)
	delete(want, "id")
	meta := want["meta"].(map[string]any)
	delete(meta, "versionId")
	delete(meta, "lastUpdated")

	meta["tag"] = tree(t, []byte(`[
		{"system": "https://vantrexia.com/fhir/CodeSystem/source", "code": "vantrexia-rpm", "display": "Vantrexia RPM"},
		{"system": "http://hl7.org/fhir/us/core/CodeSystem/us-core-tags", "code": "patient-supplied"}]`))
	want["subject"] = tree(t, []byte(`{"reference": "Patient/ecw-patient-fhir-id-001"}`))
	want["identifier"] = tree(t, []byte(`[{
		"system": "https://vantrexia.com/fhir/sid/observation",
		"value": "d4e5f6a7-b8c9-0123-defa-234567890123"
	}]`))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// The input and the result share no memory: a change of one must not change the other.
func TestForDeliveryCopies(t *testing.T) {
	view := observe(t, reading(BloodPressure, `{"systolic":142,"diastolic":92}`))
	before := judge(t, view)
	sent, err := ForDelivery(view, ecwPatientID)
	if err != nil {
		t.Fatal(err)
	}

	*sent.Component[0].ValueQuantity.Value = "1"
	*sent.Device.Display = "changed"
	sent.Meta.Profile[0] = "changed"
	*sent.Identifier[0].Value = "changed"
	sent.Code.Coding[0] = fhir401.Coding{}

	if after := judge(t, view); string(after) != string(before) {
		t.Errorf("got  %s\nwant %s", after, before)
	}
}

func TestForDeliveryRefuses(t *testing.T) {
	good := func() *fhir401.Observation { return observe(t, reading(HeartRate, `{"value":60}`)) }
	for _, id := range []string{"", "Patient/abc", "a b", strings.Repeat("x", 65)} {
		if _, err := ForDelivery(good(), id); err == nil {
			t.Errorf("accepted the patient id %q", id)
		}
	}

	noID, noValue, noMeta := good(), good(), good()
	noID.Id, noValue.ValueQuantity, noMeta.Meta = nil, nil, nil
	for name, o := range map[string]*fhir401.Observation{"no id": noID, "no value": noValue, "no meta": noMeta} {
		if _, err := ForDelivery(o, ecwPatientID); err == nil {
			t.Errorf("accepted an Observation with %s", name)
		}
	}
}

func TestCheckNamesTheRule(t *testing.T) {
	unknown := concept(absentSystem, coding{"unknown", "Unknown"})
	pulse := fhir401.ObservationComponent{Code: concept(loincSystem, coding{"8867-4", ""}), DataAbsentReason: &unknown}
	tests := []struct {
		want   string
		typ    Type
		change func(*fhir401.Observation)
	}{
		{"id:", Weight, func(o *fhir401.Observation) { *o.Id = "a b" }},
		{"status:", Weight, func(o *fhir401.Observation) { o.Status = fhir401.ObservationStatusRegistered }},
		{"subject:", Weight, func(o *fhir401.Observation) { o.Subject = nil }},
		{"subject:", Weight, func(o *fhir401.Observation) { *o.Subject.Reference = "Patient/" }},
		{"subject:", Weight, func(o *fhir401.Observation) { *o.Subject.Reference = "Group/1" }},
		{"effectiveDateTime:", Weight, func(o *fhir401.Observation) { o.EffectiveDateTime = nil }},
		{"effectiveDateTime:", Weight, func(o *fhir401.Observation) { *o.EffectiveDateTime = "2026-02-06" }},
		{"meta.profile", Weight, func(o *fhir401.Observation) { o.Meta = nil }},
		{"meta.profile", Weight, func(o *fhir401.Observation) { o.Meta.Profile[0] = usCore + "us-core-mood" }},
		{"meta.profile", OxygenSaturation, func(o *fhir401.Observation) { o.Code.Coding = o.Code.Coding[:1] }},
		{"category: exactly one vital-signs", Weight, func(o *fhir401.Observation) { o.Category = nil }},
		{"category: exactly one vital-signs", Weight, func(o *fhir401.Observation) { o.Category = slices.Repeat(o.Category, 2) }},
		{"category: exactly one laboratory", BloodGlucose, func(o *fhir401.Observation) { *o.Category[0].Coding[0].Code = "vital-signs" }},
		{"vs-2", Weight, func(o *fhir401.Observation) { o.ValueQuantity = nil }},
		{"obs-6", Weight, func(o *fhir401.Observation) { o.DataAbsentReason = &unknown }},
		{"obs-7", HeartRate, func(o *fhir401.Observation) { o.Component = append(o.Component, pulse) }},
		{"without value, unit", Weight, func(o *fhir401.Observation) { o.ValueQuantity.Value = nil }},
		{"without value, unit", Weight, func(o *fhir401.Observation) { o.ValueQuantity.Unit = nil }},
		{"not UCUM", Weight, func(o *fhir401.Observation) { o.ValueQuantity.System = nil }},
		{"not a UCUM code", Weight, func(o *fhir401.Observation) { *o.ValueQuantity.Code = "lbs" }},
		{"not a UCUM code", HeartRate, func(o *fhir401.Observation) { *o.ValueQuantity.Code = "kg" }},
		{"component systolic: 0 times", BloodPressure, func(o *fhir401.Observation) { o.Component = o.Component[1:] }},
		{"component diastolic: 2 times", BloodPressure, func(o *fhir401.Observation) { o.Component = append(o.Component, o.Component[1]) }},
		{"component heart_rate: 2 times", BloodPressure, func(o *fhir401.Observation) { o.Component = append(o.Component, pulse, pulse) }},
		{"component diastolic: neither", BloodPressure, func(o *fhir401.Observation) { o.Component[1].ValueQuantity = nil }},
		{"obs-6", BloodPressure, func(o *fhir401.Observation) { o.Component[1].DataAbsentReason = &unknown }},
		{"not in the catalogue", BloodPressure, func(o *fhir401.Observation) {
			o.Component = append(o.Component, fhir401.ObservationComponent{DataAbsentReason: &unknown})
		}},
		{"note:", Weight, func(o *fhir401.Observation) { o.Note = meals[0].notes() }},
		{"note:", BloodGlucose, func(o *fhir401.Observation) { o.Note = []fhir401.Annotation{{Text: "Jane was in a hurry."}} }},
		{"note:", BloodGlucose, func(o *fhir401.Observation) { o.Note = slices.Concat(meals[0].notes(), meals[1].notes()) }},
		{"none beside components", BloodPressure, func(o *fhir401.Observation) { o.ValueQuantity = o.Component[0].ValueQuantity }},
	}

	values := map[Type]string{
		Weight:           `{"value":81.6,"unit":"kg"}`,
		HeartRate:        `{"value":60}`,
		OxygenSaturation: `{"value":97}`,
		BloodGlucose:     `{"value":105,"unit":"mg/dL"}`,
		BloodPressure:    `{"systolic":142,"diastolic":92}`,
	}

	for _, test := range tests {
		o := observe(t, reading(test.typ, values[test.typ]))
		test.change(o)
		if err := Check(o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.typ, err, test.want)
		}
	}

	if err := Check(&fhir401.Observation{}); err == nil {
		t.Error("accepted an empty Observation")
	}

	var stored fhir401.Observation
	err := json.Unmarshal([]byte(`{"meta":{"profile":["x"]},"code":{"coding":[{}]},"component":[{}]}`), &stored)
	if err != nil || Check(&stored) == nil {
		t.Errorf("accepted an Observation of nothing (%v)", err)
	}
}
