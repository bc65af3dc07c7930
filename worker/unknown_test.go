package worker_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

// The EHR stores the reading each time, whatever it says. One without conditional create would store it again at every
// repetition, so nothing but the look-up keeps it from standing in the chart twice.
func TestUnknownOutcomeIsLookedUpNotRepeated(t *testing.T) {
	t.Parallel()
	every := []string{"reset_after", "no_id", "truncated", "malformed_json"}
	for _, test := range []struct {
		mode              ecw.WriteMode
		ignoreIfNoneExist bool
		kinds             []string
	}{
		{ecw.WriteObservation, true, every},
		{ecw.WriteBundle, true, every},
		{ecw.WriteObservation, false, every[:1]},
		{ecw.WriteBundle, false, every[:1]},
	} {
		t.Run(fmt.Sprintf("%s, conditional create ignored: %t", test.mode, test.ignoreIfNoneExist), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{writeMode: test.mode, ignoreIfNoneExist: test.ignoreIfNoneExist})
			for _, kind := range test.kinds {
				t.Run(kind, func(t *testing.T) { r.on(t).loseAnswer(kind) })
			}
		})
	}
}

func (r *rig) loseAnswer(kind string) {
	r.t.Helper()
	r.breakEHR(fault{Kind: kind, Target: "create"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	row := r.awaitRetry(id)
	if row.Status != db.StatusFailed || row.ErrorClass != string(ecw.ClassUnknown) || row.AttemptCount != 1 {
		r.t.Errorf("the transmission is recorded as %+v, want it failed with an unknown outcome", row)
	}
	if _, stored := r.creates(id); stored != 1 {
		r.t.Fatalf("the EHR stored the reading %d times: the test needs one whose answer was lost", stored)
	}
	if again := r.transmitNow(id); again.GetRunID() != run.GetRunID() {
		r.t.Fatal("transmit now started another workflow")
	}
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 2)
	if received, _ := r.creates(id); received != 1 {
		r.t.Errorf("the EHR was sent the reading %d times, want once: it had it already", received)
	}
}

// An empty search proves nothing: the create that follows must be conditional.
func TestLookUpThatFindsNothingIsFollowedByAConditionalCreate(t *testing.T) {
	t.Parallel()
	for _, mode := range []ecw.WriteMode{ecw.WriteObservation, ecw.WriteBundle} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{writeMode: mode, delays: soon()})
			r.breakEHR(fault{Kind: "reset_after", Target: "create"})
			r.breakEHR(fault{Kind: "empty_search", For: "1h"})
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			r.mustDeliver(run)
			r.admin(http.MethodDelete, "faults", nil, nil)
			r.checkDelivered(id, r.transmission(id), 2)
			if received, _ := r.creates(id); received != 2 {
				t.Errorf("the EHR was sent the reading %d times, want twice", received)
			}
		})
	}
}

// However the look-up fails, the reading must not be sent again before one succeeds.
func TestNothingIsSentAgainWhileTheLookUpFails(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"reset_before", "error_500", "malformed_json", "html"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			r.breakEHR(fault{Kind: "reset_after", Target: "create"})
			r.breakEHR(fault{Kind: kind, Target: "search"})
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			r.awaitRetry(id)
			for delivery := 2; delivery <= 3; delivery++ {
				r.transmitNow(id)
				eventually(t, fmt.Sprintf("the outcome of delivery %d", delivery), func() bool {
					row := r.transmission(id)
					made := r.attempts(row.ID)
					return len(made) == delivery && made[delivery-1].FinishedAt != nil && row.Status != db.StatusProcessing
				})
			}
			r.mustDeliver(run)
			r.checkDelivered(id, r.transmission(id), 2) // eCW failed at everything: the look-up was no attempt
			if received, _ := r.creates(id); received != 1 {
				t.Errorf("the EHR was sent the reading %d times, want once", received)
			}
		})
	}
}

// eCW refuses every search, which says nothing about the reading: it may stand in the chart, and the transmission goes on.
func TestALookUpThatIsRefusedEndsNothing(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusBadRequest, http.StatusForbidden, http.StatusUnprocessableEntity} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			var allowed atomic.Bool
			r := newRig(t, setup{watch: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/Observation") && !allowed.Load() {
						w.WriteHeader(status)
						return
					}
					next.ServeHTTP(w, req)
				})
			}})
			r.breakEHR(fault{Kind: "reset_after", Target: "create"})
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			r.awaitRetry(id)
			r.transmitNow(id)
			eventually(t, "the look-up to be refused", func() bool {
				made := r.attempts(r.transmission(id).ID)
				return len(made) == 2 && made[1].FinishedAt != nil
			})
			row := r.awaitRetry(id)
			if row.ErrorClass != string(ecw.ClassUnknown) || !strings.Contains(row.ErrorMessage, "could not be asked") {
				t.Errorf("the transmission is recorded as %+v, want its outcome unknown", row)
			}

			allowed.Store(true)
			r.transmitNow(id)
			r.mustDeliver(run)
			if received, _ := r.creates(id); received != 1 {
				t.Errorf("the EHR was sent the reading %d times, want once", received)
			}
		})
	}
}

// A person starts another transmission after the first one failed for good, and after eCW had stored the reading.
func TestNewTransmissionLooksForWhatAnEarlierOneSent(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{ignoreIfNoneExist: true})
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitRetry(id)
	if err := r.temporal.SignalWorkflow(t.Context(), run.GetID(), "", workflows.SignalCancel, nil); err != nil {
		t.Fatal(err)
	}
	r.mustFail(run, workflows.ClassCancelled)

	r.mustDeliver(r.transmitNow(id))
	both := r.transmissions(id)
	if len(both) != 2 {
		t.Fatalf("%d transmissions are recorded, want a second one", len(both))
	}
	r.checkFailed(both[0], workflows.ClassCancelled, "Cancelled")
	r.checkDelivered(id, both[1], 1)
	if received, _ := r.creates(id); received != 1 {
		t.Errorf("the EHR was sent the reading %d times, want once", received)
	}
}
