package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
)

// pause is what a transmission waits for between two deliveries.
type pause struct {
	until   time.Time
	summary string // of the timer
}

// held waits in the queue. The time is only for a call that was lost with somebody's data: it then asks again.
func (t *transmission) held(ctx workflow.Context) *pause {
	return &pause{until: workflow.Now(ctx).Add(heldRecheck), summary: "in the queue before eCW"}
}

// wait returns at the given moment, when it is called and the request limit has room for it, or as soon as somebody says
// "transmit now" or cancels.
func (t *transmission) wait(ctx workflow.Context, p pause) {
	for {
		_, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
			Timeout:      p.until.Sub(workflow.Now(ctx)),
			TimerOptions: workflow.TimerOptions{Summary: p.summary},
		}, func() bool { return t.transmitNow || t.cancelled || t.called != nil })
		if err != nil || t.called == nil || t.transmitNow || t.cancelled { // its error is ctx's, which run looks at
			return
		}
		p = pause{until: workflow.Now(ctx).Add(t.called.Wait), summary: "until eCW's request limit has room for it"}
		t.called = nil
		if p.until.After(workflow.Now(ctx)) {
			_ = t.showScheduled(ctx, db.StatusPending, p.until) // fails only for a value that cannot be encoded
		}
	}
}

// retrySummary labels the timer: "retry 3 of 5 after eCW timeout".
func (t *transmission) retrySummary(out activities.Outcome) string {
	if out.Failure.Class == ecw.ClassThrottled {
		return "until eCW takes requests again"
	}
	if out.Failure.Code == activities.CodeNotVisibleYet {
		return "until eCW shows what an earlier delivery has left"
	}
	return fmt.Sprintf("retry %d of %d after eCW %s", t.attempt, t.opened.MaxAttempts-1, out.Failure.Code)
}
