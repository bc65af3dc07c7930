package workflows

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/gate"
)

// outage stands in for the activities of the circuit breaker: a circuit that opened, and those that wait for it. The
// real activities run in the tests of packages gate and worker.
type outage struct {
	env *testsuite.TestWorkflowEnvironment

	mu         sync.Mutex
	away       int // so many looks find the database away
	state      string
	since      time.Time
	held       int
	fail       int           // so many trials fail, then one closes the circuit
	answers    time.Duration // how long a trial takes; 0: it never answers
	plans      []time.Duration
	trials     []time.Time
	releases   []activities.Outage
	releasedAt time.Time
}

func newOutage() *outage {
	o := &outage{env: newEnvironment(), state: gate.Open, held: 3, answers: time.Second}
	o.since = o.env.Now().Add(-time.Minute).UTC().Round(0)
	o.env.RegisterActivity(o.LookAtCircuit)
	o.env.RegisterActivity(o.PlanTrial)
	o.env.RegisterActivity(o.StartTrial)
	o.env.RegisterActivity(o.Release)
	return o
}

func (o *outage) LookAtCircuit(context.Context, string) (activities.CircuitState, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away > 0 {
		o.away--
		return activities.CircuitState{}, errors.New("the database is away")
	}
	state := activities.CircuitState{State: o.state, Held: int64(o.held)}
	if o.state != gate.Closed {
		state.Reason, state.FailingSince = gate.ReasonUnavailable, o.since
	}
	return state, nil
}

func (o *outage) PlanTrial(_ context.Context, plan activities.TrialPlan) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.plans = append(o.plans, plan.Wait)
	return nil
}

func (o *outage) StartTrial(context.Context, string) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == gate.Closed {
		return false, nil
	}
	o.trials = append(o.trials, o.env.Now())
	o.state = gate.HalfOpen
	if o.held == 0 {
		return false, nil
	}
	n := len(o.trials)
	if o.answers > 0 {
		o.env.RegisterDelayedCallback(func() { o.answer(n) }, o.answers)
	}
	return true, nil
}

// answer is the outcome of a trial.
func (o *outage) answer(trial int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = gate.Open
	if trial > o.fail {
		o.state = gate.Closed
	}
}

func (o *outage) Release(_ context.Context, over activities.Outage) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.releases = append(o.releases, over)
	o.releasedAt = o.env.Now()
	o.held = 0
	return nil
}

func (o *outage) run(t *testing.T) error {
	t.Helper()
	o.env.ExecuteWorkflow(CircuitBreaker, "FFHEDD")
	if !o.env.IsWorkflowCompleted() {
		t.Fatal("the workflow has not ended")
	}
	return o.env.GetWorkflowError()
}

// end runs it to an end that is none for want of anything to do.
func (o *outage) end(t *testing.T) {
	t.Helper()
	if err := o.run(t); err != nil {
		t.Fatalf("ended with %v", err)
	}
}

func TestTrialsComeAtGrowingIntervals(t *testing.T) {
	t.Parallel()
	o := newOutage()
	o.fail = 7
	began := o.env.Now()
	o.end(t)
	const s, m = time.Second, time.Minute
	want := []time.Duration{30 * s, m, 2 * m, 4 * m, 5 * m, 5 * m, 5 * m, 5 * m}
	if !slices.Equal(o.plans, want) {
		t.Errorf("trials are announced after %s, want %s", o.plans, want)
	}
	if len(o.trials) != len(want) {
		t.Fatalf("%d trials, want %d", len(o.trials), len(want))
	}
	for i, at := range o.trials {
		if gap := at.Sub(began); gap < want[i] || gap > want[i]+2*s {
			t.Errorf("trial %d comes %s after the last one's outcome, want %s", i+1, gap, want[i])
		}
		began = at.Add(trialCheck) // when its outcome is seen
	}
	if want := (activities.Outage{PracticeCode: "FFHEDD", Since: o.since}); !slices.Equal(o.releases, []activities.Outage{want}) {
		t.Errorf("released %+v, want once those that failed since %s", o.releases, o.since)
	}
	if took := o.releasedAt.Sub(o.trials[7]); took < 0 || took > 2*trialCheck {
		t.Errorf("released %s after the trial that closed the circuit", took)
	}
}

