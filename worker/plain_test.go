package worker_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/workflows"
)

// What a person types into the Temporal Web UI is not encrypted. It is refused, and the workflow goes on without it.
func TestPlainSignalsAndUpdatesAreLeftOut(t *testing.T) {
	t.Parallel()
	book := &logBook{}
	r := newRig(t, setup{log: slog.NewJSONHandler(book, nil)})
	plain := must(client.DialContext(t.Context(), client.Options{HostPort: r.address, Namespace: r.namespace}))(t)
	t.Cleanup(plain.Close)

	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	id := r.storeReading(fhir.Weight, `{"value": 70, "unit": "kg"}`)
	run := r.start(id)
	r.awaitRetry(id)

	for signal, typed := range map[string]any{
		workflows.SignalCancel:  workflows.Request{By: "somebody"},
		workflows.SignalProceed: gate.Call{},
	} {
		if err := plain.SignalWorkflow(t.Context(), run.GetID(), "", signal, typed); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	update := must(plain.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID:   run.GetID(),
		UpdateName:   workflows.UpdateTransmitNow,
		WaitForStage: client.WorkflowUpdateStageCompleted,
		Args:         []any{workflows.Request{By: "somebody"}},
	}))(t)
	if err := update.Get(ctx, nil); err == nil || ctx.Err() != nil {
		t.Errorf("a plain update was answered with %v, want that it is refused", err)
	}
	if len(r.attempts(r.transmission(id).ID)) != 1 {
		t.Error("a plain signal or update had an effect")
	}

	// One without a value says all that it says.
	if err := plain.SignalWorkflow(t.Context(), run.GetID(), "", workflows.SignalCancel, nil); err != nil {
		t.Fatal(err)
	}
	r.mustFail(run, workflows.ClassCancelled)
	if logged := book.all(); strings.Count(logged, "a signal that is not encrypted is left out") != 2 {
		t.Errorf("the log does not say that two signals are left out:\n%s", logged)
	}
}

// Until the day that is set, they count.
func TestPlainSignalsCountUntilTheDayThatIsSet(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	plain := must(client.DialContext(t.Context(), client.Options{HostPort: r.address, Namespace: r.namespace}))(t)
	t.Cleanup(plain.Close)
	reading := r.sealing()
	reading.PlainUntil = time.Now().Add(time.Hour)
	r.startWorker(r.dialWith(reading, nil))

	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	id := r.storeReading(fhir.Weight, `{"value": 70, "unit": "kg"}`)
	run := r.start(id)
	r.awaitRetry(id)
	if err := plain.SignalWorkflow(t.Context(), run.GetID(), "", workflows.SignalCancel, workflows.Request{By: "somebody"}); err != nil {
		t.Fatal(err)
	}
	r.mustFail(run, workflows.ClassCancelled)
}
