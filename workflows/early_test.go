package workflows

import (
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// call tells the transmission after a while that it may go.
func (w *world) call(after time.Duration, call gate.Call) {
	w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(SignalProceed, call) }, after)
}

var (
	eCWAway    = refusal(ecw.ClassRetryable, activities.Failure{Code: "connect", Message: "eCW is away", Finding: gate.Unavailable})
	eCWBusy    = refusal(ecw.ClassRetryable, activities.Failure{Code: "409", HTTPStatus: 409, Message: "eCW is at it already"})
	eCWForbids = refusal(ecw.ClassPermanentCredentials, activities.Failure{Code: "403", HTTPStatus: 403})
	workerLost = temporal.NewApplicationError("boom", "PanicError")
	eCWBroken  = refusal(ecw.ClassUnknown, activities.Failure{Code: "timeout", Message: "eCW did not answer", Finding: gate.Unavailable})
)

func forgotten() error {
	return temporal.NewNonRetryableApplicationError("not in the database", activities.TypeForgotten, nil)
}

// counts lists the attempts that each outcome was recorded with.
func (w *world) counts() (list []int) {
	for _, out := range w.outcomes {
		list = append(list, out.AttemptCount)
	}
	return list
}

// A release or a trial brings a delivery forward; what that finds must not shorten the schedule.
func TestADeliveryThatIsBroughtForward(t *testing.T) {
	t.Parallel()
	const brought = 2 * time.Minute // before the first retry, which comes after 5 to 5½ minutes
	for name, tc := range map[string]struct {
		found  error
		trial  bool
		counts []int
		// next is how long after the outcome the next delivery begins; 0: when the schedule had said.
		next time.Duration
	}{
		"finds eCW away":                     {found: eCWAway, counts: []int{1, 1, 2}},
		"finds eCW away, as the trial":       {found: eCWAway, trial: true, counts: []int{1, 1, 2}},
		"has an unknown outcome":             {found: eCWTimeout, counts: []int{1, 1, 2}, next: 5 * time.Minute},
		"has an unknown outcome, as a trial": {found: eCWBroken, trial: true, counts: []int{1, 1, 2}, next: 5 * time.Minute},
		"loses its worker":                   {found: workerLost, counts: []int{1, 1, 2}, next: 5 * time.Minute},
		"is answered by eCW":                 {found: eCWBusy, counts: []int{1, 2, 3}, next: 15 * time.Minute},
		"is answered by eCW, as the trial":   {found: eCWBusy, trial: true, counts: []int{1, 2, 3}, next: 15 * time.Minute},
		"cannot look up, and eCW is away":    {found: lookUpFailed(false), counts: []int{1, 1, 2}},
		"cannot look up, alone":              {found: lookUpFailed(true), counts: []int{1, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.admit = []activities.Admission{{}, {Trial: tc.trial}, {}}
			w.post = []error{eCWBusy, tc.found, nil}
			w.call(brought, gate.Call{})
			started := w.env.Now()
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			if len(w.attempts) != 3 || w.attempts[1].StartedAt.Sub(started) > brought+time.Second {
				t.Fatalf("delivered %+v, want the second one after %s", w.attempts, brought)
			}
			if got := w.counts(); !slices.Equal(got, tc.counts) {
				t.Errorf("attempts after each delivery: %v, want %v", got, tc.counts)
			}
			out := w.outcomes[1]
			if out.Held || out.NextRetryAt == nil {
				t.Fatalf("recorded %+v, want a moment for the next one", out)
			}
			want, most := *w.outcomes[0].NextRetryAt, *w.outcomes[0].NextRetryAt
			if tc.next > 0 {
				want = out.FinishedAt.Add(tc.next)
				most = want
			}
			if out.AttemptCount > 1 {
				most = want.Add(tc.next / 10)
			}
			if out.NextRetryAt.Before(want) || out.NextRetryAt.After(most) {
				t.Errorf("the next one comes at %s, want %s to %s", out.NextRetryAt, want, most)
			}
			if late := w.attempts[2].StartedAt.Sub(*out.NextRetryAt); late < 0 || late > time.Second {
				t.Errorf("the next one begins %s after its moment", late)
			}
		})
	}
}

// What eCW answers early is an attempt like any other: the schedule goes on from there, also where it had given a later moment.
func TestAnEarlyAnswerMovesTheSchedule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opened.RetryDelays = []time.Duration{40 * time.Minute, 5 * time.Minute, time.Minute}
	w.post = []error{eCWBusy, eCWBusy, eCWAway, nil}
	w.call(time.Minute, gate.Call{})
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if got := w.counts(); !slices.Equal(got, []int{1, 2, 3, 4}) {
		t.Errorf("attempts after each delivery: %v, want the third one to be due, and to count", got)
	}
}

