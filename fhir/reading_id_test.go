package fhir_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/fhir"
)

// TestReadingIDSaysWhatTheReadingIs: each part of the identity changes the id, and the same reading has the
// same id. One id is written out, because charts contain these ids and they must never change.
func TestReadingIDSaysWhatTheReadingIs(t *testing.T) {
	t.Parallel()
	patient := uuid.MustParse("d290f1ee-6c54-4b01-90e6-d701748f0851")
	reading := fhir.Reading{Type: fhir.BloodPressure, EffectiveAt: time.Date(2026, 2, 6, 10, 30, 0, 0, time.UTC), Device: "BP-OMRON-7250"}
	id := fhir.ReadingID("FFHEDD", patient, reading)
	if id.Version() != 8 || id.Variant() != uuid.RFC4122 {
		t.Errorf("%s has version %d and variant %s, want 8 and RFC 4122's", id, id.Version(), id.Variant())
	}

	if want := "7d3a94a9-8d67-81e9-a577-feb12bfd938a"; id.String() != want {
		t.Errorf("the id is %s, want %s as ever", id, want)
	}

	same := reading
	same.EffectiveAt = same.EffectiveAt.In(time.FixedZone("", -5*3600)).Add(300 * time.Nanosecond)
	same.Values = []byte(`{"systolic": 1}`)
	if again := fhir.ReadingID("FFHEDD", patient, same); again != id {
		t.Errorf("the same time in another zone, and other values, give %s, want %s", again, id)
	}

	named := func(device string) uuid.UUID {
		return fhir.ReadingID("FFHEDD", patient, change(reading, func(r *fhir.Reading) { r.Device = device }))
	}
	if named(" BP-OMRON-7250\t") != id || named("Gr\u00fcn") != named("Gru\u0308n") {
		t.Error("space around the device's name, or the coding of its accents, makes another reading")
	}

	ids := map[uuid.UUID]string{id: "the first"}
	for name, other := range map[string]uuid.UUID{
		"another practice": fhir.ReadingID("FFHED", patient, reading),
		"another patient":  fhir.ReadingID("FFHEDD", uuid.New(), reading),
		"another type":     fhir.ReadingID("FFHEDD", patient, change(reading, func(r *fhir.Reading) { r.Type = fhir.HeartRate })),
		"another time":     fhir.ReadingID("FFHEDD", patient, change(reading, func(r *fhir.Reading) { r.EffectiveAt = r.EffectiveAt.Add(time.Microsecond) })),
		"no device":        fhir.ReadingID("FFHEDD", patient, change(reading, func(r *fhir.Reading) { r.Device = "" })),
		"another device":   fhir.ReadingID("FFHEDD", patient, change(reading, func(r *fhir.Reading) { r.Device = "BP-OMRON-725" })),
	} {
		if twin, taken := ids[other]; taken {
			t.Errorf("%s has the id of %s", name, twin)
		}
		ids[other] = name
	}
}

func change(r fhir.Reading, how func(*fhir.Reading)) fhir.Reading {
	how(&r)
	return r
}
