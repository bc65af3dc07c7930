package workflows

import (
	"errors"
	"testing"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// runs runs the transmission as ref says and returns what it continues as.
func (w *world) runs(t *testing.T, ref activities.ObservationRef) (next TransmissionInput) {
	t.Helper()
	w.env.ExecuteWorkflow(Transmission, TransmissionInput{ObservationRef: ref})
	var again *workflow.ContinueAsNewError
	if err := w.env.GetWorkflowError(); !errors.As(err, &again) {
		t.Fatalf("ended with %v, want it to continue as new", err)
	}
	if err := converter.GetDefaultDataConverter().FromPayloads(again.Input, &next); err != nil {
		t.Fatal(err)
	}
	return next
}

// A database that was restored does not know the transmission: the next run opens what it does know, and looks in eCW for
// what this one may have sent.
func TestAForgottenTransmissionIsOpenedAnew(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*world){
		"in Authenticate":             func(w *world) { w.auth = []error{forgotten()} },
		"in Post":                     func(w *world) { w.post = []error{forgotten()} },
		"in Record":                   func(w *world) { w.record = []error{forgotten()} },
		"in Record of an unknown one": func(w *world) { w.post, w.record = []error{eCWTimeout}, []error{forgotten()} },
		"in Record of a refused one": func(w *world) {
			w.transform = []error{refusal(ecw.ClassPermanentData, activities.Failure{Code: "invalid_reading"})}
			w.record = []error{forgotten()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			set(w)
			started := w.env.Now()
			ref := w.runs(t, testRef)
			if ref.ObservationID != testRef.ObservationID || ref.PracticeCode != testRef.PracticeCode || !ref.LookUp {
				t.Errorf("continues with %+v, want the same observation, looked up", ref)
			}
			if since := ref.UnknownSince.Sub(started); since < 0 || since > time.Second {
				t.Errorf("continues with an unknown outcome of %s, want of now (%s)", ref.UnknownSince, started)
			}
			if len(w.posts) > 1 || len(w.asked) > 1 {
				t.Errorf("went on with %d deliveries", len(w.asked))
			}
		})
	}
}

// What a person asked of the run that the database has forgotten is handed on to the next.
func TestWhatAPersonWantsIsNotForgotten(t *testing.T) {
	t.Parallel()
	t.Run("cancelled during a delivery", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.post, w.record = []error{eCWTimeout}, []error{nil, forgotten()}
		w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(SignalCancel, nil) }, time.Minute)
		if next := w.runs(t, testRef); !next.Cancelled || !next.LookUp {
			t.Errorf("the next run is told %+v, want that it is cancelled", next)
		}
	})
	t.Run("by Temporal's cancel request", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.post, w.record = []error{eCWTimeout}, []error{nil, forgotten()}
		w.env.RegisterDelayedCallback(w.env.CancelWorkflow, time.Minute)
		if next := w.runs(t, testRef); !next.Cancelled {
			t.Errorf("the next run is told %+v, want that it is cancelled", next)
		}
	})
	t.Run("transmit now", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		asked := &answer{}
		w.post, w.record = []error{eCWTimeout}, []error{forgotten()}
		w.beforeRecord = func() { w.env.UpdateWorkflow(UpdateTransmitNow, "", asked, Request{}) }
		ref := testRef
		ref.Unasked = true
		if next := w.runs(t, ref); !asked.accepted || !next.TransmitNow || next.Unasked || next.UnknownSince.IsZero() {
			t.Errorf("accepted %t, the next run is told %+v", asked.accepted, next)
		}
	})
	t.Run("in the middle of a delivery that was asked for", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.post, w.auth = []error{eCWTimeout}, []error{nil, forgotten()}
		w.update(UpdateTransmitNow, time.Minute)
		if next := w.runs(t, testRef); !next.TransmitNow {
			t.Errorf("the next run is told %+v, want that somebody waits for the delivery", next)
		}
	})
}

// A run does first what an earlier one has handed on.
func TestWhatIsHandedOn(t *testing.T) {
	t.Parallel()
	t.Run("a cancel", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.env.ExecuteWorkflow(Transmission, TransmissionInput{ObservationRef: testRef, Cancelled: true})
		var app *temporal.ApplicationError
		if err := w.env.GetWorkflowError(); !errors.As(err, &app) || app.Type() != ClassCancelled {
			t.Errorf("ended with %v, want the class %s", err, ClassCancelled)
		}
		if len(w.posts) != 0 || len(w.outcomes) != 1 || string(w.outcomes[0].Failure.Class) != ClassCancelled {
			t.Errorf("%d deliveries, recorded %+v", len(w.posts), w.outcomes)
		}
	})
	t.Run("transmit now", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.opened.Due = w.env.Now().Add(time.Hour)
		started := w.env.Now()
		w.env.ExecuteWorkflow(Transmission, TransmissionInput{ObservationRef: testRef, TransmitNow: true})
		if err := w.env.GetWorkflowError(); err != nil || len(w.attempts) != 1 || !w.attempts[0].Asked {
			t.Fatalf("ended with %v after %+v", err, w.attempts)
		}
		if waited := w.attempts[0].StartedAt.Sub(started); waited > 2*time.Second {
			t.Errorf("delivered after %s, want at once", waited)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.post = []error{eCWForbids}
		w.env.ExecuteWorkflow(Transmission, TransmissionInput{ObservationRef: testRef, Refusals: maxRefusals - 1})
		if len(w.posts) != 1 || w.outcomes[0].NextRetryAt != nil {
			t.Errorf("%d deliveries, recorded %+v, want the last refusal that there may be", len(w.posts), w.outcomes)
		}
	})
}

