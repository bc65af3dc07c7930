package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/workflows"
)

const (
	// pendingWait is how long a run that a person started waits for the outcomes of the first deliveries.
	pendingWait = 20 * time.Second
	// pendingTimeout bounds the whole request.
	pendingTimeout = time.Minute
)

// pendingAnswer has the form that the API reference prescribes.
type pendingAnswer struct {
	Processed int            `json:"processed"`
	Succeeded int            `json:"succeeded"`
	Failed    int            `json:"failed"`
	Details   pendingDetails `json:"details"`
}

type pendingDetails struct {
	Transformed        int            `json:"transformed"`
	Transmitted        int            `json:"transmitted"`
	TransmissionErrors []pendingError `json:"transmission_errors"`
}

type pendingError struct {
	ObservationID uuid.UUID  `json:"observation_id"`
	Error         string     `json:"error"`
	RetryAt       *time.Time `json:"retry_at"`
}

// processPending runs the sweep at once. Deliveries that have not ended after pendingWait go on, and are not
// counted.
func (s *server) processPending(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), pendingTimeout)
	defer cancel()

	in := workflows.PendingInput{PracticeCode: s.PracticeCode, Wait: pendingWait, Request: requestOf(c)}
	e := s.event(callerOf(c), audit.PendingProcess)
	if err := s.begin(c, e); err != nil {
		return err
	}
	run, err := s.Temporal.ExecuteWorkflow(ctx, workflows.SweepStart(s.PracticeCode, uuid.New()).Options(), workflows.ProcessPending, in)
	var result activities.PendingResult
	if err == nil {
		err = run.Get(ctx, &result)
	}
	if err != nil {
		s.Logger.WarnContext(ctx, "pending observations not processed", "error", err)
		err = temporalUnavailable("The schedule starts what is pending every 5 minutes: wait for it, or try again.")
		s.recordFailure(ctx, e, err)
		return err
	}
	return c.JSON(http.StatusOK, showPending(result))
}

func showPending(r activities.PendingResult) pendingAnswer {
	answer := pendingAnswer{
		Processed: r.Transmitted + len(r.Errors),
		Succeeded: r.Transmitted,
		Failed:    len(r.Errors),
		Details: pendingDetails{Transformed: r.Transformed, Transmitted: r.Transmitted, TransmissionErrors: make([]pendingError,
			len(r.Errors))},
	}
	for i, e := range r.Errors {
		answer.Details.TransmissionErrors[i] = pendingError{ObservationID: e.ObservationID, Error: e.Message, RetryAt: e.RetryAt}
	}
	return answer
}
