package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
)

// Outcome is what became of one delivery, and what comes next.
type Outcome struct {
	TransmissionID string
	// Delivery is 0 when the transmission ends between two deliveries.
	Delivery int
	// AttemptCount is how many of the allowed attempts are used up now.
	AttemptCount int
	FinishedAt   time.Time
	// Posted is set when eCW acknowledged; otherwise Class and Failure say what went wrong.
	Posted  *Posted
	Class   string
	Failure Failure
	// NextRetryAt is when the next delivery may start at the earliest; nil means that none will.
	NextRetryAt *time.Time
}

// Record writes the outcome of a delivery to the attempt and to the transmission, both or neither.
func (a *Transmission) Record(ctx context.Context, out Outcome) error {
	attempt := db.FinishAttemptParams{
		TransmissionID: out.TransmissionID, Delivery: int32(out.Delivery), FinishedAt: out.FinishedAt,
		ErrorClass: out.Class, ErrorCode: out.Failure.Code, ErrorMessage: out.Failure.Message, HTTPStatus: status(out.Failure.HTTPStatus),
	}
	if out.Posted != nil {
		attempt.HTTPStatus, attempt.ECWObservationID = status(out.Posted.HTTPStatus), &out.Posted.ECWObservationID
	}
	err := a.Store.InTx(ctx, func(q *db.Queries) error {
		if err := q.FinishAttempt(ctx, attempt); err != nil {
			return err
		}
		return q.RecordOutcome(ctx, db.RecordOutcomeParams{
			ID: out.TransmissionID, Status: out.status(), AttemptCount: int32(out.AttemptCount), NextRetryAt: out.NextRetryAt,
			HTTPStatus: attempt.HTTPStatus, ECWObservationID: attempt.ECWObservationID, ErrorClass: out.Class, ErrorMessage: out.Failure.Message,
		})
	})
	if err != nil {
		return fmt.Errorf("record outcome: %w", err)
	}
	return nil
}

func (out Outcome) status() string {
	switch {
	case out.Posted != nil:
		return db.StatusTransmitted
	case out.Class == string(ecw.ClassThrottled):
		return db.StatusPending
	default:
		return db.StatusFailed
	}
}

func status(code int) *int32 {
	if code == 0 {
		return nil
	}
	s := int32(code)
	return &s
}
