package worker_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
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
		t.Errorf("what a person has to mend is recorded as %+v, want it left alone", row)
	}
}

// forgetOutcome takes back what was recorded after the EHR had stored the reading.
func (r *rig) forgetOutcome(id uuid.UUID) {
	r.t.Helper()
	must(r.sql.Exec(r.t.Context(), "UPDATE transmissions SET status = 'processing', ecw_observation_id = NULL, http_status = NULL WHERE observation_id = $1", id))(r.t)
}

// TestAnOlderDatabaseIsRestored follows the runbook: the workflows, which know more than the database, are terminated, and
// the sweep starts those that the database knows. What it has forgotten is found in the EHR instead of sent twice.
func TestAnOlderDatabaseIsRestored(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	failed := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.breakEHR(fault{Kind: "error_503", Target: "create"})
	r.start(failed)
	r.awaitRetry(failed)
	waiting := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.breakEHR(fault{Kind: "error_503", Target: "create"})
	r.start(waiting)
	r.awaitRetry(waiting)
	stored := r.storeReading(fhir.BloodPressure, bloodPressure)
	restore := r.backUp()

	r.mustDeliver(r.transmitNow(failed))
	r.mustDeliver(r.start(stored))
	late := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.breakEHR(fault{Kind: "error_503", Target: "create"})
	r.start(late)
	r.awaitRetry(late)

	r.worker.Stop()
	restore()
	const running = `WorkflowType = "Transmission" AND ExecutionStatus = "Running"`
	var ids []string
	eventually(t, "both waiting workflows to be found", func() bool { ids = r.found(running); return len(ids) == 2 })
	for _, id := range ids {
		if err := r.temporal.TerminateWorkflow(t.Context(), id, "", "the database was restored"); err != nil {
			t.Fatal(err)
		}
	}
	r.worker = r.startWorker(r.temporal)
	r.age()
	r.sweep()
	for _, id := range []uuid.UUID{failed, waiting, stored} {
		r.awaitDelivered(id)
		if _, held := r.creates(id); held != 1 {
			t.Errorf("the EHR holds the reading %d times, want once", held)
		}
	}
	if all := r.transmissions(late); len(all) != 0 {
		t.Errorf("the database has %+v for a reading that it does not know", all)
	}
}

// backUp keeps the tables as they are, and returns what puts them back.
func (r *rig) backUp() (restore func()) {
	r.t.Helper()
	// In the order in which they refer to each other.
	tables := []string{"patients", "observations", "transmissions", "transmission_attempts", "ecw_gates"}
	run := func(statement string) {
		r.t.Helper()
		must(r.sql.Exec(r.t.Context(), statement))(r.t)
	}
	run("CREATE SCHEMA backup")
	for _, table := range tables {
		run("CREATE TABLE backup." + table + " AS TABLE " + table)
	}
	return func() {
		r.t.Helper()
		run("TRUNCATE patients, ecw_gates CASCADE")
		for _, table := range tables {
			run("INSERT INTO " + table + " SELECT * FROM backup." + table)
		}
	}
}
