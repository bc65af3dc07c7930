package worker_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/workflows"
)

// A cancel that a worker reads together with the end of the delivery upon which the workflow continues as new is not lost.
// That happens whenever workers are busy or away at that moment.
func TestACancelInTheTaskThatContinuesAsNew(t *testing.T) {
	t.Parallel()
	var busy atomic.Bool // the worker is, with a workflow task
	taken, failed, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var takenOnce, failedOnce sync.Once
	looking, found := make(chan struct{}), make(chan struct{})
	var lookingOnce sync.Once
	r := newRig(t, setup{
		watch: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/Observation") {
					lookingOnce.Do(func() { close(looking) })
					<-found
				}
				next.ServeHTTP(w, req)
			})
		},
		intercept: func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if busy.Load() && strings.HasSuffix(method, "/RespondWorkflowTaskCompleted") {
				takenOnce.Do(func() { close(taken) })
				<-goOn
			}
			err := invoke(ctx, method, req, reply, cc, opts...)
			if strings.HasSuffix(method, "/RespondActivityTaskFailed") {
				failedOnce.Do(func() { close(failed) })
			}
			return err
		},
	})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	options := client.StartWorkflowOptions{ID: workflows.TransmissionWorkflowID(id), TaskQueue: workflows.TaskQueue(practice)}
	ref := activities.ObservationRef{PracticeCode: practice, ObservationID: id, LookUp: true}
	run := must(r.temporal.ExecuteWorkflow(t.Context(), options, workflows.Transmission, workflows.TransmissionInput{ObservationRef: ref}))(t)
	<-looking
	must(r.sql.Exec(t.Context(), "DELETE FROM transmission_attempts"))(t) // an older database is restored

	busy.Store(true)
	if err := r.temporal.SignalWorkflow(t.Context(), run.GetID(), "", workflows.SignalProceed, gate.Call{}); err != nil {
		t.Fatal(err)
	}
	<-taken
	r.cancel(id)
	close(found)
	<-failed
	busy.Store(false)
	close(goOn)

	r.mustFail(run, workflows.ClassCancelled)
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("%d creates were sent of a cancelled transmission", received)
	}
}
