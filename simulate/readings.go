// Package simulate plays the devices of the sample patients: it sends their real visits through the API as a
// gateway would, and waits until eCW has acknowledged them. It knows the API only, nothing behind it.
package simulate

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// device is the name under which the readings arrive.
const device = "Vantrexia simulator"

// reading is the body of POST /api/v1/observations/.
type reading struct {
	PatientID       string    `json:"patient_id"`
	ObservationType string    `json:"observation_type"`
	EffectiveAt     time.Time `json:"effective_at"`
	Device          string    `json:"device"`
	Values          values    `json:"values"`

	sampleID string
}

// values keeps every decimal as the file has it.
type values struct {
	Systolic  json.Number `json:"systolic,omitempty"`
	Diastolic json.Number `json:"diastolic,omitempty"`
	Value     json.Number `json:"value,omitempty"`
	Unit      string      `json:"unit,omitempty"`
}

// readings lists what was measured in the visits, oldest first. Some visits have several measurements of one
// kind in the same minute. Each of these is moved a minute later than the one before, because the API refuses
// another reading of the same device and time.
func readings(visits []sandbox.Visit) []reading {
	type moment struct {
		sampleID, observationType string
		at                        time.Time
	}

	taken := map[moment]bool{}
	var all []reading
	for _, visit := range visits {
		for _, r := range measured(visit) {
			for taken[moment{r.sampleID, r.ObservationType, r.EffectiveAt}] {
				r.EffectiveAt = r.EffectiveAt.Add(time.Minute)
			}
			taken[moment{r.sampleID, r.ObservationType, r.EffectiveAt}] = true
			all = append(all, r)
		}
	}

	slices.SortStableFunc(all, func(a, b reading) int { return cmp.Compare(a.EffectiveAt.Unix(), b.EffectiveAt.Unix()) })
	return all
}

// measured lists the readings of one visit; what was not measured is left out.
func measured(v sandbox.Visit) []reading {
	var all []reading
	add := func(observationType string, vals values) {
		all = append(all, reading{
			ObservationType: observationType,
			EffectiveAt:     v.Time,
			Device:          device,
			Values:          vals,
			sampleID:        v.SampleID,
		})
	}
	if v.Systolic != "" || v.Diastolic != "" {
		add("blood_pressure", values{Systolic: json.Number(v.Systolic), Diastolic: json.Number(v.Diastolic)})
	}

	for _, m := range []struct{ observationType, value, unit string }{
		{"heart_rate", v.HeartRate, "/min"},
		{"respiratory_rate", v.RespiratoryRate, "/min"},
		{"temperature", v.Temperature, "Cel"},
		{"weight", v.Weight, "kg"},
		{"height", v.Height, "cm"},
		{"bmi", v.BMI, "kg/m2"},
		{"oxygen_saturation", v.OxygenSaturation, "%"},
	} {
		if m.value != "" {
			add(m.observationType, values{Value: json.Number(m.value), Unit: m.unit})
		}
	}

	return all
}
