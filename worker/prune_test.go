package worker_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/worker"
)

// year keeps everything for a year.
var year = activities.Keep{
	IdempotencyKeys: 365 * 24 * time.Hour,
	Imports:         365 * 24 * time.Hour,
	Attempts:        365 * 24 * time.Hour,
	Readings:        365 * 24 * time.Hour,
}

// growOld makes everything in the database two years older.
func (r *rig) growOld() {
	r.t.Helper()
	const by = " - interval '2 years'"
	for _, statement := range []string{
		"UPDATE observations SET created_at = created_at" + by,
		"UPDATE transmissions SET created_at = created_at" + by + ", updated_at = updated_at" + by,
		"UPDATE transmission_attempts SET started_at = started_at" + by + ", sent_at = sent_at" + by + ", finished_at = finished_at" + by,
		"UPDATE idempotency_keys SET created_at = created_at" + by,
		"UPDATE patient_imports SET created_at = created_at" + by + ", finished_at = finished_at" + by,
	} {
		r.exec(statement)
	}
}

// prune lets the schedule act now, and returns what was deleted of each table.
func (r *rig) prune() (deleted map[string]int, run client.WorkflowRun) {
	r.t.Helper()
	r.ensureSchedules()
	run = r.trigger("prune/" + practice)
	var tables []activities.PrunedTable
	if err := run.Get(r.t.Context(), &tables); err != nil {
		r.t.Fatal(err)
	}
	deleted = map[string]int{}
	for _, table := range tables {
		deleted[table.Table] = table.Deleted
	}
	return deleted, run
}

