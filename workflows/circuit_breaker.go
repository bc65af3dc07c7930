package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/gate"
)

// SignalTryNow has the CircuitBreaker let the next trial through now: somebody has fixed what was wrong. Its argument is a
// Request.
const SignalTryNow = "try now"

const (
	firstTrialAfter = 30 * time.Second // then twice as long each time,
	longestTrialGap = 5 * time.Minute  // up to this
	trialCheck      = 5 * time.Second  // how often to look for a trial's outcome
	trialPatience   = 8 * time.Minute  // longer than a delivery may take
)

// CircuitBreakerWorkflowID is the id of the one workflow that looks after a practice's open circuit.
func CircuitBreakerWorkflowID(practice string) string { return "circuit/" + practice }

// CircuitBreaker runs while the circuit of a practice is not closed. Now and then it lets one waiting transmission
// through; once one of those has closed the circuit, it releases all that wait, first in, first out.
func CircuitBreaker(ctx workflow.Context, practice string) error {
	err := (&breaker{practice: practice}).attend(ctx)
	for workflow.GetSignalChannel(ctx, SignalTryNow).ReceiveAsync(nil) { // the SDK would warn of what nobody took
	}
	return err
}

type breaker struct {
	do       *activities.Circuit // nil: it only names the methods
	practice string
	since    time.Time // when the outage began
	asked    Request   // who wanted the last trial; "" when it was due
}

func (b *breaker) attend(ctx workflow.Context) error {
	tryNow := workflow.GetSignalChannel(ctx, SignalTryNow)
	for gap := firstTrialAfter; ; gap = min(2*gap, longestTrialGap) {
		state, err := b.look(ctx)
		if err != nil {
			return err
		}
		if state.State == gate.Closed {
			return b.release(ctx)
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return workflow.NewContinueAsNewError(ctx, CircuitBreaker, b.practice)
		}
		if err := b.await(ctx, gap, state, tryNow); err != nil {
			return err
		}
		tried, err := b.try(ctx)
		if err != nil {
			return err
		}
		if !tried && !b.mayBeTried(ctx) {
			return nil
		}
	}
}

func (b *breaker) look(ctx workflow.Context) (state activities.CircuitState, err error) {
	err = workflow.ExecuteActivity(untilDone(ctx, "look at the circuit"), b.do.LookAtCircuit, b.practice).Get(ctx, &state)
	if !state.FailingSince.IsZero() {
		b.since = state.FailingSince
	}
	return state, err
}

// await waits until the next trial is due.
func (b *breaker) await(ctx workflow.Context, gap time.Duration, state activities.CircuitState, tryNow workflow.ReceiveChannel) error {
	plan := activities.TrialPlan{PracticeCode: b.practice, Wait: gap}
	if err := workflow.ExecuteActivity(untilDone(ctx, "plan the next trial"), b.do.PlanTrial, plan).Get(ctx, nil); err != nil {
		return err
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("### Circuit open: %s\n\n%s\n\nSince **%s**. %d transmissions are held; one is tried about **%s**. Signal `%s` tries now.",
		state.Reason, state.Message, b.since.Format(timeForm), state.Held, workflow.Now(ctx).Add(gap).Format(timeForm), SignalTryNow))
	b.asked = Request{}
	timer, cancel := workflow.WithCancel(ctx)
	defer cancel()
	workflow.NewSelector(ctx).
		AddFuture(workflow.NewTimerWithOptions(timer, gap, workflow.TimerOptions{Summary: "until the next trial"}), func(workflow.Future) {}).
		AddReceive(tryNow, func(c workflow.ReceiveChannel, _ bool) { c.Receive(ctx, &b.asked) }).
		Select(ctx)
	return ctx.Err()
}

// try lets one transmission through and waits for its outcome. It reports whether one waited.
func (b *breaker) try(ctx workflow.Context) (found bool, err error) {
	err = workflow.ExecuteActivity(untilDone(ctx, "let one through"), b.do.StartTrial, b.practice).Get(ctx, &found)
	if err != nil || !found {
		return false, err
	}
	workflow.SetCurrentDetails(ctx, "### Trying one\n\nIf eCW takes it, everything that waits goes on."+b.asked.details())
	for waited := time.Duration(0); waited < trialPatience; waited += trialCheck {
		if err := workflow.Sleep(ctx, trialCheck); err != nil {
			return true, err
		}
		state, err := b.look(ctx)
		if err != nil || state.State != gate.HalfOpen {
			return true, err
		}
	}
	return true, nil
}

// mayBeTried is false when nobody waits and the next to come is the trial, which starts a CircuitBreaker again. It is true
// when a person's own try has decided meanwhile.
func (b *breaker) mayBeTried(ctx workflow.Context) bool {
	state, err := b.look(ctx)
	return err == nil && state.State != gate.HalfOpen
}

// release lets everything go on that waits. The delivery that closed the circuit does that too, unless it was lost in
// between.
func (b *breaker) release(ctx workflow.Context) error {
	workflow.SetCurrentDetails(ctx, "### Circuit closed\n\nWhat waited goes on, first in, first out.")
	outage := activities.Outage{PracticeCode: b.practice, Since: b.since}
	return workflow.ExecuteActivity(untilDone(ctx, "release what waited"), b.do.Release, outage).Get(ctx, nil)
}

// attendCircuit makes sure that a practice's CircuitBreaker runs, and that it learns at once of a circuit that has closed.
// Errors mean that it runs already, or has just ended, or that the next sweep has to see to it.
func attendCircuit(ctx workflow.Context, practice string, recorded activities.Recorded) {
	if !recorded.CircuitUnsettled {
		return
	}
	startCircuitBreaker(ctx, practice)
	if recorded.CircuitClosed {
		_ = workflow.SignalExternalWorkflow(ctx, CircuitBreakerWorkflowID(practice), "", SignalTryNow, nil).Get(ctx, nil)
	}
}

func startCircuitBreaker(ctx workflow.Context, practice string) {
	child := CircuitBreakerStart(practice).child(ctx)
	_ = workflow.ExecuteChildWorkflow(child, CircuitBreaker, practice).GetChildWorkflowExecution().Get(ctx, nil)
}
