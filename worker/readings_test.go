package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	enums "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

const bloodPressure = `{"systolic": 142, "diastolic": 92, "heart_rate": 78}`

// storeReading stores a valid reading of the rig's patient, each at a time of its own.
func (r *rig) storeReading(typ fhir.Type, values string) uuid.UUID {
	r.t.Helper()
	at := time.Now().UTC().Truncate(time.Microsecond) // the database keeps microseconds
	reading := fhir.Reading{Type: typ, EffectiveAt: at, Device: "BP-OMRON-7250", Values: json.RawMessage(values)}
	if err := reading.Validate(time.Now()); err != nil {
		r.t.Fatal(err)
	}
	return must(r.store.CreateObservation(r.t.Context(), db.CreateObservationParams{
		ID: fhir.ReadingID(practice, r.patient.ID, reading), PracticeCode: practice, PatientID: r.patient.ID, ObservationType: string(typ), EffectiveAt: at, Device: reading.Device, Measured: reading.Values,
	}))(r.t).ID
}

// start starts the transmission as the API does when it has stored a reading.
func (r *rig) start(id uuid.UUID) client.WorkflowRun {
	r.t.Helper()
	return must(r.temporal.ExecuteWorkflow(r.t.Context(), startOptions(id), workflows.Transmission, input(ref(id))))(r.t)
}

// transmitNow does what the API does for "transmit": a waiting transmission goes on at once, and where none runs, one is
// started. It asks again while the answer is that a delivery is under way.
func (r *rig) transmitNow(id uuid.UUID) client.WorkflowRun {
	r.t.Helper()
	var start client.WithStartWorkflowOperation
	eventually(r.t, "transmit now to be taken", func() bool {
		start = r.temporal.NewWithStartWorkflowOperation(startOptions(id), workflows.Transmission, input(ref(id)))
		handle, err := r.temporal.UpdateWithStartWorkflow(r.t.Context(), client.UpdateWithStartWorkflowOptions{
			StartWorkflowOperation: start,
			UpdateOptions:          client.UpdateWorkflowOptions{UpdateName: workflows.UpdateTransmitNow, Args: []any{workflows.Request{By: "nurse-7"}}, WaitForStage: client.WorkflowUpdateStageCompleted},
		})
		if err == nil {
			err = handle.Get(r.t.Context(), nil)
		}
		var refused *temporal.ApplicationError
		if errors.As(err, &refused) && refused.Type() == workflows.ErrInProgress {
			return false
		}
		if err != nil {
			r.t.Fatal(err)
		}
		return true
	})
	return must(start.Get(r.t.Context()))(r.t)
}

func startOptions(id uuid.UUID) client.StartWorkflowOptions {
	return workflows.TransmissionStart(practice, id).Options()
}

// input is that of the first run of a transmission.
func input(ref activities.ObservationRef) workflows.TransmissionInput {
	return workflows.TransmissionInput{ObservationRef: ref}
}

func ref(id uuid.UUID) activities.ObservationRef {
	return activities.ObservationRef{PracticeCode: practice, ObservationID: id}
}

// outcome waits for the end of a run.
func (r *rig) outcome(run client.WorkflowRun) (workflows.TransmissionState, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	var state workflows.TransmissionState
	err := run.Get(ctx, &state)
	if ctx.Err() != nil {
		r.t.Fatal("the workflow does not end")
	}
	return state, err
}

// mustDeliver waits for a run that ends well.
func (r *rig) mustDeliver(run client.WorkflowRun) {
	r.t.Helper()
	if _, err := r.outcome(run); err != nil {
		r.t.Fatalf("the transmission ended with: %v", err)
	}
}

// mustFail waits for a run that ends with an error of the class.
func (r *rig) mustFail(run client.WorkflowRun, class string) {
	r.t.Helper()
	_, err := r.outcome(run)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != class {
		r.t.Fatalf("the workflow ended with %v, want an error of the type %s", err, class)
	}
}

// transmissions are all of an observation's, the oldest first.
func (r *rig) transmissions(id uuid.UUID) []db.Transmission {
	r.t.Helper()
	rows := must(r.sql.Query(r.t.Context(), "SELECT * FROM transmissions WHERE observation_id = $1 ORDER BY created_at", id))(r.t)
	return must(pgx.CollectRows(rows, pgx.RowToStructByPos[db.Transmission]))(r.t)
}

// transmission is the only one of an observation.
func (r *rig) transmission(id uuid.UUID) db.Transmission {
	r.t.Helper()
	list := r.transmissions(id)
	if len(list) != 1 {
		r.t.Fatalf("%d transmissions in the database, want one", len(list))
	}
	return list[0]
}

