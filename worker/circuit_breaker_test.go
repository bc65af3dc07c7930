package worker_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/testsuite"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/workflows"
)

func TestALostCircuitBreakerIsStartedAgainByTheSweep(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	r.breakEHR(fault{Kind: "forbidden", Target: "create", For: "1h"})
	ids, runs := r.startHeld(2)
	eventually(t, "the circuit breaker to run", func() bool {
		return r.temporal.TerminateWorkflow(t.Context(), workflows.CircuitBreakerWorkflowID(practice), "", "by hand") == nil
	})
	r.admin(http.MethodDelete, "faults", nil, nil) // eCW is mended, but nobody is left to notice

	r.sweep()
	for _, id := range ids {
		if row := r.transmission(id); row.HeldAt == nil {
			t.Errorf("the sweep lets a reading go while the circuit is open: %+v", row)
		}
	}
	r.tryNow()
	for i, run := range runs {
		r.mustDeliver(run)
		r.checkDelivered(ids[i], r.transmission(ids[i]), 1)
	}
}

// forbid answers 403 to every create of one reading.
func forbid(forbidden *atomic.Pointer[uuid.UUID]) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, err := io.ReadAll(req.Body)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if id := forbidden.Load(); id != nil && req.Method == http.MethodPost && bytes.Contains(body, []byte(id.String())) {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, req)
		})
	}
}

// A 403 may mean all readings or one. eCW forbids this one alone: it opens the circuit, and again whenever another one has
// closed it, but not for ever.
func TestAReadingThatECWAloneForbidsFailsInTheEnd(t *testing.T) {
	t.Parallel()
	var forbidden atomic.Pointer[uuid.UUID]
	r := newRig(t, setup{watch: forbid(&forbidden)})
	bad := r.storeReading(fhir.BloodPressure, bloodPressure)
	forbidden.Store(&bad)
	run := r.start(bad)
	for refusals := 1; refusals <= 2; refusals++ {
		eventually(t, "the reading to be refused", func() bool {
			all := r.transmissions(bad)
			return r.circuit().Circuit == gate.Open && len(all) > 0 && all[0].HeldAt != nil && len(r.attempts(all[0].ID)) == refusals
		})
		if row := r.transmission(bad); row.AttemptCount != 0 {
			t.Errorf("after %d refusals it is recorded as %+v, want no attempt used up", refusals, row)
		}
		others, runs := r.startHeld(2)
		r.transmitNow(others[0]) // a person tries: eCW takes it, and the circuit closes
		for i, other := range runs {
			r.mustDeliver(other)
			r.checkDelivered(others[i], r.transmission(others[i]), 1)
		}
	}
	r.mustFail(run, string(ecw.ClassPermanentCredentials))
	row := r.transmission(bad)
	r.checkFailed(row, string(ecw.ClassPermanentCredentials), "")
	if made := r.attempts(row.ID); len(made) != 3 || row.AttemptCount != 1 {
		t.Errorf("%d deliveries of it are recorded, %d count; want 3 and the last", len(made), row.AttemptCount)
	}
	if got := r.circuit(); got.Circuit != gate.Closed {
		t.Errorf("the circuit is %+v, want it closed: eCW takes other readings", got)
	}
	r.mustDeliver(r.start(r.storeReading(fhir.BloodPressure, bloodPressure)))
}

// A transmission may go on faster than it is written down that it may: what has become of it by then must stay.
func TestReleaseDoesNotTouchWhatHasGoneOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(fault{Kind: "forbidden", Target: "create", For: "1h"})
	ids, _ := r.startHeld(2)
	fast, slow := r.transmission(ids[0]), r.transmission(ids[1])
	release := &activities.Circuit{Store: r.store, Gate: r.gate, Proceed: func(ctx context.Context, id uuid.UUID, _ activities.Call) (bool, error) {
		if id == slow.ObservationID {
			return true, nil
		}
		return true, r.store.RecordOutcome(ctx, db.RecordOutcomeParams{ID: fast.ID, Status: db.StatusFailed, ErrorClass: string(ecw.ClassPermanentData), AttemptCount: 1})
	}}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(release)
	answer, err := env.ExecuteActivity(release.ReleaseHeld, activities.Release{PracticeCode: practice, Since: time.Now(), Until: time.Now(), Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var released int
	if err := answer.Get(&released); err != nil || released != 2 {
		t.Errorf("released %d (%v), want 2", released, err)
	}
	if row := r.transmission(ids[0]); row.Status != db.StatusFailed || row.NextRetryAt != nil {
		t.Errorf("what has failed for good is recorded as %+v", row)
	}
	if row := r.transmission(ids[1]); row.Status != db.StatusPending || row.HeldAt != nil || row.NextRetryAt == nil {
		t.Errorf("what was released is recorded as %+v, want it to wait for its turn", row)
	}
}
