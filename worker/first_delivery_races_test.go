package worker_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
)

// A worker is lost after the EHR has stored the reading, and the database is restored to before the delivery: the second
// run of the first workflow task finds nothing of the first one.
func TestAFirstDeliveryThatWasLostWithItsRowIsSentOnce(t *testing.T) {
	t.Parallel()
	after := newBarrier()
	r, run, id := startLossy(t, afterwards{after}.wrap)
	t.Cleanup(after.open)
	<-after.reached
	r.exec("DELETE FROM transmissions WHERE observation_id = $1", id)
	r.exec("UPDATE observations SET resource = NULL, resource_version = 0, transformed_at = NULL WHERE id = $1", id)
	eventually(t, "the second run to have done something", func() bool { return len(r.transmissions(id)) > 0 })
	after.open()
	if r.transmission(id).Status != db.StatusTransmitted {
		r.transmitNow(id)
	}
	r.mustDeliver(run)
	r.wantOnce(id)
}

// waitForPass starts a reading whose first delivery waits for a pass, because so much is under way. The function lets it go.
func waitForPass(t *testing.T, s setup) (r *rig, id uuid.UUID, run client.WorkflowRun, goOn func()) {
	t.Helper()
	r = newRig(t, s)
	r.ensureSchedules()
	r.authenticate()
	r.manyPlaces()
	r.exec("UPDATE ecw_gates SET parallel = 3")
	r.exec(`INSERT INTO ecw_places (id, practice_code, kind, expires_at)
		SELECT gen_random_uuid(), $1, 'other', now() + interval '1 hour' FROM generate_series(1, 2)`, practice)
	id = r.storeReading(fhir.BloodPressure, bloodPressure)
	run = r.start(id)
	time.Sleep(time.Second) // it has loaded the patient, and waits in gate.Pass for up to five seconds
	return r, id, run, func() { r.exec("DELETE FROM ecw_places WHERE kind = 'other'") }
}

// The daily refresh finds that eCW shows somebody else, while a first delivery waits for a pass.
func TestNothingIsSentOncePatientIsSomebodyElseWhileItWaitsForAPass(t *testing.T) {
	t.Parallel()
	r, id, _, goOn := waitForPass(t, setup{})
	r.setMismatch("now()")
	goOn()
	eventually(t, "its end", func() bool {
		list := r.transmissions(id)
		return len(list) == 1 && (list[0].HeldAt != nil || list[0].Status == db.StatusTransmitted)
	})
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("the EHR was sent %d readings of a patient who is somebody else there", received)
	}
}

// A person links the patient to another chart, while a first delivery waits for a pass.
func TestAFirstDeliveryThatWaitedForAPassGoesIntoThePresentChart(t *testing.T) {
	t.Parallel()
	r, id, run, goOn := waitForPass(t, setup{})
	other := sandbox.People()[1].FHIRID
	r.relink(&other)
	goOn()
	r.mustDeliver(run)
	if got := r.chartOf(id); got != other {
		t.Errorf("it stands in the chart %q, want %s, to which the patient was linked before anything was sent", got, other)
	}
}

// The same, while a first delivery without a pass opens its transmission and asks the gate.
func TestAFirstDeliveryWithoutAPassGoesIntoThePresentChart(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	r.authenticate()
	r.onePlace()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	tx := must(r.sql.Begin(t.Context()))(t)
	must(tx.Exec(t.Context(), "LOCK TABLE transmissions IN SHARE MODE"))(t)
	run := r.start(id)
	eventually(t, "the transmission to be opened", func() (waits bool) {
		const ask = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'transmissions'::regclass AND NOT granted)"
		if err := tx.QueryRow(t.Context(), ask).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})

	other := sandbox.People()[1].FHIRID
	r.relink(&other)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mustDeliver(run)
	if got := r.chartOf(id); got != other {
		t.Errorf("it stands in the chart %q, want %s, to which the patient was linked before anything was sent", got, other)
	}
}

// A first delivery waits for a pass. Meanwhile its workflow is terminated, another one sends the reading with an unknown
// outcome, and a person cancels that.
func TestAFirstDeliveryDoesNotBeginAfterAnotherTransmissionHasEnded(t *testing.T) {
	t.Parallel()
	r, id, run, goOn := waitForPass(t, setup{ignoreIfNoneExist: true})
	if err := r.temporal.TerminateWorkflow(t.Context(), run.GetID(), run.GetRunID(), "a test"); err != nil {
		t.Fatal(err)
	}
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	r.startFresh(id) // looks first
	r.awaitRetry(id)
	r.cancel(id)
	eventually(t, "the cancel to be recorded", func() bool { return r.transmission(id).NextRetryAt == nil })
	goOn()
	time.Sleep(6 * time.Second)
	r.wantOnce(id)
	if list := r.transmissions(id); len(list) != 1 {
		t.Errorf("a reading whose transmission was cancelled has another: %+v", list)
	}
}

