package worker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/worker"
	"github.com/vantrexia/vantrexia/workflows"
)

func countQuery(query string) *workflowservice.CountWorkflowExecutionsRequest {
	return &workflowservice.CountWorkflowExecutionsRequest{Query: query}
}

// found are the workflow ids that a list query finds.
func (r *rig) found(query string) (ids []string) {
	r.t.Helper()
	list := must(r.temporal.ListWorkflow(r.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query}))(r.t)
	for _, e := range list.GetExecutions() {
		ids = append(ids, e.GetExecution().GetWorkflowId())
	}
	return ids
}

// shown is what the Temporal Web UI's page of a running transmission says.
func (r *rig) shown(run client.WorkflowRun) string {
	r.t.Helper()
	metadata := r.metadata(run)
	if offered := fmt.Sprint(metadata.GetDefinition().GetUpdateDefinitions()); !strings.Contains(offered, workflows.UpdateTransmitNow) {
		r.t.Errorf("the Web UI does not offer %q but %s", workflows.UpdateTransmitNow, offered)
	}
	return metadata.GetCurrentDetails()
}

// details are what the Temporal Web UI's page of any running workflow says.
func (r *rig) details(run client.WorkflowRun) string {
	r.t.Helper()
	return r.metadata(run).GetCurrentDetails()
}

func (r *rig) metadata(run client.WorkflowRun) *sdkpb.WorkflowMetadata {
	r.t.Helper()
	answer := must(r.temporal.QueryWorkflow(r.t.Context(), run.GetID(), run.GetRunID(), "__temporal_workflow_metadata"))(r.t)
	var metadata sdkpb.WorkflowMetadata
	if err := answer.Get(&metadata); err != nil {
		r.t.Fatal(err)
	}
	return &metadata
}

// summaries are the labels of the history's events, by the type of the event.
func (r *rig) summaries(run client.WorkflowRun) map[enums.EventType][]string {
	r.t.Helper()
	labels := map[enums.EventType][]string{}
	for _, event := range r.history(run) {
		if s := event.GetUserMetadata().GetSummary(); s != nil {
			labels[event.EventType] = append(labels[event.EventType], strings.Trim(string(must(r.sealing().Decode([]*commonpb.Payload{s}))(r.t)[0].GetData()), `"`))
		}
	}
	return labels
}

// What a person sees of a transmission that is stuck, and how it is found among thousands.
func TestStuckTransmissionInTheWebUI(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{delays: []time.Duration{10 * time.Millisecond, 10 * time.Millisecond, time.Hour, time.Hour, time.Hour}})
	r.breakEHR(fault{Kind: "error_503", Target: "create", Count: 3})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	eventually(t, "the third failure", func() bool { return r.awaitRetry(id).AttemptCount == 3 })
	delivered := r.storeReading("weight", `{"value": 81.6, "unit": "kg"}`)
	r.mustDeliver(r.start(delivered))

	self := workflows.TransmissionWorkflowID(id)
	for _, query := range []string{
		`TransmissionStatus="failed" AND AttemptCount>=3`,
		`TransmissionStatus="failed" AND NextRetryAt > "` + time.Now().UTC().Format(time.RFC3339) + `"`,
		`ErrorClass="unknown"`,
		`ObservationType="blood_pressure"`,
		`ObservationId="` + id.String() + `"`,
		`PatientId="` + r.patient.ID.String() + `" AND ExecutionStatus="Running"`,
	} {
		eventually(t, query, func() bool { ids := r.found(query); return len(ids) == 1 && ids[0] == self })
	}
	eventually(t, "the delivered one", func() bool {
		return len(r.found(`TransmissionStatus="transmitted" AND ObservationType="weight" AND ErrorClass IS NULL AND NextRetryAt IS NULL`)) == 1
	})

	row := r.transmission(id)
	details := r.shown(run)
	for _, want := range []string{row.Number, "failed", "**3 of 6**", "`unknown`", row.NextRetryAt.Format("2006-01-02 15:04:05 UTC"), "`transmit now`", "`cancel`"} {
		if !strings.Contains(details, want) {
			t.Errorf("the details lack %q:\n%s", want, details)
		}
	}
	labels := r.summaries(run)
	if timers := labels[enums.EVENT_TYPE_TIMER_STARTED]; len(timers) == 0 || timers[len(timers)-1] != "retry 3 of 5 after eCW transient" {
		t.Errorf("the timers are labelled %q", timers)
	}
	if work := strings.Join(labels[enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED], ", "); !strings.Contains(work, "attempt 3 of 6") || !strings.Contains(work, "record the outcome") {
		t.Errorf("the activities are labelled %s", work)
	}

	r.transmitNow(id)
	r.mustDeliver(run)
	eventually(t, "the delivery to be found", func() bool {
		return len(r.found(`TransmissionStatus="transmitted" AND ObservationId="`+id.String()+`" AND ErrorClass IS NULL AND NextRetryAt IS NULL AND AttemptCount=4`)) == 1
	})
	if details := r.shown(run); !strings.Contains(details, "transmitted") || !strings.Contains(details, *r.transmission(id).ECWObservationID) ||
		!strings.Contains(details, "Asked for by `nurse-7`") {
		t.Errorf("the details of the delivered one:\n%s", details)
	}
}

