package api_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"

	"github.com/vantrexia/vantrexia/workflows"
)

// slowly holds the answers back that bring a workflow's first task along.
func slowly(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if answer, ok := reply.(*workflowservice.StartWorkflowExecutionResponse); ok && answer.GetEagerWorkflowTask() != nil {
		select {
		case <-time.After(4 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// Temporal takes its time to answer a start, and the answer holds the workflow's first task. The caller does not wait for
// it, and the task is not lost: Temporal would give it to a worker again after ten seconds only.
func TestASlowStartKeepsItsFirstTask(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{intercept: slowly})
	reading := weight(s.patient(kevin))
	began := time.Now()
	id := s.do("POST", "/api/v1/observations/", reading).want(t, http.StatusCreated, "").text("id")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the caller waited %s", took)
	}

	s.awaitDelivered(1)
	events := s.temporal.GetWorkflowHistory(t.Context(), workflows.TransmissionWorkflowID(uuid.MustParse(id)), "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	eager := false
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		eager = eager || event.GetWorkflowExecutionStartedEventAttributes().GetEagerExecutionAccepted()
		if event.GetEventType() == enums.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT {
			t.Error("the first workflow task was lost")
		}
	}
	if !eager {
		t.Error("the start brought no workflow task along")
	}
}