func (r *rig) rows(table string) (n int) {
	r.t.Helper()
	if err := r.sql.QueryRow(r.t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// remember stores an idempotency key for a reading, as the API does.
func (r *rig) remember(id uuid.UUID) {
	r.t.Helper()
	key := db.RememberRequestParams{PracticeCode: practice, Request: db.Request{Key: id.String()}, ObservationID: id}
	must(r.store.RememberRequest(r.t.Context(), key))(r.t)
}

// What is old goes and what is young stays, and so does what is not finished, whatever its age. People see
// what was done.
func TestThePruneDeletesWhatIsOld(t *testing.T) {
	t.Parallel()
	book := &logBook{}
	r := newRig(t, setup{keep: year, log: slog.NewJSONHandler(book, nil)})
	ready := func() (delivered, waiting uuid.UUID) {
		delivered = r.storeReading(fhir.BloodPressure, bloodPressure)
		r.remember(delivered)
		r.mustDeliver(r.start(delivered))
		r.breakEHR(fault{Kind: "reset_after", Target: "create"})
		waiting = r.storeReading(fhir.BloodPressure, bloodPressure)
		r.start(waiting)
		r.awaitRetry(waiting)
		importID, run := r.startImport(2)
		r.mustImport(importID, run, 2)
		return delivered, waiting
	}
	oldDelivered, oldWaiting := ready()
	r.growOld()
	delivered, waiting := ready()
	never := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.exec("UPDATE observations SET created_at = created_at - interval '2 years' WHERE id = '" + never.String() + "'")

	must(r.store.CreateUser(t.Context(), db.CreateUserParams{PracticeCode: practice, Email: "n@example.com", Role: "nurse"}))(t)
	r.exec(`INSERT INTO sessions (id, user_id, expires_at)
		SELECT gen_random_uuid(), id, now() - days * interval '1 day' FROM users, unnest(ARRAY[29, 31]) days`)
	r.exec(`INSERT INTO refresh_tokens (token_hash, session_id, expires_at) SELECT id::text::bytea, id, expires_at FROM sessions`)
	r.exec(`INSERT INTO sign_in_failures (practice_code, email_key, failures, last_failed_at)
		SELECT '` + practice + `', hours::text::bytea, 1, now() - hours * interval '1 hour' FROM unnest(ARRAY[23, 25]) hours`)

	deleted, run := r.prune()
	for table, want := range map[string]int{
		"sessions":              1,
		"sign_in_failures":      1,
		"idempotency_keys":      1,
		"patient_import_items":  2,
		"patient_imports":       1,
		"transmission_attempts": 1,
		"observations":          1,
	} {
		if deleted[table] != want {
			t.Errorf("%d rows of %s are deleted, want %d", deleted[table], table, want)
		}
	}
	for table, want := range map[string]int{
		"sessions":              1,
		"refresh_tokens":        1,
		"sign_in_failures":      1,
		"idempotency_keys":      1,
		"patient_import_items":  2,
		"patient_imports":       1,
		"transmission_attempts": 3,
		"transmissions":         3,
		"observations":          4,
	} {
		if got := r.rows(table); got != want {
			t.Errorf("%d rows of %s are left, want %d", got, table, want)
		}
	}
	gone := db.GetObservationParams{PracticeCode: practice, ID: oldDelivered}
	if _, err := r.store.GetObservation(t.Context(), gone); !db.IsNotFound(err) {
		t.Errorf("the old reading that eCW has is still there: %v", err)
	}
	r.checkDelivered(delivered, r.transmission(delivered), 1)
	for _, id := range []uuid.UUID{oldWaiting, waiting} {
		if made := r.attempts(r.transmission(id).ID); len(made) != 1 {
			t.Errorf("a reading that waits has the attempts %+v, want the one that may have arrived", made)
		}
	}

	details := r.details(run)
	for _, part := range []string{"Has deleted old data", "`observations` before ", "**1** deleted", "the oldest that is kept is of "} {
		if !strings.Contains(details, part) {
			t.Errorf("the details lack %q:\n%s", part, details)
		}
	}
	_, info := book.lines(t)
	line := linesWith(info, "old data pruned")
	var logged struct {
		Practice     string
		Observations int
		Imports      int `json:"patient_imports"`
	}
	err := json.Unmarshal([]byte(line), &logged)
	if err != nil || logged.Practice != practice || logged.Observations != 1 || logged.Imports != 1 {
		t.Errorf("the log says %s, %v", line, err)
	}

	again, _ := r.prune()
	for table, n := range again {
		if n != 0 {
			t.Errorf("a second prune deletes %d rows of %s", n, table)
		}
	}
	for _, id := range []uuid.UUID{oldWaiting, waiting} {
		r.exec("UPDATE transmission_attempts SET finished_at = greatest(started_at, finished_at - interval '10 minutes')")
		r.transmitNow(id)
		r.awaitDelivered(id)
		r.wantOnce(id)
	}
}

// The schedule can be paused, and stays paused when workers start.
func TestThePruneIsPaused(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{keep: year})
	r.ensureSchedules()
	handle, _ := r.schedule("prune/" + practice)
	if err := handle.Pause(t.Context(), client.SchedulePauseOptions{Note: "an audit"}); err != nil {
		t.Fatal(err)
	}
	r.ensureSchedules()
	if _, now := r.schedule("prune/" + practice); !now.Schedule.State.Paused {
		t.Error("the pause is gone")
	}
	if deleted, _ := r.prune(); len(deleted) != 7 { // by hand it runs nevertheless
		t.Errorf("it prunes %v", deleted)
	}
	if err := handle.Unpause(t.Context(), client.ScheduleUnpauseOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, now := r.schedule("prune/" + practice); now.Schedule.State.Paused || len(now.Info.NextActionTimes) == 0 {
		t.Errorf("it will not run again: %+v", now.Schedule.State)
	}
}

// Where everything is kept for ever only sessions and failed sign-ins are deleted, which have no setting.
func TestThePruneOfNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(id))
	r.growOld()
	if deleted, _ := r.prune(); len(deleted) != 2 || r.rows("transmission_attempts") != 1 {
		t.Errorf("it deletes %v", deleted)
	}
}

