package worker_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/workflows"
)

// refuseUs has the EHR take our key for a stranger's.
var refuseUs = fault{Kind: "unauthorized", Target: "token", For: "1h"}

// circuit is the state of the practice's circuit.
func (r *rig) circuit() db.Gate {
	r.t.Helper()
	return must(r.gate.State(r.t.Context()))(r.t)
}

// startHeld starts the transmissions of new readings and waits until the circuit holds all of them.
func (r *rig) startHeld(n int) (ids []uuid.UUID, runs []client.WorkflowRun) {
	r.t.Helper()
	for range n {
		id := r.storeReading(fhir.BloodPressure, bloodPressure)
		ids, runs = append(ids, id), append(runs, r.start(id))
		r.awaitHeld(id)
	}
	return ids, runs
}

func (r *rig) awaitHeld(id uuid.UUID) {
	r.t.Helper()
	eventually(r.t, "the transmission to be held", func() bool {
		all := r.transmissions(id)
		return len(all) > 0 && all[0].HeldAt != nil
	})
}

// openCircuit makes as many readings fail as it takes, and returns them.
func (r *rig) openCircuit() (ids []uuid.UUID, runs []client.WorkflowRun) {
	r.t.Helper()
	for r.circuit().Circuit == gate.Closed {
		id := r.storeReading(fhir.BloodPressure, bloodPressure)
		ids, runs = append(ids, id), append(runs, r.start(id))
		r.awaitRetry(id)
	}
	return ids, runs
}

// tryNow has the circuit breaker let the next one through.
func (r *rig) tryNow() {
	r.t.Helper()
	eventually(r.t, "the circuit breaker to run", func() bool {
		return r.temporal.SignalWorkflow(r.t.Context(), workflows.CircuitBreakerWorkflowID(practice), "", workflows.SignalTryNow, nil) == nil
	})
}

// deliveredInOrder returns the ids by the moment their last delivery began.
func (r *rig) deliveredInOrder(ids []uuid.UUID) []uuid.UUID {
	r.t.Helper()
	return slices.SortedFunc(slices.Values(ids), func(a, b uuid.UUID) int {
		return r.transmission(a).LastAttemptedAt.Compare(*r.transmission(b).LastAttemptedAt)
	})
}

func TestAnOutageOpensTheCircuitAndNoAttemptIsSpentOnIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(fault{Kind: "error_503", Target: "any", For: "1h"})
	failed, failedRuns := r.openCircuit()
	if got := r.circuit(); len(failed) != 3 || got.Reason != gate.ReasonUnavailable || got.Message == "" {
		t.Fatalf("after %d readings the circuit is %+v, want it opened by three", len(failed), got)
	}
	held, heldRuns := r.startHeld(4)
	seen := r.stats()
	for _, id := range held {
		if row := r.transmission(id); row.AttemptCount != 0 || row.Status != db.StatusPending || len(r.attempts(row.ID)) != 0 {
			t.Errorf("a held reading is recorded as %+v, want no attempt", row)
		}
	}

	// A trial that fails costs its reading nothing.
	r.tryNow()
	eventually(t, "the trial to fail", func() bool { return r.stats().Requests["POST token"]["503"] > seen.Requests["POST token"]["503"] })
	eventually(t, "the circuit to open again", func() bool { return r.circuit().Circuit == gate.Open })

	r.admin(http.MethodPost, "reset", nil, nil)
	r.tryNow()
	for i, run := range append(failedRuns, heldRuns...) {
		r.mustDeliver(run)
		id := append(failed, held...)[i]
		attempts := 1
		if i < len(failed) {
			attempts = 2 // the one that found the outage, and the one before it would have been due
		}
		r.checkDelivered(id, r.transmission(id), attempts)
	}
	if got := r.circuit(); got.Circuit != gate.Closed || got.OpenedAt != nil || len(got.Failing) != 0 {
		t.Errorf("the circuit is %+v, want it closed", got)
	}
}

func TestReleasedReadingsGoFirstInFirstOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{perMinute: 40})
	r.breakEHR(refuseUs)
	ids, runs := r.startHeld(12)
	r.admin(http.MethodDelete, "faults", nil, nil)
	r.tryNow()
	for _, run := range runs {
		r.mustDeliver(run)
	}
	// All but the first, which was the trial, have turns of this minute or evenly spread ones of the next.
	last := r.transmission(ids[len(ids)-1]).LastAttemptedAt
	for _, id := range ids[:len(ids)/2] {
		if r.transmission(id).LastAttemptedAt.After(last.Add(time.Second)) {
			t.Errorf("delivered in the order %v, want about %v", r.deliveredInOrder(ids), ids)
			break
		}
	}
	if refused := r.stats().Requests["POST Observation"]["429"]; refused != 0 {
		t.Errorf("the EHR refused %d requests with 429, want none", refused)
	}
}

