package worker_test

import (
	"bytes"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

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
	r.breakEHR(refuseUs)
	ids, runs := r.startHeld(2)
	eventually(t, "the circuit breaker to run", func() bool {
		return r.temporal.TerminateWorkflow(t.Context(), workflows.CircuitBreakerWorkflowID(practice), "", "by hand") == nil
	})
	r.admin(http.MethodDelete, "faults", nil, nil) // eCW is fixed, but nobody is left to notice

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

// A 403 may mean all readings or one. eCW forbids this one alone: the others are not held up, and it fails in the end.
func TestAReadingThatECWAloneForbidsFailsInTheEnd(t *testing.T) {
	t.Parallel()
	var forbidden atomic.Pointer[uuid.UUID]
	r := newRig(t, setup{watch: forbid(&forbidden)})
	bad := r.storeReading(fhir.BloodPressure, bloodPressure)
	forbidden.Store(&bad)
	run := r.start(bad)
	for refusals := 1; refusals <= 2; refusals++ {
		var row db.Transmission
		eventually(t, "the refusal to be recorded", func() bool {
			all := r.transmissions(bad)
			if len(all) == 0 || all[0].NextRetryAt == nil {
				return false
			}
			row = all[0]
			made := r.attempts(row.ID)
			return len(made) == refusals && made[refusals-1].FinishedAt != nil && !row.UpdatedAt.Before(*made[refusals-1].FinishedAt)
		})
		if row.AttemptCount != 0 || row.Status != db.StatusPending {
			t.Fatalf("after %d refusals it is recorded as %+v, want it pending and no attempt used up", refusals, row)
		}
		delay := documentedDelays()[refusals-1]
		within(t, "next try", row.NextRetryAt.Sub(*row.LastAttemptedAt), delay, delay+delay/10+patience)
		other := r.storeReading(fhir.BloodPressure, bloodPressure)
		r.mustDeliver(r.start(other))
		r.checkDelivered(other, r.transmission(other), 1)
		r.transmitNow(bad)
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
}

// Everything is lost but the database, while the circuit is open: what it holds is carried again.
func TestHeldReadingsWhoseWorkflowsAreLostGoOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	r.breakEHR(refuseUs)
	ids, runs := r.startHeld(3)
	for _, run := range runs {
		if err := r.temporal.TerminateWorkflow(t.Context(), run.GetID(), "", "lost"); err != nil {
			t.Fatal(err)
		}
	}
	r.admin(http.MethodDelete, "faults", nil, nil)
	r.tryNow()
	for _, id := range ids {
		eventually(t, "the reading to be delivered", func() bool { return r.transmission(id).Status == db.StatusTransmitted })
		r.checkDelivered(id, r.transmission(id), 1)
	}
}
