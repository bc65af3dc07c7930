package worker_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/proxy"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/payload"
	"github.com/vantrexia/vantrexia/workflows"
)

// openAll opens the payloads of a message in place.
func (r *rig) openAll(message proto.Message) {
	r.t.Helper()
	open := func(_ *proxy.VisitPayloadsContext, sealed []*commonpb.Payload) ([]*commonpb.Payload, error) {
		return r.sealing().Decode(sealed)
	}
	options := proxy.VisitPayloadsOptions{Visitor: open, SkipSearchAttributes: true}
	if err := proxy.VisitPayloads(r.t.Context(), message, options); err != nil {
		r.t.Fatal(err)
	}
}

// wantSealed looks at every payload of a message but search attributes, and at every failure that our code wrote. The
// server's own failures have fixed texts.
func (r *rig) wantSealed(what string, message proto.Message) (payloads int) {
	r.t.Helper()
	look := func(ctx *proxy.VisitPayloadsContext, found []*commonpb.Payload) ([]*commonpb.Payload, error) {
		for _, p := range found {
			payloads++
			if !payload.Sealed(p) || keyring.SealedWith(p.GetData()) != string(p.GetMetadata()[payload.MetadataKeyID]) {
				r.t.Errorf("%s: a payload of a %T is %s: %s", what, ctx.Parent, p.GetMetadata()["encoding"], p.GetData())
			}
		}
		return found, nil
	}
	options := proxy.VisitPayloadsOptions{Visitor: look, SkipSearchAttributes: true}
	if err := proxy.VisitPayloads(r.t.Context(), message, options); err != nil {
		r.t.Fatal(err)
	}

	err := proxy.VisitFailures(r.t.Context(), message, proxy.VisitFailuresOptions{
		Visitor: func(_ *proxy.VisitFailuresContext, f *failurepb.Failure) error {
			for ; f != nil; f = f.GetCause() {
				if f.GetSource() == "GoSDK" && (f.GetMessage() != "Encoded failure" || f.GetStackTrace() != "" || f.GetEncodedAttributes() == nil) {
					r.t.Errorf("%s: a failure is in clear: %v", what, f)
				}
			}
			return nil
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return payloads
}

// allHistories returns the history of every workflow that ran in the rig's namespace.
func (r *rig) allHistories() map[string]*historypb.History {
	r.t.Helper()
	all := map[string]*historypb.History{}
	var next []byte
	for {
		list := must(r.temporal.ListWorkflow(r.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{NextPageToken: next}))(r.t)
		r.wantSealed("the list of workflows", list)
		for _, found := range list.GetExecutions() {
			id, run := found.GetExecution().GetWorkflowId(), found.GetExecution().GetRunId()
			all[id+" "+run] = &historypb.History{Events: r.history(r.temporal.GetWorkflow(r.t.Context(), id, run))}
		}
		if next = list.GetNextPageToken(); len(next) == 0 {
			return all
		}
	}
}

// Every kind of workflow, with every kind of end.
func TestEveryPayloadIsSealed(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{keep: year})
	r.ensureSchedules()
	delivered := r.start(r.storeReading(fhir.BloodPressure, bloodPressure))
	r.mustDeliver(delivered)
	atOnce := r.start(r.storeReading(fhir.Weight, `{"value": 70, "unit": "kg"}`))
	r.mustDeliver(atOnce)

	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	retried := r.start(id)
	r.awaitRetry(id)
	r.transmitNow(id)
	r.mustDeliver(retried)

	nobody := "ecw-patient-9999999"
	r.relink(&nobody)
	refused := r.start(r.storeReading(fhir.BloodPressure, bloodPressure))
	r.mustFail(refused, "permanent_data")
	r.relink(link())

	r.breakEHR(fault{Kind: "error_503", Target: "create"})
	id = r.storeReading(fhir.BloodPressure, bloodPressure)
	cancelled := r.start(id)
	r.awaitRetry(id)
	if err := r.temporal.SignalWorkflow(t.Context(), cancelled.GetID(), "", workflows.SignalCancel, workflows.Request{By: "somebody"}); err != nil {
		t.Fatal(err)
	}
	r.mustFail(cancelled, workflows.ClassCancelled)

	_, imported := r.startImportOf(append(fhirIDs(sandbox.People()[:11]), "nobody")) // in chunks
	r.finished(imported)
	r.finish("refresh-patients", workflows.RefreshPatients, practice)
	r.finish("process-pending", workflows.ProcessPending, workflows.PendingInput{PracticeCode: practice, Wait: patience})
	r.growOld()
	r.finish("prune", workflows.Prune, workflows.PruneInput{PracticeCode: practice})

	r.wantAllSealed(12)
	for _, schedule := range []string{"process-pending/", "refresh-patients/", "prune/"} {
		described := must(r.temporal.WorkflowService().DescribeSchedule(t.Context(), &workflowservice.DescribeScheduleRequest{
			Namespace: r.namespace, ScheduleId: schedule + practice,
		}))(t)
		if r.wantSealed(schedule, described) == 0 {
			t.Errorf("the schedule %s has no payloads", schedule)
		}
	}
}

func TestEveryPayloadOfTheCircuitIsSealed(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{}) // whose worker holds no token yet
	r.breakEHR(refuseUs)
	ids, held := r.startHeld(2)
	r.tryNow()
	eventually(t, "the trial to fail", func() bool { return len(r.attempts(r.transmission(ids[0]).ID)) == 2 })
	r.admin("DELETE", "faults", nil, nil)
	r.transmitNow(ids[1])
	for _, run := range held {
		r.mustDeliver(run)
	}
	r.wantAllSealed(3)
}

// wantAllSealed looks at all histories, of which there are at least so many.
func (r *rig) wantAllSealed(workflows int) {
	r.t.Helper()
	eventually(r.t, "the workflows in the list", func() bool { return len(r.allHistories()) >= workflows })
	payloads := 0
	for name, history := range r.allHistories() {
		payloads += r.wantSealed(name, history)
	}
	if payloads < 10*workflows {
		r.t.Errorf("%d payloads were looked at, want at least %d", payloads, 10*workflows)
	}
}

// The key is rotated while a workflow waits: what it has stays as it was, and what it writes from then on is sealed with
// the new key.
func TestAWorkflowOutlivesItsKey(t *testing.T) {
	t.Parallel()
	content := must(keyring.Generate())(t)
	path := filepath.Join(t.TempDir(), "keyring.json")
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(content)
	r := newRig(t, setup{keys: must(keyring.Open(path))(t)})

	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitRetry(id)
	var before int
	eventually(t, "the workflow to wait", func() bool {
		events := r.history(run)
		before = len(events)
		return events[before-1].GetEventType() == enums.EVENT_TYPE_TIMER_STARTED
	})

	rotated, newKey, err := keyring.Rotate(content, keyring.Temporal, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write(rotated)
	if err := r.keys.Reread(nil); err != nil {
		t.Fatal(err)
	}
	r.transmitNow(id)
	r.mustDeliver(run)

	events := r.history(run)
	for i, half := range [][]*historypb.HistoryEvent{events[:before], events[before:]} {
		used := keysOf(t, half)
		if slices.Contains(used, newKey) != (i == 1) || len(used) != 1 {
			t.Errorf("half %d of the history is sealed with %v, the new key is %s", i+1, used, newKey)
		}
	}
}

// keysOf lists the keys that events are sealed with.
func keysOf(t *testing.T, events []*historypb.HistoryEvent) (keys []string) {
	t.Helper()
	collect := func(_ *proxy.VisitPayloadsContext, found []*commonpb.Payload) ([]*commonpb.Payload, error) {
		for _, p := range found {
			keys = append(keys, string(p.GetMetadata()[payload.MetadataKeyID]))
		}
		return found, nil
	}
	options := proxy.VisitPayloadsOptions{Visitor: collect, SkipSearchAttributes: true}
	if err := proxy.VisitPayloads(t.Context(), &historypb.History{Events: events}, options); err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// A worker without the key does nothing, says which key it lacks, and goes on when it has it.
func TestAMissingKeyStopsAWorkflowAndLosesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, delays: soon()})
	theirs := payload.Sealing{Keys: must(keyring.New(must(keyring.Generate())(t)))(t), Namespace: r.namespace}
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)

	book := &logBook{}
	stopped := r.startWorker(r.dialLogged(theirs, book))
	r.awaitFailedTask(run)
	missing := keysOf(t, r.history(run)[:1])[0]
	logged := book.all()
	if !strings.Contains(logged, "the key "+missing+" of the keyset") {
		t.Errorf("the log does not name the key %s:\n%s", missing, logged)
	}
	if received, _ := r.creates(id); received != 0 {
		t.Error("something was sent")
	}
	stopped.Stop()

	r.startWorker(r.temporal)
	r.mustDeliver(run)
	r.wantOnce(id)
}

