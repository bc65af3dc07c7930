package worker_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

// beforePost does something once when a worker has been given a Post, before it begins.
type beforePost struct {
	once sync.Once
	do   func()
}

func (b *beforePost) intercept(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	var given []*workflowservice.PollActivityTaskQueueResponse
	switch reply := reply.(type) {
	case *workflowservice.PollActivityTaskQueueResponse:
		given = append(given, reply)
	case *workflowservice.RespondWorkflowTaskCompletedResponse: // the server may hand out an activity at once
		given = reply.GetActivityTasks()
	}
	for _, task := range given {
		if task.GetActivityType().GetName() == "Post" {
			b.once.Do(b.do)
		}
	}
	return err
}

// startFirst starts a first delivery, whose create waits at the barrier, and ends its workflow by hand. The delivery goes on.
func (r *rig) startFirst(b *barrier) uuid.UUID {
	r.t.Helper()
	r.t.Cleanup(b.open)
	r.authenticate()
	r.manyPlaces()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	select {
	case <-b.reached:
	case <-time.After(patience):
		r.t.Fatal("the create does not reach the EHR")
	}
	if err := r.temporal.TerminateWorkflow(r.t.Context(), run.GetID(), run.GetRunID(), "a test"); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// startAgain starts the workflow as the sweep does.
func (r *rig) startAgain(id uuid.UUID) client.WorkflowRun {
	r.t.Helper()
	again := ref(id)
	again.Unasked, again.LookUp = true, true
	return must(r.temporal.ExecuteWorkflow(r.t.Context(), startOptions(id), workflows.Transmission, input(again)))(r.t)
}

// The EHR acknowledges a first delivery late, when another workflow has begun the next one: that then finds the first one
// finished, and nothing in the EHR, whose searches show it later. What the database knows keeps it from being sent again.
func TestAFirstDeliveryThatIsAcknowledgedLateIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	b, late := newBarrier(), &beforePost{}
	r := newRig(t, setup{ignoreIfNoneExist: true, intercept: late.intercept, watch: afterwards{b}.wrap})
	r.breakEHR(fault{Kind: "late_index", Delay: "1h", For: "1h"})
	id := r.startFirst(b)
	late.do = func() {
		b.open()
		eventually(t, "the first delivery to be recorded", func() bool { return r.transmission(id).Status == db.StatusTransmitted })
	}
	run := r.startAgain(id)
	r.mustDeliver(run)
	r.wantOnce(id)
	if row := r.transmission(id); row.Status != db.StatusTransmitted || len(r.attempts(row.ID)) > 2 {
		t.Errorf("recorded as %+v", row)
	}
}