func TestRefusedCredentialsBurnNoAttempts(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	r := newRig(t, setup{log: slog.NewTextHandler(&logs, nil)})
	r.breakEHR(refuseUs)
	ids, runs := r.startHeld(5)
	if got := r.circuit(); got.Circuit != gate.Open || got.Reason != gate.ReasonCredentials {
		t.Fatalf("the circuit is %+v, want it opened by the first refusal", got)
	}
	if first := r.transmission(ids[0]); first.AttemptCount != 0 || first.ErrorClass != string(ecw.ClassPermanentCredentials) {
		t.Errorf("the refused reading is recorded as %+v, want no attempt used up", first)
	}
	r.tryNow()
	eventually(t, "a second refusal", func() bool {
		return r.circuit().Circuit == gate.Open && len(r.attempts(r.transmission(ids[0]).ID)) == 2
	})

	r.admin(http.MethodDelete, "faults", nil, nil)
	r.transmitNow(ids[2]) // a person tries whether it is fixed: the others follow
	for i, run := range runs {
		r.mustDeliver(run)
		r.checkDelivered(ids[i], r.transmission(ids[i]), 1)
	}
	r.awaitEnd(workflows.CircuitBreakerWorkflowID(practice))
	r.worker.Stop()
	if n := strings.Count(logs.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d alarms in the log, want one:\n%s", n, logs.String())
	}
	if strings.Contains(logs.String(), "unhandled signals") {
		t.Errorf("the log warns of signals:\n%s", logs.String())
	}
}

// awaitEnd waits until the last run of a workflow has ended well.
func (r *rig) awaitEnd(id string) {
	r.t.Helper()
	if err := r.temporal.GetWorkflow(r.t.Context(), id, "").Get(r.t.Context(), nil); err != nil {
		r.t.Fatal(err)
	}
}

// Those whose turn as the trial comes first have no chart in eCW, so nothing is asked: a circuit that could close does not wait
// for the pauses between trials.
func TestATrialThatNeverAsksECWGivesWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	linked := r.patient
	r.patient = r.unlinkedPatient()
	r.breakEHR(refuseUs)
	_, unlinkedRuns := r.startHeld(4)
	r.patient = linked
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitHeld(id)

	r.admin(http.MethodDelete, "faults", nil, nil)
	r.tryNow() // the next two trials would come after a minute and two
	r.mustDeliver(run)
	for _, run := range unlinkedRuns {
		r.mustFail(run, string(ecw.ClassPermanentData))
	}
	if got := r.circuit(); got.Circuit != gate.Closed {
		t.Errorf("the circuit is %+v, want it closed", got)
	}
}

// unlinkedPatient is one who has no chart in eCW yet.
func (r *rig) unlinkedPatient() db.Patient {
	r.t.Helper()
	return must(r.store.CreatePatient(r.t.Context(), db.CreatePatientParams{
		PracticeCode: practice,
		Demographics: db.Demographics{
			FirstName:   "Nora",
			LastName:    "New",
			MRN:         "MRN-UNLINKED",
			DateOfBirth: r.patient.DateOfBirth,
		},
		Active: true,
	}))(r.t)
}

// eCW gives us tokens and forbids what we do with them: the first readings cannot know that it means all.
func TestThreeForbiddenReadingsOpenTheCircuit(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(fault{Kind: "forbidden", Target: "create", For: "1h"})
	refused, refusedRuns := r.openCircuit()
	if got := r.circuit(); len(refused) != 3 || got.Reason != gate.ReasonCredentials {
		t.Fatalf("after %d readings the circuit is %+v, want it opened by three", len(refused), got)
	}
	held, heldRuns := r.startHeld(2)
	r.admin(http.MethodDelete, "faults", nil, nil)
	r.tryNow()
	for i, run := range append(refusedRuns, heldRuns...) {
		r.mustDeliver(run)
		id := append(refused, held...)[i]
		r.checkDelivered(id, r.transmission(id), 1)
	}
}
