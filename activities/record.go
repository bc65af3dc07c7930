package activities

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// Outcome is what became of one delivery, and what follows from it.
type Outcome struct {
	ObservationRef
	TransmissionID uuid.UUID
	// Delivery is 0 when the transmission ends between two deliveries.
	Delivery int
	// StartedAt is when the delivery began.
	StartedAt  time.Time `json:",omitzero"`
	FinishedAt time.Time
	// Posted is set when eCW acknowledged; otherwise Failure says what went wrong.
	Posted  *Posted
	Failure Failure
	Verdict
}

// Verdict is what follows from a delivery. The workflow decides it.
type Verdict struct {
	// Status is the transmission's: db.StatusPending and so on.
	Status string
	// AttemptCount is how many of the allowed attempts are used up now.
	AttemptCount int
	// NextRetryAt is when the next delivery may start at the earliest; nil means that none will, or that it is Held.
	NextRetryAt *time.Time
	// Held means that the next delivery starts when the circuit closes; HeldFor is the circuit's reason.
	Held    bool   `json:",omitempty"`
	HeldFor string `json:",omitempty"`
	// Finding is what the delivery says about eCW itself.
	Finding gate.Finding `json:",omitempty"`
}

// Final reports whether no delivery follows one that failed.
func (v Verdict) Final() bool { return v.NextRetryAt == nil && !v.Held }

// Recorded says what an outcome did to the practice's circuit.
type Recorded struct {
	// CircuitUnsettled means that the circuit breaker has something to do.
	CircuitUnsettled bool `json:",omitempty"`
	// CircuitClosed means that this outcome has closed it.
	CircuitClosed bool `json:",omitempty"`
}

// Record writes the outcome of a delivery to the attempt, to the transmission, to the audit trail and to the practice's
// circuit, all or none. Then it calls the next one from the queue. It may run twice.
func (a *Transmission) Record(ctx context.Context, out Outcome) (Recorded, error) {
	var change gate.Change
	err := a.Store.InTx(ctx, func(q *db.Queries) error {
		if err := write(ctx, q, out); err != nil {
			return err
		}
		var err error
		change, err = a.Gate.Report(ctx, q, gate.Report{
			TransmissionID: out.TransmissionID,
			StartedAt:      out.StartedAt,
			Finding:        out.Finding,
			Message:        out.Failure.Message,
		})
		return err
	})
	if err != nil {
		return Recorded{}, written("record outcome", err)
	}
	announce(ctx, a.Logger, change, out.Failure)
	a.goOn(ctx, change)
	return Recorded{CircuitUnsettled: change.Unsettled || out.Held, CircuitClosed: change.Closed}, nil
}

// goOn calls those who may go after a delivery has ended. The CircuitBreaker and the sweep do so too where it fails.
func (a *Transmission) goOn(ctx context.Context, change gate.Change) {
	var err error
	switch {
	case change.Closed:
		err = a.Gate.Release(ctx, change.FailingSince)
	case change.TryNext:
		_, err = a.Gate.TryNext(ctx)
	default:
		a.Gate.CallNext(ctx)
	}
	if err != nil {
		a.Logger.WarnContext(ctx, "what waits for eCW was not called yet", "error", err)
	}
}

func write(ctx context.Context, q *db.Queries, out Outcome) error {
	if err := auditOutcome(ctx, q, out); err != nil {
		return err
	}
	httpStatus, ecwID := status(out.Failure.HTTPStatus), (*string)(nil)
	if out.Posted != nil {
		httpStatus, ecwID = status(out.Posted.HTTPStatus), &out.Posted.ECWObservationID
	}
	if out.Delivery > 0 {
		err := db.Written(q.FinishAttempt(ctx, db.FinishAttemptParams{
			TransmissionID:   out.TransmissionID,
			ObservationID:    out.ObservationID,
			Delivery:         int32(out.Delivery),
			FinishedAt:       out.FinishedAt,
			HTTPStatus:       httpStatus,
			ECWObservationID: ecwID,
			ErrorClass:       string(out.Failure.Class),
			ErrorCode:        out.Failure.Code,
			ErrorMessage:     out.Failure.Message,
		}))
		if err != nil {
			return err
		}
	} else {
		unsent := db.ForgetUnsentParams{TransmissionID: out.TransmissionID, ObservationID: out.ObservationID}
		if err := q.ForgetUnsent(ctx, unsent); err != nil {
			return err
		}
	}
	return db.Written(q.RecordOutcome(ctx, db.RecordOutcomeParams{
		ID:               out.TransmissionID,
		ObservationID:    out.ObservationID,
		Delivery:         int32(out.Delivery),
		Status:           out.Status,
		AttemptCount:     int32(out.AttemptCount),
		NextRetryAt:      out.NextRetryAt,
		Held:             out.Held,
		HTTPStatus:       httpStatus,
		ECWObservationID: ecwID,
		ErrorClass:       string(out.Failure.Class),
		ErrorMessage:     out.Failure.Message,
	}))
}

// auditOutcome writes what became of the delivery, unless the same outcome stands already: Record runs again when it was not
// known whether it, or Deliver, had written it.
func auditOutcome(ctx context.Context, q *db.Queries, out Outcome) error {
	known, err := q.LockOutcome(ctx, db.LockOutcomeParams{
		TransmissionID: out.TransmissionID,
		ObservationID:  out.ObservationID,
		Delivery:       int32(out.Delivery),
		FinishedAt:     out.FinishedAt,
		ErrorClass:     string(out.Failure.Class),
		ErrorCode:      out.Failure.Code,
	})
	switch {
	case db.IsNotFound(err):
		return db.ErrForgotten
	case err != nil || known.Stands:
		return err
	case out.Posted != nil:
		return auditDelivered(ctx, q, out.ObservationRef, known.PatientID)
	}
	return auditFailed(ctx, q, out.ObservationRef, known.PatientID, out.Failure)
}

// announce tells the operators what concerns all readings.
func announce(ctx context.Context, log *slog.Logger, change gate.Change, f Failure) {
	switch {
	case change.Opened && change.Reason == gate.ReasonCredentials:
		log.ErrorContext(ctx, "eCW refuses our credentials: no reading is delivered until this is fixed", "code", f.Code, "remedy", f.Message)
	case change.Opened:
		log.WarnContext(ctx, "eCW is unavailable: readings wait until it answers again", "code", f.Code, "message", f.Message)
	case change.Closed:
		log.InfoContext(ctx, "eCW takes readings again")
	}
}

func status(code int) *int32 {
	if code == 0 {
		return nil
	}
	s := int32(code)
	return &s
}
