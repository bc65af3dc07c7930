package worker

import (
	"context"
	"fmt"
	"reflect"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/activities"
)

// TypeForeignPractice is the type of the error that refuses an activity of another practice.
const TypeForeignPractice = "foreign_practice"

// guard refuses the work of other practices, so that no reading reaches the chart of another practice's patient, whatever
// was started on the wrong queue or under the wrong practice code. A worker of that practice does it when it is tried again.
type guard struct {
	interceptor.WorkerInterceptorBase
	practice string
}

// InterceptActivity is the SDK's hook.
func (g *guard) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &guarded{interceptor.ActivityInboundInterceptorBase{Next: next}, g.practice}
}

type guarded struct {
	interceptor.ActivityInboundInterceptorBase
	practice string
}

// ExecuteActivity is the SDK's hook.
func (g *guarded) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	for _, arg := range in.Args {
		if practice := practiceOf(arg); practice != g.practice {
			return nil, foreign(activity.GetInfo(ctx).ActivityType.Name, practice, g.practice)
		}
	}
	return g.Next.ExecuteActivity(ctx, in)
}

// practiceOf is the practice that an activity's input names: the input itself, or its PracticeCode.
func practiceOf(input any) string {
	v := reflect.Indirect(reflect.ValueOf(input))
	if v.Kind() == reflect.Struct {
		v = v.FieldByName("PracticeCode")
	}
	if v.Kind() != reflect.String {
		return ""
	}
	return v.String()
}

func foreign(activityName, theirs, ours string) error {
	message := fmt.Sprintf("the work is of practice %q, and this worker serves %q: start a worker with ECW_PRACTICE_CODE=%s", theirs, ours, theirs)
	if activityName == "Post" { // which Temporal does not try again by itself
		return temporal.NewNonRetryableApplicationError(message, activities.TypeNotSent, nil)
	}
	return temporal.NewApplicationError(message, TypeForeignPractice)
}