func lookUpFailed(alone bool) error {
	return refusal(ecw.ClassRetryable, activities.Failure{
		Code:      "connect",
		Message:   "eCW is away",
		Finding:   gate.Unavailable,
		LookingUp: true,
		Alone:     alone,
	})
}

func TestATrialThatIsDue(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		found  error
		counts []int
		held   bool
	}{
		"finds eCW away":         {found: eCWAway, counts: []int{0, 1}, held: true},
		"has an unknown outcome": {found: eCWBroken, counts: []int{0, 1}},
		"is answered by eCW":     {found: eCWBusy, counts: []int{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.admit = []activities.Admission{{Trial: true}, {}}
			w.post = []error{tc.found, nil}
			w.call(20*time.Minute, gate.Call{})
			started := w.env.Now()
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			if got := w.counts(); !slices.Equal(got, tc.counts) || w.outcomes[0].Held != tc.held {
				t.Errorf("attempts after each delivery: %v, want %v; held %t, want %t", got, tc.counts, w.outcomes[0].Held, tc.held)
			}
			waited := w.attempts[1].StartedAt.Sub(started)
			if early := 5 * time.Minute; !tc.held && (waited < early || waited > early+early/10+time.Second) {
				t.Errorf("the next one begins after %s, want the schedule's first wait", waited)
			}
			if tc.held && waited != 20*time.Minute {
				t.Errorf("the next one begins after %s, want when it is called", waited)
			}
		})
	}
}

// The search is no delivery: while eCW is away nothing is used up. A search that fails for this reading alone must end
// some time.
func TestALookUpThatFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		alone bool
		want  []int
	}{
		"with everything else": {want: []int{1, 1, 1, 1, 2}},
		"alone":                {alone: true, want: []int{1, 2, 3, 4, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			failed := lookUpFailed(tc.alone)
			w.post = []error{eCWTimeout, failed, failed, failed, nil}
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			if got := w.counts(); !slices.Equal(got, tc.want) {
				t.Fatalf("attempts after each delivery: %v, want %v", got, tc.want)
			}
			for _, out := range w.outcomes[1:4] {
				wait := out.NextRetryAt.Sub(out.FinishedAt)
				least := documentedDelays[0]
				if tc.alone {
					least = documentedDelays[out.AttemptCount-1]
				}
				if wait < least || wait > least+least/10 {
					t.Errorf("with %d attempts made it waits %s, want %s and a little", out.AttemptCount, wait, least)
				}
			}
		})
	}
}

func TestWhatIsNotVisibleYetIsLookedUpLater(t *testing.T) {
	t.Parallel()
	for name, visible := range map[string]time.Duration{"before its retry is due": time.Minute, "after that": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			at := w.env.Now().Add(visible)
			hidden := activities.Failure{Code: activities.CodeNotVisibleYet, HTTPStatus: 200, RetryAt: at, LookingUp: true}
			w.post = []error{eCWTimeout, refusal(ecw.ClassUnknown, hidden), nil}
			w.call(30*time.Second, gate.Call{})
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			if got := w.counts(); !slices.Equal(got, []int{1, 1, 2}) {
				t.Errorf("attempts after each delivery: %v: nothing was sent by the second", got)
			}
			if got, want := *w.outcomes[1].NextRetryAt, latest(at, *w.outcomes[0].NextRetryAt); !got.Equal(want) {
				t.Errorf("looked up again at %s, want %s", got, want)
			}
		})
	}
}

// The gate sends back what was brought forward and finds no place any more.
func TestADeliveryThatGoesBackToItsMoment(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]struct {
		failed error
		least  time.Duration
	}{
		"after an attempt":          {failed: eCWAway, least: 5 * time.Minute},
		"after a look-up":           {failed: lookUpFailed(false), least: 5 * time.Minute},
		"after eCW forbade it once": {failed: eCWForbids, least: 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.post = []error{first.failed, nil}
			w.admit = []activities.Admission{{}, {Scheduled: true}, {}}
			w.call(time.Minute, gate.Call{})
			started := w.env.Now()
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			if len(w.asked) != 3 || w.asked[1].StartedAt.Sub(started) != time.Minute {
				t.Fatalf("asked for admission as %+v, want the second time after a minute", w.asked)
			}
			if got, want := w.asked[2].StartedAt, *w.outcomes[0].NextRetryAt; got.Before(want) || got.Sub(want) > time.Second {
				t.Errorf("asked again at %s, want %s", got, want)
			}
			if w.asked[2].Delivery != 2 || w.asked[2].Number != w.asked[1].Number {
				t.Errorf("asked as %+v, want the same delivery and attempt", w.asked[2])
			}
		})
	}
}