// The EHR of this test stores again what is sent again. The reading was delivered and its attempts are
// pruned, or it failed for good after a delivery that had arrived. Whatever starts it again, it is not sent
// again.
func TestAPrunedAttemptIsNotMissed(t *testing.T) {
	t.Parallel()
	keep := activities.Keep{Attempts: year.Attempts}
	r := newRig(t, setup{ignoreIfNoneExist: true, keep: keep})
	delivered := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(delivered))
	r.breakEHR(fault{Kind: "refuse_identifier", For: "1h"}) // eCW searches by patient only
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	failed := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(failed)
	r.awaitRetry(failed)
	r.cancel(failed)
	r.mustFail(run, "cancelled")
	other := sandbox.People()[1].FHIRID
	r.relink(&other)
	r.growOld()

	if deleted, _ := r.prune(); deleted["transmission_attempts"] != 1 {
		t.Errorf("the prune deletes %v, want the one attempt of the delivered reading", deleted)
	}
	if left := r.attempts(r.transmission(delivered).ID); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
	for name, again := range map[string]func(uuid.UUID){
		"a start":  func(id uuid.UUID) { r.start(id) },
		"a person": func(id uuid.UUID) { r.transmitNow(id) },
		"a batch":  r.startFresh,
		"a call from the queue": func(id uuid.UUID) {
			if err := worker.Call(r.temporal)(t.Context(), practice, id, gate.Call{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		again(delivered)
		if _, err := r.outcome(r.current(delivered)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.mustDeliver(r.transmitNow(failed))
	for _, id := range []uuid.UUID{delivered, failed} {
		r.wantOnce(id)
	}
}

// call makes a reading one that was held in the queue before its first delivery, and is called now.
func (r *rig) call(id uuid.UUID, resource json.RawMessage) {
	r.t.Helper()
	at := time.Now()
	err := r.store.SaveResource(r.t.Context(), db.SaveResourceParams{
		PracticeCode:    practice,
		ID:              id,
		Resource:        resource,
		ResourceVersion: 1,
		TransformedAt:   &at,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.exec(`INSERT INTO transmissions (id, practice_code, observation_id, max_attempts, held_at) VALUES ($1, $2, $1, 6, now())`, id, practice)
	r.exec(`INSERT INTO ecw_places (id, practice_code, kind, expires_at) VALUES ($1, $2, 'delivery', now() + interval '1 minute')`, id, practice)
}

// A reading was pruned and comes again, long after Temporal has forgotten its workflow. The EHR stores again
// what is sent again, and searches by patient only; meanwhile the patient was linked to another chart. It is
// found in the former one.
func TestAPrunedReadingThatComesAgainIsNotSentAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{ignoreIfNoneExist: true, keep: year})
	ids := []uuid.UUID{r.storeReading(fhir.BloodPressure, bloodPressure), r.storeReading(fhir.BloodPressure, bloodPressure)}
	stored := map[uuid.UUID]db.Observation{}
	for _, id := range ids {
		r.mustDeliver(r.start(id))
		stored[id] = must(r.store.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: practice, ID: id}))(t)
	}
	former := *r.patient.ExternalID
	r.growOld()
	if deleted, _ := r.prune(); deleted["observations"] != 2 || r.rows("observations") != 0 {
		t.Fatalf("the prune deletes %v", deleted)
	}
	r.breakEHR(fault{Kind: "refuse_identifier", For: "1h"})
	other := sandbox.People()[1].FHIRID
	r.relink(&other)

	for i, id := range ids { // the second is the newest that was pruned, and is called from the queue
		again := must(r.store.CreateObservation(t.Context(), db.CreateObservationParams{
			ID:              id,
			PracticeCode:    practice,
			PatientID:       r.patient.ID,
			ObservationType: stored[id].ObservationType,
			EffectiveAt:     stored[id].EffectiveAt,
			Device:          stored[id].Device,
			Measured:        stored[id].Measured,
		}))(t)
		if i == 1 {
			r.call(id, stored[id].Resource)
		}
		r.mustDeliver(r.start(again.ID))
		r.wantOnce(id)
		if got := r.chartOf(id); got != former {
			t.Errorf("it is recorded in the chart %q, want it found in %s", got, former)
		}
	}

	fresh := r.storeReading(fhir.BloodPressure, bloodPressure) // is younger than what was pruned
	r.mustDeliver(r.start(fresh))
	if got := r.chartOf(fresh); got != other {
		t.Errorf("a new reading is in the chart %q, want %s", got, other)
	}
}
