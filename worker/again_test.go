package worker_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/worker"
	"github.com/vantrexia/vantrexia/workflows"
)

// The EHR of these tests ignores the condition of a conditional create: whoever sends a second time without looking puts
// the reading into the chart twice.

// resetBefore resets a workflow to the point at which an activity was about to be scheduled, as a person does in the Temporal
// Web UI.
func (r *rig) resetToStart(run client.WorkflowRun) {
	r.t.Helper()
	var decided int64
	for _, event := range r.history(run) {
		if event.GetEventType() == enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
			decided = event.GetEventId()
			break
		}
	}
	must(r.temporal.ResetWorkflowExecution(r.t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
		Namespace:                 r.namespace,
		WorkflowExecution:         &commonpb.WorkflowExecution{WorkflowId: run.GetID(), RunId: run.GetRunID()},
		Reason:                    "by hand",
		RequestId:                 uuid.NewString(),
		WorkflowTaskFinishEventId: decided,
	}))(r.t)
}

// current is the newest run of an observation's workflow.
func (r *rig) current(id uuid.UUID) client.WorkflowRun {
	return r.temporal.GetWorkflow(r.t.Context(), workflows.TransmissionWorkflowID(id), "")
}

func (r *rig) wantOnce(id uuid.UUID) {
	r.t.Helper()
	if received, stored := r.creates(id); received != 1 || stored != 1 {
		r.t.Errorf("the EHR was sent the reading %d times and holds it %d times, want once", received, stored)
	}
}

func TestAResetWorkflowLooksFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{ignoreIfNoneExist: true})
	for name, prepare := range map[string]func(uuid.UUID){
		"its delivery is recorded": func(uuid.UUID) {},
		"the database has forgotten its delivery": func(id uuid.UUID) {
			must(r.sql.Exec(t.Context(), "UPDATE transmissions SET status = 'pending', next_retry_at = NULL, attempt_count = 0 WHERE observation_id = $1", id))(t)
			must(r.sql.Exec(t.Context(), "DELETE FROM transmission_attempts a USING transmissions t WHERE t.id = a.transmission_id AND t.observation_id = $1", id))(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := r.on(t)
			r.breakEHR(fault{Kind: "reset_after", Target: "create"})
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)
			r.awaitRetry(id)
			prepare(id)
			r.resetToStart(run)
			r.transmitNow(id)
			r.mustDeliver(r.current(id))
			r.wantOnce(id)
		})
	}
}

// The database was restored and has forgotten every delivery; whatever starts the reading again looks first.
func TestWhateverStartsAgainLooksFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{ignoreIfNoneExist: true})
	r.ensureSchedules()
	for name, again := range map[string]func(uuid.UUID){
		"a sweep": func(uuid.UUID) {
			r.age()
			r.sweep()
		},
		"a person": func(id uuid.UUID) {
			ref := ref(id)
			ref.LookUp = true // as the API does
			must(r.temporal.ExecuteWorkflow(t.Context(), startOptions(id), workflows.Transmission, input(ref)))(t)
		},
		"a batch": r.startFresh,
		"a call from the queue": func(id uuid.UUID) {
			if err := worker.Call(r.temporal)(t.Context(), practice, id, gate.Call{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := r.on(t)
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			r.mustDeliver(r.start(id))
			must(r.sql.Exec(t.Context(), "DELETE FROM transmissions WHERE observation_id = $1", id))(t)
			must(r.sql.Exec(t.Context(), "UPDATE observations SET resource = NULL, resource_version = 0, transformed_at = NULL WHERE id = $1", id))(t)
			again(id)
			r.awaitDelivered(id)
			r.wantOnce(id)
		})
	}
}

// A held trial whose outcome is unknown is not sent again when another trial closes the circuit.
func TestAnUnknownTrialWaitsAlthoughTheCircuitCloses(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{ignoreIfNoneExist: true})
	r.breakEHR(refuseUs)
	ids, runs := r.startHeld(3)
	r.admin("DELETE", "faults", nil, nil)
	r.breakEHR(fault{Kind: "late_index", Delay: "1h", For: "1h"}) // what was stored is found by no search
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	r.tryNow()
	var trial uuid.UUID
	eventually(t, "the trial's outcome to be unknown", func() bool {
		for _, id := range ids {
			if row := r.transmission(id); row.ErrorClass == "unknown" && row.NextRetryAt != nil {
				trial = id
			}
		}
		return trial != uuid.Nil
	})
	row := r.transmission(trial)
	if row.AttemptCount != 0 || row.NextRetryAt.Sub(*row.LastAttemptedAt) < documentedDelays()[0] {
		t.Errorf("the trial is recorded as %+v, want no attempt, and the schedule's first wait", row)
	}
	eventually(t, "the circuit to open again", func() bool { return r.circuit().Circuit == gate.Open })
	r.tryNow()
	for i, id := range ids {
		if id != trial {
			r.mustDeliver(runs[i])
		}
	}
	before := len(r.attempts(row.ID))
	r.transmitNow(trial) // not even a person's wish sends it again before it can be seen
	eventually(t, "the look-up to be recorded", func() bool {
		made := r.attempts(row.ID)
		return len(made) > before && made[before].FinishedAt != nil && r.transmission(trial).Status != db.StatusProcessing
	})
	if received, stored := r.creates(trial); received != 1 || stored != 1 {
		t.Errorf("the EHR was sent the trial %d times and holds it %d times, want once", received, stored)
	}
	if row := r.transmission(trial); row.Status != db.StatusFailed || row.NextRetryAt == nil || time.Until(*row.NextRetryAt) < 4*time.Minute {
		t.Errorf("the trial is recorded as %+v, want it to wait", row)
	}
}
