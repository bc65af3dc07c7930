package worker_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	commandpb "go.temporal.io/api/command/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
)

// barrier holds back the first create that reaches the EHR until it is opened.
type barrier struct {
	taken           atomic.Bool
	reached, opened chan struct{}
	open            func()
}

func newBarrier() *barrier {
	g := &barrier{reached: make(chan struct{}), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	return g
}

func (g *barrier) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if isCreate(req) && g.taken.CompareAndSwap(false, true) {
			close(g.reached)
			<-g.opened
		}
		next.ServeHTTP(w, req)
	})
}

func isCreate(req *http.Request) bool {
	return req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/Observation")
}

// startBarred makes a rig with a transmission whose create waits at a barrier.
func startBarred(t *testing.T, s setup) (*rig, *barrier, uuid.UUID, client.WorkflowRun) {
	t.Helper()
	g := newBarrier()
	s.watch = g.wrap
	r := newRig(t, s)
	t.Cleanup(g.open) // else a test that fails would wait for ever
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	select {
	case <-g.reached:
	case <-time.After(patience):
		t.Fatal("the create does not reach the EHR")
	}
	return r, g, id, run
}

func TestStoppedWorkerEndsItsDeliveryAndAnotherRecordsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(fault{Kind: "slow", Target: "create", Delay: "700ms"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	eventually(t, "the create to reach the EHR", func() bool { return r.faultsLeft() == 0 })
	r.worker.Stop()

	if _, stored := r.creates(id); stored != 1 {
		t.Errorf("the EHR held the reading %d times when the worker had stopped: the delivery was not let end", stored)
	}
	if row := r.transmission(id); row.Status != db.StatusProcessing {
		t.Errorf("the first worker recorded %+v: the test needs one that stopped before", row)
	}
	r.startWorker(r.temporal)
	r.mustDeliver(run)
	row := r.transmission(id)
	r.checkDelivered(id, row, 1)
	if made := r.attempts(row.ID); len(made) != 1 {
		t.Errorf("%d deliveries were made, want the one that the first worker ended", len(made))
	}
}

// impatient shortens the time after which a Post or LinkPatients without a heartbeat is taken for lost, so that one that
// takes longer looks to Temporal as if its worker had died, while it goes on.
func impatient(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if done, ok := req.(*workflowservice.RespondWorkflowTaskCompletedRequest); ok {
		for _, command := range done.Commands {
			shorten(command.GetScheduleActivityTaskCommandAttributes())
		}
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

func shorten(activity *commandpb.ScheduleActivityTaskCommandAttributes) {
	if name := activity.GetActivityType().GetName(); name == "Post" || name == "LinkPatients" {
		activity.HeartbeatTimeout = durationpb.New(500 * time.Millisecond)
	}
}

func TestLostWorkerLeavesAnUnknownOutcomeThatIsLookedUp(t *testing.T) {
	t.Parallel()
	r, barrier, id, run := startBarred(t, setup{intercept: impatient})
	row := r.awaitRetry(id)
	if row.Status != db.StatusFailed || row.ErrorClass != string(ecw.ClassUnknown) || row.AttemptCount != 1 {
		t.Errorf("the transmission is recorded as %+v, want it failed with an unknown outcome", row)
	}
	if made := r.attempts(row.ID); len(made) != 1 || made[0].ErrorCode != "worker_lost" {
		t.Errorf("the attempts are recorded as %+v, want one whose worker was lost", made)
	}
	barrier.open()
	eventually(t, "the EHR to store what the lost worker sent", func() bool { _, stored := r.creates(id); return stored == 1 })
	r.transmitNow(id)
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 2)
	if received, _ := r.creates(id); received != 1 {
		t.Errorf("the EHR was sent the reading %d times, want once", received)
	}
}

func TestWhatALostWorkerSentMayArriveLast(t *testing.T) {
	t.Parallel()
	r, barrier, id, run := startBarred(t, setup{intercept: impatient, delays: soon()})
	r.awaitRetry(id)
	r.transmitNow(id)
	r.mustDeliver(run)
	barrier.open()
	r.awaitBothCreates()
	r.checkDelivered(id, r.transmission(id), 2)
}

// awaitBothCreates waits for the create that stores the reading, and the one that finds it stored.
func (r *rig) awaitBothCreates() {
	r.t.Helper()
	eventually(r.t, "the EHR to end both creates", func() bool {
		answers := r.stats().Requests["POST Observation"]
		return answers["201"] == 1 && answers["200"] == 1
	})
}

func TestNewWorkflowTakesOverWhileTheLostOneWaited(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakEHR(fault{Kind: "error_503", Target: "create", Count: 2})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	for attempt := int32(1); attempt <= 2; attempt++ {
		run := r.start(id)
		eventually(t, "the attempt's outcome", func() bool { return r.awaitRetry(id).AttemptCount == attempt })
		if err := r.temporal.TerminateWorkflow(t.Context(), run.GetID(), run.GetRunID(), "a test"); err != nil {
			t.Fatal(err)
		}
		r.age()
	}
	r.mustDeliver(r.start(id))
	row := r.transmission(id) // there is only one
	r.checkDelivered(id, row, 3)
	r.checkNumbers(row.ID, 1, 2, 3)
}

// The workflow is lost while its delivery is on the way, and that arrives after another workflow has looked for it. On an
// EHR that ignores the condition nothing but the wait keeps it from standing in the chart twice.
func TestNewWorkflowTakesOverInTheMiddleOfADelivery(t *testing.T) {
	t.Parallel()
	r, barrier, id, lost := startBarred(t, setup{ignoreIfNoneExist: true})
	if err := r.temporal.TerminateWorkflow(t.Context(), lost.GetID(), lost.GetRunID(), "a test"); err != nil {
		t.Fatal(err)
	}
	run := r.start(id)
	row := r.awaitRetry(id)
	if row.AttemptCount != 1 || row.NextRetryAt.Sub(*row.LastAttemptedAt) < documentedDelays()[0] {
		t.Errorf("it is recorded as %+v, want one attempt, and the first wait", row)
	}
	barrier.open()
	eventually(t, "the EHR to store what was on its way", func() bool { _, stored := r.creates(id); return stored == 1 })
	r.transmitNow(id)
	r.mustDeliver(run)

	row = r.transmission(id)
	r.checkDelivered(id, row, 2)
	r.checkNumbers(row.ID, 1, 2)
	if received, _ := r.creates(id); received != 1 {
		t.Errorf("the EHR was sent the reading %d times, want once", received)
	}
	if cut := r.attempts(row.ID)[0]; cut.ErrorCode != "worker_lost" {
		t.Errorf("the delivery that was cut short is recorded as %+v, want one with an unknown outcome", cut)
	}
}

// checkNumbers compares the attempt numbers of a transmission's deliveries.
func (r *rig) checkNumbers(transmissionID uuid.UUID, want ...int32) {
	r.t.Helper()
	made := r.attempts(transmissionID)
	if len(made) != len(want) {
		r.t.Fatalf("%d deliveries are recorded, want %d", len(made), len(want))
	}
	for i, a := range made {
		if a.Delivery != int32(i+1) || a.Number != want[i] {
			r.t.Errorf("delivery %d is recorded as delivery %d, attempt %d; want attempt %d", i+1, a.Delivery, a.Number, want[i])
		}
	}
}
