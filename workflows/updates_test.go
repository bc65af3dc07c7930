package workflows

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// answer collects what became of an update.
type answer struct {
	accepted bool
	rejected error
	state    TransmissionState
	err      error
}

func (a *answer) Accept() { a.accepted = true }

func (a *answer) Reject(err error) { a.rejected = err }

func (a *answer) Complete(result any, err error) {
	a.state, _ = result.(TransmissionState)
	a.err = err
}

func (w *world) update(name string, at time.Duration) *answer {
	a := &answer{}
	w.env.RegisterDelayedCallback(func() { w.env.UpdateWorkflow(name, "", a, Request{By: "nurse-7"}) }, at)
	return a
}

func TestTransmitNowEndsTheWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{eCWTimeout, eCWTimeout, nil}
	now := w.update(UpdateTransmitNow, 6*time.Minute) // in the wait of 15 minutes
	started := w.env.Now()
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if !now.accepted || now.err != nil || now.state.TransmissionID != "TXN-2026-08830" {
		t.Errorf("update answered %+v", now)
	}
	if took := w.attempts[2].StartedAt.Sub(started); took > 7*time.Minute {
		t.Errorf("delivered after %s, want at once after 6 minutes", took)
	}
	if w.attempts[2].Number != 3 {
		t.Errorf("delivery has number %d, want the attempt that was due", w.attempts[2].Number)
	}
}

// The API starts the workflow and asks for the delivery in one call. The gate has to know that a person asked: they go
// ahead of the queue, and try an open circuit.
func TestTransmitNowWhileTheTransmissionStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.admit = []activities.Admission{{Trial: true}, {}}
	w.post = []error{eCWTimeout, nil}
	now := w.update(UpdateTransmitNow, 0)
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if !now.accepted || now.err != nil || now.state.TransmissionID != "TXN-2026-08830" || now.state.TransformedAt.IsZero() {
		t.Errorf("update answered %+v", now)
	}
	if len(w.attempts) != 2 || !w.attempts[0].Asked || !w.posts[0].Asked {
		t.Fatalf("delivered as %+v, want the first one as asked for", w.attempts)
	}
	if w.attempts[1].Asked || w.posts[1].Asked {
		t.Errorf("the retry is asked for as well: %+v", w.attempts[1])
	}
}

// A person's wish is not brought forward by a release: it counts, and the schedule goes on from there.
func TestADeliveryThatAPersonAskedForCounts(t *testing.T) {
	t.Parallel()
	for name, admissions := range map[string][]activities.Admission{
		"at once":                    {{}, {}},
		"after a while in the queue": {{}, {Held: true}, {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.admit = admissions
			w.post = []error{eCWAway, eCWAway, nil}
			w.update(UpdateTransmitNow, time.Minute)
			w.call(2*time.Minute, gate.Call{})
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			if got := w.counts(); !slices.Equal(got, []int{1, 2, 3}) || !w.asked[1].Asked {
				t.Fatalf("attempts after each delivery: %v, asked %t", got, w.asked[1].Asked)
			}
			if wait := w.outcomes[1].NextRetryAt.Sub(w.outcomes[1].FinishedAt); wait < 15*time.Minute {
				t.Errorf("the next one comes after %s, want the schedule's second wait", wait)
			}
		})
	}
}

func TestTransmitNowTwiceDeliversOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{eCWTimeout, eCWTimeout, nil}
	w.update(UpdateTransmitNow, time.Minute)
	w.update(UpdateTransmitNow, time.Minute)
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if len(w.attempts) != 3 {
		t.Fatalf("%d deliveries, want 3", len(w.attempts))
	}
	if gap := w.attempts[2].StartedAt.Sub(w.outcomes[1].FinishedAt); gap < 15*time.Minute {
		t.Errorf("the second press skipped the next wait too: %s", gap)
	}
}

func TestTransformWhileWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{eCWTimeout, nil}
	transformed := w.update(UpdateTransform, time.Minute)
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if !transformed.accepted || transformed.err != nil || len(w.attempts) != 2 {
		t.Errorf("update answered %+v after %d deliveries", transformed, len(w.attempts))
	}
}

// A refused update must not touch the transmission that waits.
func TestTransformThatIsRefusedWhileWaitingChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.transform = []error{nil, refusal(ecw.ClassPermanentData, activities.Failure{Code: "invalid_reading"})}
	w.post = []error{eCWTimeout, nil}
	refused := w.update(UpdateTransform, time.Minute)
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if refused.err == nil || len(w.outcomes) != 2 {
		t.Errorf("update answered %+v, outcomes %+v", refused, w.outcomes)
	}
}

func TestUpdatesAreRefusedDuringADelivery(t *testing.T) {
	t.Parallel()
	tr := &transmission{phase: delivering}
	var app *temporal.ApplicationError
	if err := tr.refuseWhileDelivering(nil, Request{}); !errors.As(err, &app) || app.Type() != ErrInProgress {
		t.Errorf("refused with %v, want the type %s", err, ErrInProgress)
	}
	for _, p := range []phase{starting, waiting} {
		tr.phase = p
		if err := tr.refuseWhileDelivering(nil, Request{}); err != nil {
			t.Errorf("phase %d refuses: %v", p, err)
		}
	}
}