// A reading waits in the queue while RETRY_DELAYS gets longer: its row still allows the old number of attempts.
func TestACalledFirstDeliveryKeepsItsNumberOfAttempts(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{parallel: 1, delays: []time.Duration{time.Second}})
	r.ensureSchedules()
	r.authenticate()
	end, _, err := r.gate.Begin(t.Context()) // the only place
	if err != nil {
		t.Fatal(err)
	}
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitHeld(id)
	r.worker.Stop()
	r.delays = []time.Duration{time.Second, time.Second, time.Second}
	r.breakEHR(fault{Kind: "error_500", Target: "create", For: "1h"})
	r.worker = r.startWorker(r.temporal)
	end(t.Context(), ecw.Observed{Answered: true})
	_, err = r.outcome(run)
	if row := r.transmission(id); err == nil || row.Status != db.StatusFailed || row.NextRetryAt != nil || row.AttemptCount != row.MaxAttempts {
		t.Errorf("it ended with %v and is recorded as %+v", err, row)
	}
}

// The same, when the worker is lost in the middle of the first delivery, and the next one has longer RETRY_DELAYS: nothing
// of what was sent arrived.
func TestAFirstDeliveryWhoseWorkerIsLostKeepsItsNumberOfAttempts(t *testing.T) {
	t.Parallel()
	refuse := newBarrier()
	loses := &lossy{}
	r := newRig(t, setup{intercept: loses.intercept, delays: []time.Duration{time.Second}, watch: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if isCreate(req) {
				if refuse.taken.CompareAndSwap(false, true) {
					close(refuse.reached)
				}
				<-refuse.opened
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			next.ServeHTTP(w, req)
		})
	}})
	t.Cleanup(refuse.open)
	r.authenticate()
	r.manyPlaces()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.idle(loses)
	run := r.start(id)
	<-refuse.reached
	r.delays = []time.Duration{time.Second, time.Second, time.Second}
	go r.worker.Stop()
	r.startWorker(r.dial(nil))
	r.awaitRetry(id)
	refuse.open()
	_, err := r.outcome(run)
	if row := r.transmission(id); err == nil || row.Status != db.StatusFailed || row.NextRetryAt != nil || row.AttemptCount != row.MaxAttempts {
		t.Errorf("it ended with %v and is recorded as %+v", err, row)
	}
}

// idle loses the next answer to Temporal.
func (r *rig) idle(l *lossy) { l.next.Store(1) }

// startBarredAtOnce starts a first delivery, within its workflow task, whose create waits at a barrier.
func startBarredAtOnce(t *testing.T, s setup) (*rig, *barrier, uuid.UUID, client.WorkflowRun) {
	t.Helper()
	b := newBarrier()
	s.watch = b.wrap
	s.ignoreIfNoneExist = true
	r := newRig(t, s)
	r.ensureSchedules()
	t.Cleanup(b.open)
	r.authenticate()
	r.manyPlaces()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	<-b.reached
	return r, b, id, run
}

// Its workflow ends in the middle of a first delivery, which goes on, and another takes over meanwhile.
func TestAFirstDeliveryWhoseWorkflowIsLostIsSentOnce(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*rig, client.WorkflowRun, uuid.UUID){
		"terminated": func(r *rig, run client.WorkflowRun, id uuid.UUID) {
			if err := r.temporal.TerminateWorkflow(r.t.Context(), run.GetID(), run.GetRunID(), "a test"); err != nil {
				r.t.Fatal(err)
			}
			r.startFresh(id)
		},
		"reset": func(r *rig, run client.WorkflowRun, id uuid.UUID) {
			eventually(r.t, "a heartbeat", func() bool { return len(r.history(run)) > 5 })
			r.resetToStart(run)
		},
		"called": func(r *rig, run client.WorkflowRun, id uuid.UUID) {
			if err := r.temporal.SignalWorkflow(r.t.Context(), run.GetID(), run.GetRunID(), "proceed", map[string]any{}); err != nil {
				r.t.Fatal(err)
			}
			time.Sleep(time.Second)
		},
		"cancelled by Temporal": func(r *rig, run client.WorkflowRun, id uuid.UUID) {
			if err := r.temporal.CancelWorkflow(r.t.Context(), run.GetID(), run.GetRunID()); err != nil {
				r.t.Fatal(err)
			}
			time.Sleep(time.Second)
		},
		"cancelled by a person": func(r *rig, run client.WorkflowRun, id uuid.UUID) {
			if err := r.temporal.SignalWorkflow(r.t.Context(), run.GetID(), run.GetRunID(), "cancel", nil); err != nil {
				r.t.Fatal(err)
			}
			time.Sleep(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, b, id, run := startBarredAtOnce(t, setup{})
			lose(r, run, id)
			time.Sleep(time.Second)
			b.open()
			eventually(t, "the EHR to store it", func() bool { _, stored := r.creates(id); return stored == 1 })
			time.Sleep(time.Second)
			if r.transmission(id).Status != db.StatusTransmitted {
				r.transmitNow(id)
			}
			r.awaitDelivered(id)
			r.wantOnce(id)
			eventually(t, "its workflow to end", func() bool {
				state, err := r.temporal.DescribeWorkflowExecution(t.Context(), run.GetID(), "")
				return err == nil && state.GetWorkflowExecutionInfo().GetCloseTime() != nil
			})
		})
	}
}