// A reading that eCW forbids between two attempts must not come back before the schedule's wait, and use up another.
func TestAForbiddenDeliveryDoesNotShortenTheSchedule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opened.AttemptsMade, w.opened.DeliveriesMade = 3, 3 // two hours follow the fourth
	w.post = []error{eCWBusy, eCWForbids, eCWAway, nil}
	w.call(time.Minute, gate.Call{})
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if got := w.counts(); !slices.Equal(got, []int{4, 4, 4, 5}) {
		t.Errorf("attempts after each delivery: %v, want the third one to cost none: it is before its time", got)
	}
	if got, want := *w.outcomes[2].NextRetryAt, *w.outcomes[0].NextRetryAt; !got.Equal(want) {
		t.Errorf("it goes back to %s, want %s", got, want)
	}
}

// Our own limits hold a delivery back that had begun: it waits like one that had not.
func TestADeliveryThatIsHeldBack(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*world, error){
		"in Authenticate": func(w *world, err error) { w.auth = []error{nil, err, nil} },
		"in Post":         func(w *world, err error) { w.post = []error{eCWBusy, err, nil} },
	} {
		for wait, admission := range map[string]gate.Admission{"in the queue": {Held: true}, "until it is due": {Scheduled: true}} {
			t.Run(name+", waits "+wait, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.post = []error{eCWBusy, nil}
				set(w, refusal(activities.TypeNotSent, activities.Failure{Code: ecw.CodeRateLimited, HeldBack: &admission}))
				w.call(time.Minute, gate.Call{}) // brings the second one forward
				w.call(4*time.Minute, gate.Call{Wait: 30 * time.Second})
				started := w.env.Now()
				if _, err := w.run(t); err != nil {
					t.Fatal(err)
				}
				if len(w.outcomes) != 2 || w.outcomes[1].AttemptCount != 2 || len(w.attempts) != 3 || w.attempts[2].Delivery != 2 {
					t.Fatalf("recorded %+v of %+v, want no outcome of the one that was held back", w.outcomes, w.attempts)
				}
				if got := w.attempts[2].StartedAt.Sub(started); got != 4*time.Minute+30*time.Second {
					t.Errorf("it begins after %s, want when the limit has room for it", got)
				}
			})
		}
	}
}

func TestHeldIsAskedAgainWhenTheCallIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.admit = []activities.Admission{{Held: true}, {}}
	started := w.env.Now()
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if got := w.attempts[0].StartedAt.Sub(started); got < heldRecheck || got > heldRecheck+time.Second || w.attempts[0].Number != 1 {
		t.Errorf("begins after %s as %+v", got, w.attempts[0])
	}
}

// Refused credentials are no fault of the reading: it waits in the queue, unless eCW takes others with them.
func TestRefusedCredentials(t *testing.T) {
	t.Parallel()
	refusesUs := refusal(ecw.ClassPermanentCredentials, activities.Failure{Code: "401", HTTPStatus: 401, Finding: gate.Refuses})
	for name, set := range map[string]func(*world){
		"no token":                func(w *world) { w.auth = []error{eCWForbids, nil} },
		"a token that it refuses": func(w *world) { w.post = []error{refusesUs, nil} },
		"forbidden as the trial": func(w *world) {
			w.admit = []activities.Admission{{Trial: true}, {}}
			w.post = []error{eCWForbids, nil}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			set(w)
			w.call(time.Minute, gate.Call{})
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			if got := w.counts(); !slices.Equal(got, []int{0, 1}) || !w.outcomes[0].Held || w.outcomes[0].NextRetryAt != nil {
				t.Errorf("attempts after each delivery: %v, recorded %+v", got, w.outcomes[0])
			}
		})
	}

	t.Run("forbidden again and again", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.post = []error{eCWForbids}
		if _, err := w.run(t); err == nil {
			t.Fatal("delivered")
		}
		if got := w.counts(); !slices.Equal(got, []int{0, 0, 1}) || w.outcomes[2].NextRetryAt != nil {
			t.Fatalf("attempts after each delivery: %v, recorded %+v", got, w.outcomes)
		}
		for i, out := range w.outcomes[:2] {
			if wait := out.NextRetryAt.Sub(out.FinishedAt); wait < documentedDelays[i] || wait > documentedDelays[i]*11/10 {
				t.Errorf("after the refusal %d it waits %s, want %s and a little", i+1, wait, documentedDelays[i])
			}
		}
	})
}
