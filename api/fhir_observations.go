package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/payload"
	"github.com/vantrexia/vantrexia/workflows"
)

// updateTimeout is how long a request waits for a worker to answer an update.
const updateTimeout = 10 * time.Second

const mimeFHIR = "application/fhir+json"

func (s *server) getFHIRObservation(c echo.Context) error {
	stored, err := s.loadObservation(c)
	if err != nil {
		return err
	}
	if stored.Resource == nil {
		held, err := s.heldReason(c.Request().Context(), stored.ID)
		if err != nil {
			return err
		}
		if held != nil && *held == heldArchived {
			return &Error{
				Status: http.StatusNotFound,
				Code:   "not_transformed",
				Detail: "The patient is archived, so the reading waits. Unarchive the patient: it then goes on by itself.",
			}
		}
		return &Error{
			Status: http.StatusNotFound,
			Code:   "not_transformed",
			Detail: "Observation has not been transformed to FHIR format yet: try again in a moment, or transform it.",
		}
	}
	if err := s.showing(c, s.readingEvent(callerOf(c), audit.ObservationRead, stored)); err != nil {
		return err
	}
	return c.Blob(http.StatusOK, mimeFHIR, stored.Resource)
}

type transformAnswer struct {
	ObservationID uuid.UUID `json:"observation_id"`
	FHIRStatus    string    `json:"fhir_status"`
	TransformedAt time.Time `json:"transformed_at"`
	Message       string    `json:"message"`
}

func (s *server) transformObservation(c echo.Context) error {
	stored, state, err := s.updateTransmission(c, workflows.UpdateTransform, audit.ObservationTransform)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, transformAnswer{
		ObservationID: stored.ID,
		FHIRStatus:    db.StatusPending,
		TransformedAt: state.TransformedAt,
		Message:       "Observation transformed to FHIR R4 format. Queued for transmission.",
	})
}

// steerAnswer says what became of a request that steers a transmission.
type steerAnswer struct {
	ObservationID  uuid.UUID `json:"observation_id"`
	FHIRStatus     string    `json:"fhir_status"`
	TransmissionID string    `json:"transmission_id"`
	Message        string    `json:"message"`
}

func (s *server) transmitObservation(c echo.Context) error {
	stored, state, err := s.updateTransmission(c, workflows.UpdateTransmitNow, audit.ObservationTransmit)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, steerAnswer{
		ObservationID:  stored.ID,
		FHIRStatus:     db.StatusProcessing,
		TransmissionID: state.TransmissionID,
		Message:        "Transmission initiated to eClinicalWorks.",
	})
}

// cancelObservation ends the transmission that is under way. The workflow records that a moment later: it
// finishes a delivery first that has begun.
func (s *server) cancelObservation(c echo.Context) error {
	stored, err := s.loadObservation(c)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(c.Request().Context(), startTimeout)
	defer cancel()
	last, err := s.latestTransmission(ctx, stored.ID)
	if err != nil {
		return err
	}
	if last == nil {
		return nothingToCancel()
	}
	if last.Status == db.StatusTransmitted {
		return alreadyTransmitted(last)
	}

	e := s.readingEvent(callerOf(c), audit.ObservationCancel, stored)
	if err := s.begin(c, e); err != nil {
		return err
	}
	err = s.Temporal.SignalWorkflow(ctx, workflows.TransmissionWorkflowID(stored.ID), "", workflows.SignalCancel, requestOf(c))
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		err = nothingToCancel()
	} else if err != nil {
		s.Logger.WarnContext(ctx, "cancellation not taken", "observation_id", stored.ID, "error", err)
		err = temporalUnavailable("Nothing was cancelled: try again in a moment.")
	}
	if err != nil {
		s.recordFailure(ctx, e, err)
		return err
	}

	return c.JSON(http.StatusAccepted, steerAnswer{
		ObservationID:  stored.ID,
		FHIRStatus:     last.Status,
		TransmissionID: last.Number,
		Message:        "Cancellation requested. A delivery that is under way is finished first, and counts if it succeeds.",
	})
}

func nothingToCancel() error {
	return conflict("nothing_to_cancel", "No transmission of this observation is under way. Nothing was changed.")
}

func alreadyTransmitted(t *db.Transmission) error {
	return conflict("already_transmitted", "Observation was delivered to eClinicalWorks already, as Observation/%s.", *t.ECWObservationID)
}

// updateTransmission sends an update to the workflow of the path's observation, and starts the workflow when
// none runs.
func (s *server) updateTransmission(c echo.Context, update string, action audit.Action) (
	stored db.Observation, state workflows.TransmissionState, err error,
) {
	if stored, err = s.loadObservation(c); err != nil {
		return stored, state, err
	}

	ctx := c.Request().Context()
	last, err := s.latestTransmission(ctx, stored.ID)
	if err != nil {
		return stored, state, err
	}
	if last != nil && last.Status == db.StatusTransmitted {
		return stored, state, alreadyTransmitted(last)
	}

	held, err := s.heldReason(ctx, stored.ID)
	if err != nil {
		return stored, state, err
	}
	if held != nil && *held == heldArchived {
		return stored, state, patientArchived(stored.PatientID)
	}
	if update == workflows.UpdateTransmitNow && stored.Resource == nil {
		return stored, state, badRequest("not_transformed", "Observation has not been transformed to FHIR format yet.")
	}

	if update == workflows.UpdateTransmitNow {
		if err := s.spendAsked(ctx); err != nil {
			return stored, state, err
		}
	}

	e := s.readingEvent(callerOf(c), action, stored)
	if err := s.begin(c, e); err != nil {
		return stored, state, err
	}
	if state, err = s.updateWithStart(ctx, stored.ID, update, requestOf(c)); err != nil {
		s.recordFailure(ctx, e, err)
	}
	return stored, state, err
}

// spendAsked counts a request that a worker sends to eCW because a person asks for it.
func (s *server) spendAsked(ctx context.Context) error {
	if s.Asked == nil {
		return nil
	}
	wait, err := s.Asked.Spend(ctx)
	if errors.Is(err, ecw.ErrBudgetUsed) {
		return budgetUsed(wait)
	}
	return err
}

func (s *server) updateWithStart(ctx context.Context, id uuid.UUID, update string, req workflows.Request) (state workflows.TransmissionState, err error) {
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()

	in := workflows.TransmissionInput{ObservationRef: s.ref(id), Request: req}
	in.LookUp = true // a person may ask because a restored database has lost the record of a delivery
	options := workflows.TransmissionStart(s.PracticeCode, id).Options()
	handle, err := s.Temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: s.Temporal.NewWithStartWorkflowOperation(options, workflows.Transmission, in),
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateName:   update,
			Args:         []any{req},
			WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err == nil {
		err = handle.Get(ctx, &state)
	}
	return state, s.updateError(ctx, id, err)
}

func (s *server) updateError(ctx context.Context, id uuid.UUID, err error) error {
	var refused *temporal.ApplicationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.Type() == workflows.ErrInProgress:
		return conflict("in_progress", "A delivery of this observation is in progress: wait for its outcome.")
	case errors.As(err, &refused) && refused.Type() != payload.TypeUnopened: // that is a worker that lacks a key
		return &Error{Status: http.StatusUnprocessableEntity, Code: refused.Type(), Detail: refused.Message()}
	}

	s.Logger.WarnContext(ctx, "update not taken", "observation_id", id, "error", err)
	return &Error{
		Status: http.StatusServiceUnavailable,
		Code:   "temporal_unavailable",
		Detail: "No worker took the request in time. The reading is safe. Try again in a moment. " +
			"If it happens again, check that Temporal and a worker run.",
	}
}