func (r *rig) attempts(transmissionID uuid.UUID) []db.ChartAttempt {
	r.t.Helper()
	return must(r.store.ListChartAttempts(r.t.Context(), transmissionID))(r.t)
}

// chartOf is the id in eCW of the patient in whose chart the only transmission of an observation stands.
func (r *rig) chartOf(id uuid.UUID) string {
	r.t.Helper()
	named := db.GetTransmissionParams{PracticeCode: practice, Number: r.transmission(id).Number}
	row := must(r.store.GetTransmission(r.t.Context(), named))(r.t)
	if row.ECWPatientID == nil {
		return ""
	}
	return *row.ECWPatientID
}

// awaitRetry waits until a transmission waits for its next delivery.
func (r *rig) awaitRetry(id uuid.UUID) db.Transmission {
	r.t.Helper()
	var last db.Transmission
	eventually(r.t, "a transmission that waits for its retry", func() bool {
		row, err := r.store.LatestTransmission(r.t.Context(), db.LatestTransmissionParams{PracticeCode: practice, ObservationID: id})
		if err != nil && !db.IsNotFound(err) {
			r.t.Fatal(err)
		}
		last = row
		return row.NextRetryAt != nil
	})
	return last
}

// creates tells how many creates for an observation reached the EHR, and how many Observations it keeps for it.
func (r *rig) creates(id uuid.UUID) (received, stored int) {
	r.t.Helper()
	c := r.stats().Creates
	key := fhir.IdentifierSystem + "|" + id.String()
	return c.Received[key], c.Stored[key]
}

// checkDelivered checks a finished transmission: in the EHR exactly once, and acknowledged in the database as the one
// that the EHR has. Its attempt_count must be want.
func (r *rig) checkDelivered(id uuid.UUID, row db.Transmission, want int) {
	r.t.Helper()
	if _, stored := r.creates(id); stored != 1 {
		r.t.Errorf("the EHR holds the reading %d times, want once", stored)
	}
	if row.Status != db.StatusTransmitted || row.ECWObservationID == nil || row.NextRetryAt != nil || row.AttemptCount != int32(want) ||
		row.ErrorClass != "" || row.ErrorMessage != "" || row.HTTPStatus == nil || *row.HTTPStatus/100 != 2 {
		r.t.Fatalf("the transmission is recorded as %+v, want it transmitted with attempt %d", row, want)
	}
	if got := r.idInEHR(id); got != *row.ECWObservationID {
		r.t.Errorf("the database says Observation/%s, the EHR %s", *row.ECWObservationID, got)
	}
	made := r.attempts(row.ID)
	last := made[len(made)-1]
	if last.ECWObservationID == nil || *last.ECWObservationID != *row.ECWObservationID || last.FinishedAt == nil || last.ErrorClass != "" {
		r.t.Errorf("the last attempt is recorded as %+v, want it acknowledged", last)
	}
	if last.ECWPatientID == nil || row.ChartID == nil || *row.ChartID != *last.ChartID {
		r.t.Errorf("the transmission is in the chart %v, its last attempt in %v", row.ChartID, last.ChartID)
	}
}

// checkFailed checks a transmission that a person has to look at.
func (r *rig) checkFailed(row db.Transmission, class, message string) {
	r.t.Helper()
	if row.Status != db.StatusFailed || row.NextRetryAt != nil || row.ErrorClass != class || !strings.Contains(row.ErrorMessage, message) {
		r.t.Errorf("the transmission is recorded as %+v, want it finally failed with %s: %s", row, class, message)
	}
}

// idInEHR looks the observation up in the EHR.
func (r *rig) idInEHR(id uuid.UUID) string {
	r.t.Helper()
	found, exists, err := r.ehr.FindObservation(r.t.Context(), identifier(id), "")
	if err != nil || !exists {
		r.t.Fatalf("look-up: found %t, %v", exists, err)
	}
	return found.ID
}

// history is everything that Temporal keeps of a run.
func (r *rig) history(run client.WorkflowRun) []*historypb.HistoryEvent {
	r.t.Helper()
	var events []*historypb.HistoryEvent
	pages := r.temporal.GetWorkflowHistory(r.t.Context(), run.GetID(), run.GetRunID(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for pages.HasNext() {
		events = append(events, must(pages.Next())(r.t))
	}
	return events
}

// within reports whether d is between two durations, both included.
func within(t *testing.T, what string, d, least, most time.Duration) {
	t.Helper()
	if d < least || d > most {
		t.Errorf("%s: %s, want %s to %s", what, d, least, most)
	}
}