func TestTryNow(t *testing.T) {
	t.Parallel()
	o := newOutage()
	o.fail = 5
	began := o.env.Now()
	// In the wait of five minutes after the fifth trial.
	o.env.RegisterDelayedCallback(func() { o.env.SignalWorkflow(SignalTryNow, nil) }, 14*time.Minute)
	o.end(t)
	if len(o.trials) != 6 {
		t.Fatalf("%d trials, want 6", len(o.trials))
	}
	if at := o.trials[5].Sub(began); at < 14*time.Minute || at > 14*time.Minute+time.Second {
		t.Errorf("tried after %s, want at once after 14m", at)
	}
}

// A signal that comes while a trial is under way asks for the next one: the last may have begun too early.
func TestTryNowDuringATrial(t *testing.T) {
	t.Parallel()
	o := newOutage()
	o.fail = 1
	began := o.env.Now()
	o.env.RegisterDelayedCallback(func() { o.env.SignalWorkflow(SignalTryNow, nil) }, firstTrialAfter+500*time.Millisecond)
	o.end(t)
	if len(o.trials) != 2 || o.trials[1].Sub(began) > firstTrialAfter+2*trialCheck {
		t.Errorf("trials at %s, want the second one right after the first", o.trials)
	}
}

// Its worker may be lost, or somebody has ended it: another one is tried.
func TestATrialThatNeverAnswers(t *testing.T) {
	t.Parallel()
	o := newOutage()
	o.answers = 0
	o.env.RegisterDelayedCallback(func() { o.answer(1) }, 25*time.Minute)
	o.end(t)
	if len(o.trials) < 3 {
		t.Fatalf("%d trials, want another one whenever one does not answer", len(o.trials))
	}
	for i, at := range o.trials[1:] {
		if gap := at.Sub(o.trials[i]); gap < trialPatience || gap > trialPatience+longestTrialGap {
			t.Errorf("trial %d comes %s after the one before, want after %s at least", i+2, gap, trialPatience)
		}
	}
}

func TestNobodyWaits(t *testing.T) {
	t.Parallel()
	o := newOutage()
	o.held = 0
	o.end(t)
	if len(o.trials) != 1 || len(o.releases) != 0 || o.state != gate.HalfOpen {
		t.Errorf("%d trials, %d releases, circuit %s: want it to leave the circuit to the next to come", len(o.trials), len(o.releases), o.state)
	}
}

func TestAClosedCircuitIsReleasedAtOnce(t *testing.T) {
	t.Parallel()
	o := newOutage()
	o.state = gate.Closed // by somebody who was faster
	o.end(t)
	if want := (activities.Outage{PracticeCode: "FFHEDD"}); !slices.Equal(o.releases, []activities.Outage{want}) {
		t.Errorf("released %+v, want only those that are held: since when eCW failed is not known any more", o.releases)
	}
	if len(o.plans) != 0 || len(o.trials) != 0 {
		t.Errorf("%d trials are planned and %d made", len(o.plans), len(o.trials))
	}
}

// A person's own try has closed the circuit, and its transmission tells the circuit breaker.
func TestSomebodyElseClosesTheCircuit(t *testing.T) {
	t.Parallel()
	o := newOutage()
	began := o.env.Now()
	o.env.RegisterDelayedCallback(func() {
		o.answer(1)
		o.env.SignalWorkflow(SignalTryNow, nil)
	}, 10*time.Second)
	o.end(t)
	want := []activities.Outage{{PracticeCode: "FFHEDD", Since: o.since}}
	if len(o.trials) != 0 || !slices.Equal(o.releases, want) {
		t.Errorf("%d trials, released %+v", len(o.trials), o.releases)
	}
	if took := o.releasedAt.Sub(began); took > 11*time.Second {
		t.Errorf("released after %s, want at once after 10s", took)
	}
}

func TestALongOutageContinuesAsNew(t *testing.T) {
	t.Parallel()
	o := newOutage()
	o.fail = 1000
	o.env.RegisterDelayedCallback(func() { o.env.SetContinueAsNewSuggested(true) }, 6*time.Hour)
	err := o.run(t)
	if !workflow.IsContinueAsNewError(err) || len(o.trials) < 60 || len(o.releases) != 0 {
		t.Errorf("ended with %v after %d trials, want it to continue as new", err, len(o.trials))
	}
}

func TestAnOutageOfTheDatabaseEndsNoCircuitBreaker(t *testing.T) {
	t.Parallel()
	o := newOutage()
	o.away = 3
	o.end(t)
	if len(o.trials) != 1 || o.held != 0 {
		t.Errorf("%d trials, %d still held", len(o.trials), o.held)
	}
}
