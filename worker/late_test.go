package worker_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

// beforePost does something once when a worker has been given a Post, before it begins.
type beforePost struct {
	once sync.Once
	do   func()
}

func (b *beforePost) intercept(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	var given []*workflowservice.PollActivityTaskQueueResponse
	switch reply := reply.(type) {
	case *workflowservice.PollActivityTaskQueueResponse:
		given = append(given, reply)
	case *workflowservice.RespondWorkflowTaskCompletedResponse: // the server may hand out an activity at once
		given = reply.GetActivityTasks()
	}
	for _, task := range given {
		if task.GetActivityType().GetName() == "Post" {
			b.once.Do(b.do)
		}
	}
	return err
}

// startFirst starts a first delivery, whose create waits at the barrier, and ends its workflow by hand. The delivery goes on.
func (r *rig) startFirst(b *barrier) uuid.UUID {
	r.t.Helper()
	r.t.Cleanup(b.open)
	r.authenticate()
	r.manyPlaces()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	select {
	case <-b.reached:
	case <-time.After(patience):
		r.t.Fatal("the create does not reach the EHR")
	}
	if err := r.temporal.TerminateWorkflow(r.t.Context(), run.GetID(), run.GetRunID(), "a test"); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// startAgain starts the workflow as the sweep does.
func (r *rig) startAgain(id uuid.UUID) client.WorkflowRun {
	r.t.Helper()
	again := ref(id)
	again.Unasked, again.LookUp = true, true
	return must(r.temporal.ExecuteWorkflow(r.t.Context(), startOptions(id), workflows.Transmission, input(again)))(r.t)
}

// The EHR acknowledges a first delivery late, when another workflow has begun the next one: that then finds the first one
// finished, and nothing in the EHR, whose searches show it later. What the database knows keeps it from being sent again.
func TestAFirstDeliveryThatIsAcknowledgedLateIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	b, late := newBarrier(), &beforePost{}
	r := newRig(t, setup{ignoreIfNoneExist: true, intercept: late.intercept, watch: afterwards{b}.wrap})
	r.breakEHR(fault{Kind: "late_index", Delay: "1h", For: "1h"})
	id := r.startFirst(b)
	late.do = func() {
		b.open()
		eventually(t, "the first delivery to be recorded", func() bool { return r.transmission(id).Status == db.StatusTransmitted })
	}
	run := r.startAgain(id)
	r.mustDeliver(run)
	r.wantOnce(id)
	if row := r.transmission(id); row.Status != db.StatusTransmitted || len(r.attempts(row.ID)) > 2 {
		t.Errorf("recorded as %+v", row)
	}
}

// PostgreSQL's clock is minutes behind Temporal's. The wait after a send whose outcome is unknown is as long as ever.
func TestTheFirstWaitIsKeptWhateverTheClocksShow(t *testing.T) {
	t.Parallel()
	b, delays := newBarrier(), documentedDelays()
	delays[0] = 2 * time.Minute
	r := newRig(t, setup{ignoreIfNoneExist: true, watch: b.wrap, delays: delays})
	r.setClock("-4 minutes") // with five, nothing can be written into the audit trail any more
	id := r.startFirst(b)
	run := r.startAgain(id)
	eventually(t, "the next delivery to end", func() bool { return r.transmission(id).Status != db.StatusProcessing })
	if row := r.transmission(id); row.NextRetryAt == nil || time.Until(*row.NextRetryAt) < delays[0] {
		t.Errorf("recorded as %+v, want it to wait for the schedule's first wait", row)
	}
	b.open()
	eventually(t, "the EHR to store what was on its way", func() bool { _, stored := r.creates(id); return stored == 1 })
	r.transmitNow(id)
	r.mustDeliver(run)
	r.wantOnce(id)
}

// setClock moves the clock of the rig's database, for every session to come: now() is another function then.
func (r *rig) setClock(by string) {
	r.t.Helper()
	r.exec("CREATE SCHEMA clock")
	r.exec("GRANT USAGE ON SCHEMA clock TO PUBLIC") // else its functions are passed over
	for _, name := range []string{"now", "clock_timestamp"} {
		r.exec("CREATE FUNCTION clock." + name + "() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog." + name + "() + interval '" + by + "' $$")
	}
	r.exec("SET search_path = clock, public, pg_catalog")
	for _, column := range []string{"transmissions.created_at", "transmissions.updated_at", "observations.created_at"} {
		table, name, _ := strings.Cut(column, ".")
		r.exec("ALTER TABLE " + table + " ALTER " + name + " SET DEFAULT now()")
	}
	var view string
	if err := r.sql.QueryRow(r.t.Context(), "SELECT pg_get_viewdef('ecw_queue'::regclass)").Scan(&view); err != nil {
		r.t.Fatal(err)
	}
	r.exec("CREATE OR REPLACE VIEW public.ecw_queue AS " + strings.ReplaceAll(view, "pg_catalog.", ""))
	r.exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = clock, public, pg_catalog', current_database()); END $$")
	r.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	time.Sleep(200 * time.Millisecond) // a connection that has rested for a while is tried before it is used
}

// eCW shows somebody else under the patient's id while the first delivery waits for its pass.
func TestNothingIsSentAtOnceOncePatientIsSomebodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	r.authenticate()
	r.manyPlaces()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.exec("BEGIN")
	r.exec("LOCK TABLE ecw_places IN ACCESS EXCLUSIVE MODE")
	r.start(id)
	r.awaitLockWaits(1)
	r.setMismatch("now()")
	r.exec("COMMIT")
	r.awaitHeld(id)
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("it was sent %d times", received)
	}
}

// awaitLockWaits waits until so many sessions wait for a lock in the rig's database.
func (r *rig) awaitLockWaits(sessions int) {
	r.t.Helper()
	eventually(r.t, "sessions to wait for a lock", func() bool {
		var waiting int
		err := r.sql.QueryRow(r.t.Context(), `SELECT count(*) FROM pg_locks
			WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&waiting)
		return err == nil && waiting >= sessions
	})
}

// The worker dies in the middle of a first delivery, and the database is restored to a moment before it, as when a replica that
// lags takes over. Nothing but Temporal knows then that a worker had begun.
func TestAFirstDeliveryThatTheDatabaseHasForgottenIsLookedUp(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string]int32{"at once": 1, "after the worker was heard of once more": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, loses := newBarrier(), &lossy{}
			r := newRig(t, setup{ignoreIfNoneExist: true, intercept: loses.intercept, watch: afterwards{b}.wrap})
			t.Cleanup(b.open)
			r.authenticate()
			r.manyPlaces()
			r.breakEHR(fault{Kind: "late_index", Delay: "1h", For: "1h"})
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			restore := r.backUp()
			loses.next.Store(answers)
			r.start(id)
			<-b.reached
			restore()

			if row := r.awaitRetry(id); time.Until(*row.NextRetryAt) < documentedDelays()[0]-patience {
				t.Errorf("recorded as %+v, want it to wait for the schedule's first wait", row)
			}
			r.wantOnce(id)
		})
	}
}