// cancelled runs a transmission that has to end as cancelled.
func (w *world) cancelled(t *testing.T) {
	t.Helper()
	_, err := w.run(t)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != ClassCancelled {
		t.Errorf("ended with %v, want the class %s", err, ClassCancelled)
	}
	if last := w.outcomes[len(w.outcomes)-1]; string(last.Failure.Class) != ClassCancelled {
		t.Errorf("recorded %+v", last)
	}
}

// Whatever may have sent something before, in this run or another, eCW is asked before anything is sent.
func TestOnlyTheFirstDeliveryDoesNotLook(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ref      activities.ObservationRef
		reset    bool
		made     int
		admit    []activities.Admission
		post     []error
		lookedUp []bool
	}{
		"the first": {lookedUp: []bool{false}},
		"the second": {
			post:     []error{eCWBusy, nil},
			lookedUp: []bool{false, true},
		},
		"the first, again after it was not sent": {
			post:     []error{temporal.NewNonRetryableApplicationError("database away", activities.TypeNotSent, nil), nil},
			lookedUp: []bool{false, false},
		},
		"the first, after it was held back": {
			post:     []error{refusal(activities.TypeNotSent, activities.Failure{HeldBack: &gate.Admission{Held: true}}), nil},
			lookedUp: []bool{false, false},
		},
		"of a run that was told so":        {ref: activities.ObservationRef{LookUp: true}, lookedUp: []bool{true}},
		"of a run that takes another over": {made: 1, lookedUp: []bool{true}},
		"of a run that a person has reset": {reset: true, lookedUp: []bool{true}},
		"of one that waited in the queue":  {admit: []activities.Admission{{Held: true}, {}}, lookedUp: []bool{false}},
		"of a run that continues a reset":  {ref: activities.ObservationRef{LookUp: true}, reset: true, lookedUp: []bool{true}},
		"the first after an unknown before": {
			ref:      activities.ObservationRef{LookUp: true, UnknownSince: time.Date(2026, 2, 6, 8, 0, 0, 0, time.UTC)},
			lookedUp: []bool{true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.opened.DeliveriesMade, w.admit, w.post = tc.made, tc.admit, tc.post
			ref := tc.ref
			ref.PracticeCode, ref.ObservationID = testRef.PracticeCode, testRef.ObservationID
			w.env.ExecuteWorkflow(func(ctx workflow.Context, ref activities.ObservationRef) (TransmissionState, error) {
				if tc.reset {
					workflow.GetInfo(ctx).OriginalRunID = "the run before the reset"
				}
				return Transmission(ctx, TransmissionInput{ObservationRef: ref})
			}, ref)
			if err := w.env.GetWorkflowError(); err != nil {
				t.Fatal(err)
			}
			if len(w.posts) != len(tc.lookedUp) {
				t.Fatalf("%d posts, want %d", len(w.posts), len(tc.lookedUp))
			}
			for i, in := range w.posts {
				if in.LookUp != tc.lookedUp[i] || !in.UnknownSince.Equal(tc.ref.UnknownSince) {
					t.Errorf("post %d looks up: %t, want %t; unknown since %s", i+1, in.LookUp, tc.lookedUp[i], in.UnknownSince)
				}
			}
		})
	}
}

// What was sent last and may have arrived is what the next send has to keep away from; a search sends nothing.
func TestPostIsToldOfTheLastUnknownOutcome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken := refusal(ecw.ClassUnknown, activities.Failure{Code: "timeout", Finding: gate.Unavailable, LookingUp: true})
	w.post = []error{eCWBusy, eCWTimeout, broken, eCWBusy, nil}
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	for i, in := range w.posts {
		want := time.Time{}
		if i > 1 {
			want = w.outcomes[1].FinishedAt
		}
		if !in.UnknownSince.Equal(want) {
			t.Errorf("post %d is told of an unknown outcome of %s, want %s", i+1, in.UnknownSince, want)
		}
	}
}

