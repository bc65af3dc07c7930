package main

import (
	"context"
	"time"
)

// system is a contender: something that carries readings from an intake into the EHR.
type system interface {
	// Start brings it up, on the data of its last round where there was one.
	Start(ctx context.Context) error
	// Send gives a reading to its intake, as a device does, and returns the id by which the EHR knows the reading.
	Send(ctx context.Context, r reading) (id string, err error)
	// Stop ends everything of it but PostgreSQL, whose figures are complete only when the sessions have ended.
	Stop() error
}

// reading is a blood pressure as intakes take it.
type reading struct {
	PatientID   string         `json:"patient_id"`
	Type        string         `json:"observation_type"`
	EffectiveAt time.Time      `json:"effective_at"`
	Device      string         `json:"device"`
	Values      map[string]any `json:"values"`
}

// nthReading makes the nth reading of a run; each has a moment of its own, so that none is taken for a repetition.
func nthReading(n int, patients []string) reading {
	return reading{
		PatientID:   patients[n%len(patients)],
		Type:        "blood_pressure",
		EffectiveAt: time.Date(2025, 1, 1, 0, 0, n, 0, time.UTC),
		Device:      "BP-OMRON-7250",
		Values:      map[string]any{"systolic": 110 + n%40, "diastolic": 70 + n%20, "heart_rate": 60 + n%30},
	}
}

// contender is a system that may be measured.
type contender struct {
	name    string
	title   string
	missing func(*run) string // what to install before it can be measured, "" if nothing
	build   func(*stack) system
}

// contenders are all of them, in the order of the tables.
func contenders() []contender {
	return []contender{
		{"floor", "floor: a bare loop", nothingMissing, newFloor},
		{"ours", "ours, Temporal on PostgreSQL", temporalMissing, newOurs},
		{"naive", "naive workflow, Temporal on PostgreSQL", temporalMissing, newNaive},
		{"river", "River", nothingMissing, newRiver},
		{"celery", "Celery, Redis, PostgreSQL, on events", celeryMissing, newCelery},
		{"ours-dev", "ours, embedded Temporal on SQLite", temporalDevMissing, newOursDev},
		{"naive-dev", "naive workflow, embedded Temporal on SQLite", temporalDevMissing, newNaiveDev},
	}
}

func nothingMissing(*run) string { return "" }
