package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
)

const (
	notSentPause  = 10 * time.Second // before a delivery begins again that never left us
	unopenedPause = time.Minute      // before workers are asked again that lacked the key: they read it again every minute
	throttlePause = time.Second      // at least, when eCW names no later moment
	heldRecheck   = time.Hour        // one in the queue that nobody called asks again
	// maxRefusals is how often eCW may refuse our credentials at one reading, while it takes others, before that is held
	// to be the reading's fault.
	maxRefusals = 3
)

// untilDone suits an activity that only needs our database and may run twice: Temporal repeats it through every fault of
// ours (a database that is down, a lost worker). No statement runs longer than 15 s.
func untilDone(ctx workflow.Context, summary string) workflow.Context {
	return untilDoneWithin(ctx, 20*time.Second, summary)
}

// untilAuthenticated is untilDone for an activity that also asks eCW for a token. What eCW refuses is a non-retryable
// error, and comes back at once.
func untilAuthenticated(ctx workflow.Context, summary string) workflow.Context {
	return untilDoneWithin(ctx, time.Minute, summary)
}

func untilDoneWithin(ctx workflow.Context, limit time.Duration, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: limit,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute},
		Summary:             summary,
	})
}

// inThisTask suits Deliver, which the worker runs itself before it answers Temporal, once. A send is never cut short: while
// eCW takes its time, the SDK keeps the workflow task alive.
func inThisTask(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout: 6 * time.Minute,
		RetryPolicy:         &temporal.RetryPolicy{MaximumAttempts: 1},
		Summary:             summary,
	})
}

// once suits Post: Temporal must not repeat it, for whether eCW got a reading is looked up before it is sent again. The
// time covers a look-up and a create with everything that each may need, at the client's limit of 30 s a request.
func once(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 6 * time.Minute,
		HeartbeatTimeout:    4 * activities.HeartbeatInterval,
		RetryPolicy:         &temporal.RetryPolicy{MaximumAttempts: 1},
		Summary:             summary,
	})
}