// Plain payloads, as an earlier version wrote them, are read until the day that is set.
func TestPlainPayloadsAreReadUntilTheDayThatIsSet(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true, delays: soon()})
	plain := must(client.DialContext(t.Context(), client.Options{HostPort: r.address, Namespace: r.namespace}))(t)
	t.Cleanup(plain.Close)
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := must(plain.ExecuteWorkflow(t.Context(), startOptions(id), workflows.Transmission, input(ref(id))))(t)

	book := &logBook{}
	stopped := r.startWorker(r.dialLogged(r.sealing(), book))
	r.awaitFailedTask(run)
	if logged := book.all(); !strings.Contains(logged, "TEMPORAL_PLAIN_PAYLOADS_UNTIL") {
		t.Errorf("the log does not say what to set:\n%s", logged)
	}
	stopped.Stop()

	reading := r.sealing()
	reading.PlainUntil = time.Now().Add(time.Hour)
	r.startWorker(r.dialWith(reading, nil))
	r.mustDeliver(r.temporal.GetWorkflow(t.Context(), run.GetID(), run.GetRunID()))
	for _, event := range r.history(run)[1:] {
		r.wantSealed(event.GetEventType().String(), event)
	}
}

// awaitFailedTask waits until a worker could not go on with a run.
func (r *rig) awaitFailedTask(run client.WorkflowRun) {
	r.t.Helper()
	eventually(r.t, "a workflow task to fail", func() bool {
		return slices.ContainsFunc(r.history(run), func(e *historypb.HistoryEvent) bool {
			return e.GetEventType() == enums.EVENT_TYPE_WORKFLOW_TASK_FAILED
		})
	})
}

// dialLogged is dialWith for a worker whose log is looked at.
func (r *rig) dialLogged(sealing payload.Sealing, book *logBook) client.Client {
	r.t.Helper()
	logged := *r
	logged.log = slog.New(slog.NewJSONHandler(book, nil))
	return logged.dialWith(sealing, nil)
}

// all is the whole log.
func (b *logBook) all() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