// A person says "transmit now", or cancels, in the middle of a first delivery that fails.
func TestWhatIsSaidDuringAFirstDeliveryThatFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		say  func(*rig, client.WorkflowRun, uuid.UUID)
		want func(*rig, client.WorkflowRun, uuid.UUID)
	}{
		"cancel": {
			func(r *rig, run client.WorkflowRun, id uuid.UUID) {
				if err := r.temporal.SignalWorkflow(r.t.Context(), run.GetID(), run.GetRunID(), "cancel", nil); err != nil {
					r.t.Fatal(err)
				}
			},
			func(r *rig, run client.WorkflowRun, id uuid.UUID) {
				r.mustFail(run, "cancelled")
				if row := r.transmission(id); row.Status != db.StatusFailed || row.NextRetryAt != nil || row.AttemptCount != 1 {
					r.t.Errorf("recorded as %+v", row)
				}
			},
		},
		"transmit now": {
			func(r *rig, run client.WorkflowRun, id uuid.UUID) {
				go func() {
					handle, err := r.temporal.UpdateWorkflow(r.t.Context(), client.UpdateWorkflowOptions{
						WorkflowID: run.GetID(), UpdateName: "transmit now", WaitForStage: client.WorkflowUpdateStageCompleted,
					})
					r.t.Logf("update: %v %v", handle, err)
				}()
				time.Sleep(10 * time.Second)
			},
			func(r *rig, run client.WorkflowRun, id uuid.UUID) {
				row := r.awaitRetry(id)
				time.Sleep(time.Second)
				if made := r.attempts(row.ID); len(made) != 1 {
					r.t.Logf("deliveries: %+v", made)
				}
				r.t.Logf("%+v", r.transmission(id))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, b, id, run := startBarredAtOnce(t, setup{})
			r.breakEHR(fault{Kind: "error_500", Target: "create"})
			tc.say(r, run, id)
			b.open()
			tc.want(r, run, id)
			var places int
			if err := r.sql.QueryRow(t.Context(), "SELECT count(*) FROM ecw_places WHERE kind = 'delivery' AND id = $1", r.transmission(id).ID).Scan(&places); err != nil || places != 0 {
				t.Errorf("%d places are still taken (%v)", places, err)
			}
		})
	}
}

// Its worker is lost in the middle, and our own limits then hold back what it would still have sent: that must not make an
// unknown outcome a delivery that was never sent.
func TestAFirstDeliveryThatIsHeldBackAfterItsWorkerWasLost(t *testing.T) {
	t.Parallel()
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r, _, id := startLossy(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			first := false
			if isCreate(req) {
				once.Do(func() { first = true })
			}
			if first {
				close(reached)
				<-goOn
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	<-reached
	before := r.awaitRetry(id)
	if err := r.gate.Pause(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	time.Sleep(3 * time.Second)
	after := r.transmission(id)
	if after.NextRetryAt == nil || !after.NextRetryAt.Equal(*before.NextRetryAt) || after.Status != before.Status || after.AttemptCount != 1 {
		t.Errorf("recorded as %+v, then as %+v", before, after)
	}
	if made := r.attempts(after.ID); len(made) != 1 || made[0].FinishedAt == nil {
		t.Errorf("attempts: %+v", made)
	}
}

// The same, and the hold-back comes before the second run has recorded anything.
func TestAFirstDeliveryThatIsHeldBackIsDeliveredOnceCalled(t *testing.T) {
	t.Parallel()
	var taken atomic.Bool
	var r *rig
	r = newRig(t, setup{ignoreIfNoneExist: true, watch: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if isCreate(req) && taken.CompareAndSwap(false, true) {
				_ = r.gate.Pause(context.Background(), 12*time.Second)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, req)
		})
	}})
	r.authenticate()
	r.manyPlaces()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitHeld(id)
	if made := r.attempts(r.transmission(id).ID); len(made) != 0 {
		t.Errorf("attempts: %+v", made)
	}
	r.mustDeliver(run)
	r.wantOnce(id)
	r.checkDelivered(id, r.transmission(id), 1)
}