func (r *rig) cancel(id uuid.UUID) {
	r.t.Helper()
	if err := r.temporal.SignalWorkflow(r.t.Context(), workflows.TransmissionWorkflowID(id), "", workflows.SignalCancel, nil); err != nil {
		r.t.Fatal(err)
	}
}

// A cancelled transmission is found as such, and has no next try.
func TestCancelledTransmissionInTheWebUI(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rig, client.WorkflowRun, uuid.UUID) error{
		"signal": func(r *rig, _ client.WorkflowRun, id uuid.UUID) error { r.cancel(id); return nil },
		"request": func(r *rig, run client.WorkflowRun, _ uuid.UUID) error {
			return r.temporal.CancelWorkflow(r.t.Context(), run.GetID(), run.GetRunID())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			r.breakEHR(fault{Kind: "error_503", Target: "create"})
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			r.awaitRetry(id)
			r.age()
			if err := end(r, run, id); err != nil {
				t.Fatal(err)
			}
			r.mustFail(run, workflows.ClassCancelled)
			row := r.transmission(id)
			r.checkFailed(row, workflows.ClassCancelled, "Cancelled")
			if made := r.attempts(row.ID); len(made) != 1 || made[0].ErrorClass != "unknown" || value(made[0].HTTPStatus) != 503 {
				t.Errorf("the attempt that was made is recorded as %+v now", made)
			}
			eventually(t, "it to be found", func() bool {
				return len(r.found(`TransmissionStatus="failed" AND ErrorClass="cancelled" AND AttemptCount=1 AND NextRetryAt IS NULL`)) == 1
			})

			r.ensureSchedules() // the sweep respects what a person decided
			r.age()
			r.sweep()
			if list := r.transmissions(id); len(list) != 1 {
				t.Fatalf("the sweep opened another transmission: %+v", list)
			}
			r.age()
			r.mustDeliver(r.transmitNow(id)) // starts anew, with a full schedule
			again := r.transmissions(id)[1]
			if again.AttemptCount != 1 || again.MaxAttempts != 6 {
				t.Errorf("after transmit: %+v", again)
			}
			if _, stored := r.creates(id); stored != 1 {
				t.Errorf("the chart holds it %d times", stored)
			}
		})
	}
}

// A delivery that is under way when somebody cancels is finished, and counts.
func TestCancelDuringADelivery(t *testing.T) {
	t.Parallel()
	r, barrier, id, run := startBarred(t, setup{})
	r.cancel(id)
	if err := r.temporal.CancelWorkflow(t.Context(), run.GetID(), run.GetRunID()); err != nil {
		t.Fatal(err)
	}
	barrier.open()
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 1)
}

// Cancelled before a worker had it: nothing is sent.
func TestCancelBeforeTheFirstDelivery(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.cancel(id)
	r.startWorker(r.temporal)
	r.mustFail(run, workflows.ClassCancelled)
	r.checkFailed(r.transmission(id), workflows.ClassCancelled, "Cancelled")
	if received, _ := r.creates(id); received != 0 {
		t.Errorf("it was sent %d times", received)
	}
}

func TestSearchAttributesAreRegisteredOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	namespaces := must(client.NewNamespaceClient(client.Options{HostPort: r.address}))(t)
	defer namespaces.Close()
	const name = "bare"
	err := namespaces.Register(t.Context(), &workflowservice.RegisterNamespaceRequest{Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var missing error
	eventually(t, "the namespace", func() bool {
		missing = worker.CheckSearchAttributes(ctx, r.temporal, name)
		return missing != nil && strings.Contains(missing.Error(), "lacks")
	})
	for want := range workflows.SearchAttributes() {
		if !strings.Contains(missing.Error(), want) {
			t.Errorf("%v does not name %s", missing, want)
		}
	}
	if !strings.Contains(missing.Error(), "vantrexia migrate") {
		t.Errorf("%v does not name the remedy", missing)
	}
	if added := must(worker.RegisterSearchAttributes(ctx, r.temporal, name))(t); len(added) != len(workflows.SearchAttributes()) {
		t.Errorf("%v were added", added)
	}
	eventually(t, "the registration to be known", func() bool { return worker.CheckSearchAttributes(ctx, r.temporal, name) == nil })
	if added := must(worker.RegisterSearchAttributes(ctx, r.temporal, name))(t); len(added) != 0 {
		t.Errorf("%v were added again", added)
	}
}

// The Temporal Web UI sends an update without data.
func TestTransmitNowWithoutData(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{delays: []time.Duration{10 * time.Millisecond, time.Hour}})
	r.breakEHR(fault{Kind: "error_503", Target: "create", Count: 2})
	id := r.storeReading("weight", `{"value": 81.6, "unit": "kg"}`)
	run := r.start(id)
	eventually(t, "the second failure", func() bool { return r.awaitRetry(id).AttemptCount == 2 })
	eventually(t, "the update to be taken", func() bool {
		handle, err := r.temporal.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
			WorkflowID:   run.GetID(),
			UpdateName:   workflows.UpdateTransmitNow,
			WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err == nil {
			err = handle.Get(t.Context(), nil)
		}
		return err == nil
	})
	r.mustDeliver(run)
}
