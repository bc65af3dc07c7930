package worker_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
)

// nobodyToTry leaves the circuit half-open, with nobody who could be the trial and no CircuitBreaker.
func (r *rig) nobodyToTry() {
	r.t.Helper()
	r.tryNow()
	eventually(r.t, "the next to come to be the trial", func() bool {
		c := r.circuit()
		return c.Circuit == gate.HalfOpen && c.Trial == nil
	})
	r.admin(http.MethodDelete, "faults", nil, nil)
}

func (r *rig) setMismatch(value string) {
	r.t.Helper()
	must(r.sql.Exec(r.t.Context(), "UPDATE patients SET mismatch_since = "+value+" WHERE id = $1", r.patient.ID))(r.t)
}

// The daily refresh finds that eCW shows somebody else, while a delivery is under way that the gate had let begin.
func TestNothingIsSentOncePatientIsSomebodyElse(t *testing.T) {
	t.Parallel()
	asked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r := newRig(t, setup{watch: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, "token") {
				once.Do(func() {
					close(asked)
					<-goOn
				})
			}
			next.ServeHTTP(w, req)
		})
	}})
	r.ensureSchedules()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	<-asked
	r.setMismatch("now()")
	close(goOn)
	r.awaitHeld(id)
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("the EHR was sent %d readings of a patient who is somebody else there", received)
	}

	r.setMismatch("NULL")
	r.sweep() // calls the queue
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 1)
}

// Our own limits hold the trial back: another one has to decide, or the circuit would stay half-open for ever.
func TestATrialThatIsHeldBackIsTheTrialNoLonger(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	r.breakEHR(refuseUs)
	ids, runs := r.startHeld(1)
	r.cancel(ids[0])
	r.mustFail(runs[0], "cancelled")
	r.nobodyToTry()

	if err := r.gate.Pause(t.Context(), time.Hour); err != nil { // somebody else met a 429
		t.Fatal(err)
	}
	trial := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.start(trial)
	r.awaitHeld(trial)
	if got := r.circuit(); got.Circuit != gate.Open || got.Trial != nil {
		t.Errorf("the circuit is %+v, want it open and nobody tried", got)
	}
	if made := r.attempts(r.transmission(trial).ID); len(made) != 0 {
		t.Errorf("%+v is recorded of a delivery that our own limits held back", made)
	}
	next := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.start(next)
	r.awaitHeld(next)
	must(r.sql.Exec(t.Context(), "UPDATE ecw_gates SET blocked_until = 'epoch'"))(t)
	r.sweep()
	r.tryNow()
	r.checkDelivered(trial, r.awaitDelivered(trial), 1)
	r.checkDelivered(next, r.awaitDelivered(next), 1)
}

// All that is held is of a patient who is somebody else in eCW, so nobody can be tried; then a person corrects that.
func TestAHalfOpenCircuitIsAttendedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.ensureSchedules()
	r.breakEHR(refuseUs)
	ids, runs := r.startHeld(3)
	r.setMismatch("now()")
	r.nobodyToTry()
	r.setMismatch("NULL")
	r.sweep()
	r.tryNow()
	for i, run := range runs {
		r.mustDeliver(run)
		r.checkDelivered(ids[i], r.transmission(ids[i]), 1)
	}
}

// The only place is taken by a request that began before the circuit opened: the trial waits for it.
func TestATrialWaitsForAPlace(t *testing.T) {
	t.Parallel()
	var hold atomic.Bool
	var underWay, most atomic.Int64
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r := newRig(t, setup{parallel: 1, watch: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.HasPrefix(req.URL.Path, "/admin/") {
				next.ServeHTTP(w, req)
				return
			}
			n := underWay.Add(1)
			defer underWay.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			if hold.Load() && strings.Contains(req.URL.Path, "/Patient/") {
				once.Do(func() { close(reached) })
				<-release
			}
			next.ServeHTTP(w, req)
		})
	}})
	must(r.ehr.ReadPatient(t.Context(), *r.patient.ExternalID))(t) // so that a token is held
	r.breakEHR(fault{Kind: "error_503", Target: "create", For: "1h"})
	ids, _ := r.openCircuit()
	hold.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = r.ehr.ReadPatient(t.Context(), *r.patient.ExternalID)
	}()
	<-reached
	r.admin(http.MethodDelete, "faults", nil, nil)
	r.transmitNow(ids[0])
	eventually(t, "the trial to begin", func() bool { return r.transmission(ids[0]).Status == db.StatusProcessing })
	close(release)
	<-done
	eventually(t, "the trial's outcome", func() bool { return r.circuit().Circuit == gate.Closed })
	if n := most.Load(); n > 1 {
		t.Errorf("%d requests were under way at once, want 1 at most", n)
	}
}
