package worker

import (
	"context"
	"errors"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/db"
)

// TypeInternal is the type of an activity's error that Temporal retries and that says nothing about eCW: the database was
// away, or refused a statement.
const TypeInternal = "internal"

// discreet keeps raw errors out of the histories: those of pgx name the host and the user of the database, those of
// PostgreSQL and of encoding/json repeat what was stored. What an activity words itself passes.
type discreet struct {
	interceptor.WorkerInterceptorBase
}

// InterceptActivity is the SDK's hook.
func (d *discreet) InterceptActivity(
	_ context.Context, next interceptor.ActivityInboundInterceptor,
) interceptor.ActivityInboundInterceptor {
	return &reworded{interceptor.ActivityInboundInterceptorBase{Next: next}}
}

type reworded struct {
	interceptor.ActivityInboundInterceptorBase
}

// ExecuteActivity is the SDK's hook.
func (r *reworded) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	result, err := r.Next.ExecuteActivity(ctx, in)
	var worded *temporal.ApplicationError
	switch {
	case err == nil, temporal.IsCanceledError(err):
		return result, err
	case errors.Is(err, context.Canceled): // which the SDK knows
		return nil, context.Canceled
	case errors.As(err, &worded):
		return result, worded
	}
	activity.GetLogger(ctx).Debug("an activity failed", "error", err)
	return nil, temporal.NewApplicationError(activity.GetInfo(ctx).ActivityType.Name+": "+db.Cause(err), TypeInternal)
}
