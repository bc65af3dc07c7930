package worker_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

// loseTemporal leaves the rig with a Temporal that knows nothing, as when its databases could not be restored.
func (r *rig) loseTemporal() {
	r.t.Helper()
	r.worker.Stop()
	r.address, r.namespace = stack.Temporal(r.t)
	r.temporal = r.dial(nil)
	r.worker = r.startWorker(r.temporal)
	r.ensureSchedules()
}

// TestTemporalLosesEverything: what the database knows is enough to go on, and nothing is delivered twice or unasked.
func TestTemporalLosesEverything(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	delivered := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(delivered))
	refused := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.relink(nil)
	r.mustFail(r.start(refused), string(ecw.ClassPermanentData))
	r.relink(link())
	failed := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.breakEHR(fault{Kind: "error_503", Target: "create"})
	r.start(failed)
	r.awaitRetry(failed)
	unknown := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	r.start(unknown)
	r.awaitRetry(unknown)
	cut := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(cut))
	r.forgetOutcome(cut)
	stored := r.storeReading(fhir.BloodPressure, bloodPressure)

	r.loseTemporal()
	r.age()
	r.sweep()
	for _, id := range []uuid.UUID{failed, unknown, cut, stored} {
		r.awaitDelivered(id)
	}
	for _, id := range []uuid.UUID{delivered, failed, unknown, cut, stored} {
		if _, held := r.creates(id); held != 1 {
			t.Errorf("the EHR holds the reading %d times, want once", held)
		}
		if all := r.transmissions(id); len(all) != 1 {
			t.Errorf("%d transmissions of one reading, want 1", len(all))
		}
	}
	if row := r.transmission(refused); row.Status != db.StatusFailed || row.AttemptCount != 1 {
		t.Errorf("what a person has to fix is recorded as %+v, want it left alone", row)
	}
}

// forgetOutcome takes back what was recorded after the EHR had stored the reading.
func (r *rig) forgetOutcome(id uuid.UUID) {
	r.t.Helper()
	must(r.sql.Exec(r.t.Context(), "UPDATE transmissions SET status = 'processing', ecw_observation_id = NULL, http_status = NULL WHERE observation_id = $1", id))(r.t)
}

// TestAnOlderDatabaseIsRestored: the workflows know more than the database, and go on all the same. Numbers of transmissions are
// given out a second time, and none of them writes into the row of another. What the database has forgotten is found in the
// EHR, which ignores conditions, instead of sent twice; a reading that it has forgotten too is known when it is sent again.
func TestAnOlderDatabaseIsRestored(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{ignoreIfNoneExist: true})
	r.ensureSchedules()
	failed := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	r.start(failed)
	r.awaitRetry(failed)
	waiting := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	waitingRun := r.start(waiting)
	r.awaitRetry(waiting)
	stored := r.storeReading(fhir.BloodPressure, bloodPressure)
	restore := r.backUp()

	r.mustDeliver(r.transmitNow(failed))
	r.mustDeliver(r.start(stored))
	late, lost := r.storeReading(fhir.BloodPressure, bloodPressure), r.storeReading(fhir.BloodPressure, bloodPressure)
	kept := must(r.store.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: practice, ID: lost}))(t)
	r.mustDeliver(r.start(lost))
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	lateRun := r.start(late)
	forgotten := r.awaitRetry(late)

	restore()
	fresh := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(fresh))
	if got := r.transmission(fresh); got.ID == forgotten.ID {
		t.Errorf("the key of a transmission is given out again: %+v", got)
	}
	r.transmitNow(late) // its workflow meets a database that does not know it
	r.mustFail(lateRun, string(ecw.ClassPermanentData))
	if got := r.transmission(fresh); got.Status != db.StatusTransmitted || got.AttemptCount != 1 {
		t.Errorf("another transmission wrote into %+v", got)
	}

	r.age()
	r.sweep()
	r.transmitNow(waiting)
	r.mustDeliver(waitingRun)
	must(r.store.CreateObservation(t.Context(), db.CreateObservationParams{ // a gateway sends it again
		ID:              fhir.ReadingID(practice, r.patient.ID, fhir.Reading{Type: fhir.BloodPressure, EffectiveAt: kept.EffectiveAt, Device: kept.Device}),
		PracticeCode:    practice,
		PatientID:       r.patient.ID,
		ObservationType: kept.ObservationType,
		EffectiveAt:     kept.EffectiveAt,
		Device:          kept.Device,
		Measured:        kept.Measured,
	}))(t)
	r.startFresh(lost)
	for _, id := range []uuid.UUID{failed, waiting, stored, lost, fresh} {
		r.awaitDelivered(id)
		r.wantOnce(id)
	}
	if all := r.transmissions(late); len(all) != 0 {
		t.Errorf("the database has %+v for a reading that it does not know", all)
	}
}

// startFresh starts a reading that is new to the database, as the API does for a batch.
func (r *rig) startFresh(id uuid.UUID) {
	r.t.Helper()
	batch := workflows.Batch{PracticeCode: practice, ObservationIDs: []uuid.UUID{id}}
	options := workflows.BatchStart(practice, uuid.New()).Options()
	must(r.temporal.ExecuteWorkflow(r.t.Context(), options, workflows.StartTransmissions, batch))(r.t)
}

// backUp keeps the tables as they are, and returns what puts them back.
func (r *rig) backUp() (restore func()) {
	r.t.Helper()
	// In the order in which they refer to each other.
	tables := []string{"patients", "patient_charts", "observations", "transmissions", "transmission_attempts", "ecw_gates"}
	run := func(statement string) {
		r.t.Helper()
		must(r.sql.Exec(r.t.Context(), statement))(r.t)
	}
	run("CREATE SCHEMA backup")
	var number int64
	if err := r.sql.QueryRow(r.t.Context(), "SELECT last_value FROM transmission_numbers").Scan(&number); err != nil {
		r.t.Fatal(err)
	}
	for _, table := range tables {
		run("CREATE TABLE backup." + table + " AS TABLE " + table)
	}
	return func() {
		r.t.Helper()
		run("TRUNCATE patients, ecw_gates, ecw_places CASCADE")
		run(fmt.Sprintf("SELECT setval('transmission_numbers', %d)", number))
		for _, table := range tables {
			run("INSERT INTO " + table + " SELECT * FROM backup." + table)
		}
	}
}
