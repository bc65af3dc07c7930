package worker

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
)

// ReportTime is what a worker that stops leaves for telling Temporal how its last activities ended.
const ReportTime = 5 * time.Second

// errStopping is why the context of an activity ends when its worker has to.
var errStopping = errors.New("the worker stops")

// drainer ends the activities of a worker that stops, a while after it was told to. The SDK would cut them off only as it
// returns, when nobody is left to report: a delivery would then hang until its heartbeat is missed. Ended this way, Post
// says at once that its outcome is unknown, and the next delivery, by another worker, asks eCW first.
type drainer struct {
	interceptor.WorkerInterceptorBase
	after time.Duration
}

// InterceptActivity is the SDK's hook.
func (d *drainer) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &drained{interceptor.ActivityInboundInterceptorBase{Next: next}, d.after}
}

type drained struct {
	interceptor.ActivityInboundInterceptorBase
	after time.Duration
}

// ExecuteActivity is the SDK's hook.
func (d *drained) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	stopping := activity.GetWorkerStopChannel(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-stopping:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(d.after):
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	return d.Next.ExecuteActivity(ctx, in)
}