func TestALongHistoryTakesAlongWhatMayHaveBeenSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{eCWTimeout}
	w.env.SetContinueAsNewSuggested(true)
	next := w.runs(t, testRef)
	if !next.LookUp || !next.UnknownSince.Equal(w.outcomes[0].FinishedAt) {
		t.Errorf("continues with %+v, want it to look up what was unknown at %s", next, w.outcomes[0].FinishedAt)
	}
}

// However often eCW forbids a reading, and however long the history gets between: it is counted.
func TestALongHistoryTakesAlongTheRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{eCWForbids}
	w.env.SetContinueAsNewSuggested(true)
	if next := w.runs(t, testRef); next.Refusals != 1 || next.UnknownSince != (time.Time{}) {
		t.Errorf("continues with %+v, want one refusal", next)
	}
}

// A database that is away for days costs no end of history: of a delivery that cannot begin, a new run begins it.
func TestALongHistoryOfDeliveriesThatWereNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{temporal.NewNonRetryableApplicationError("database away", activities.TypeNotSent, nil)}
	w.update(UpdateTransmitNow, 5*time.Second) // it is asked for, and still is in the next run
	w.env.RegisterDelayedCallback(func() { w.env.SetContinueAsNewSuggested(true) }, 12*time.Second)
	if next := w.runs(t, testRef); len(w.posts) < 2 || len(w.outcomes) != 0 || !next.TransmitNow {
		t.Errorf("continues with %+v after %d posts, recorded %+v", next, len(w.posts), w.outcomes)
	}
}

func TestATransmissionThatIsDueLaterWaitsForIt(t *testing.T) {
	t.Parallel()
	const due = 40 * time.Minute
	for name, tc := range map[string]struct {
		happens func(*world)
		begins  time.Duration
		asked   bool
		counts  int // of a delivery that finds eCW away
	}{
		"and nothing happens": {begins: due, counts: 3},
		"but is called before": {
			happens: func(w *world) { w.call(10*time.Minute, gate.Call{}) },
			begins:  10 * time.Minute,
			counts:  2,
		},
		"but is called for later": {
			happens: func(w *world) { w.call(10*time.Minute, gate.Call{Wait: time.Minute}) },
			begins:  11 * time.Minute,
			counts:  2,
		},
		"but the call for later started it": {
			happens: func(w *world) { w.call(0, gate.Call{Wait: time.Minute}) },
			begins:  time.Minute,
			counts:  2,
		},
		"but a person asks": {
			happens: func(w *world) { w.update(UpdateTransmitNow, 10*time.Minute) },
			begins:  10 * time.Minute,
			asked:   true,
			counts:  3,
		},
		"but a person asked at once": {
			happens: func(w *world) { w.update(UpdateTransmitNow, 0) },
			asked:   true,
			counts:  3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.opened.AttemptsMade, w.opened.DeliveriesMade, w.opened.Due = 2, 2, w.env.Now().Add(due)
			w.post = []error{eCWAway, nil}
			if tc.happens != nil {
				tc.happens(w)
			}
			started := w.env.Now()
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			first := w.attempts[0]
			if waited := first.StartedAt.Sub(started); waited < tc.begins || waited > tc.begins+time.Second {
				t.Errorf("begins after %s, want %s", waited, tc.begins)
			}
			if first.Asked != tc.asked || first.Number != 3 || w.outcomes[0].AttemptCount != tc.counts {
				t.Errorf("begins as %+v, asked %t, and leaves %d attempts, want %d", first, first.Asked, w.outcomes[0].AttemptCount, tc.counts)
			}
		})
	}
}

func TestATransmissionThatIsDueLaterCanBeCancelled(t *testing.T) {
	t.Parallel()
	for name, cancel := range map[string]func(*testsuite.TestWorkflowEnvironment){
		"by the signal":                func(env *testsuite.TestWorkflowEnvironment) { env.SignalWorkflow(SignalCancel, nil) },
		"by Temporal's cancel request": (*testsuite.TestWorkflowEnvironment).CancelWorkflow,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.opened.Due = w.env.Now().Add(time.Hour)
			w.env.RegisterDelayedCallback(func() { cancel(w.env) }, time.Minute)
			w.cancelled(t)
			if len(w.asked) != 0 || w.outcomes[0].FinishedAt.After(w.opened.Due) {
				t.Errorf("%d deliveries, recorded %+v", len(w.asked), w.outcomes)
			}
		})
	}
}

// A place is kept for a transmission that is called, and its workflow may have been lost meanwhile.
func TestACallThatStartsAHeldTransmission(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.call(0, gate.Call{Wait: 30 * time.Second})
	started := w.env.Now()
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if waited := w.attempts[0].StartedAt.Sub(started); waited != 30*time.Second {
		t.Errorf("begins after %s, want when the limit has room for it", waited)
	}
}
