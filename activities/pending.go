package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// Pending holds the activities of the ProcessPending workflow.
type Pending struct {
	Store *db.Store
}

// PendingQuery says which observations to look for.
type PendingQuery struct {
	PracticeCode string
	// Grace leaves alone what was stored or changed less than this ago: a workflow is probably at it.
	Grace time.Duration
	// After is the last one that was found before; the zero value begins with the oldest.
	After PendingCursor
	Limit int
}

// PendingCursor is a place in the list of pending observations, which is in the order of time.
type PendingCursor struct {
	CreatedAt     time.Time
	ObservationID uuid.UUID
}

// PendingPage is a part of that list.
type PendingPage struct {
	ObservationIDs []uuid.UUID
	// Last is the place of the last of them.
	Last PendingCursor
}

// FindPending lists observations that should be on their way to eCW and that, as far as the database tells, nobody
// carries: never started, or stopped half-way. Oldest first.
func (a *Pending) FindPending(ctx context.Context, q PendingQuery) (page PendingPage, err error) {
	rows, err := a.Store.ListPendingObservations(ctx, db.ListPendingObservationsParams{
		PracticeCode:   q.PracticeCode,
		Grace:          q.Grace.Seconds(),
		AfterCreatedAt: q.After.CreatedAt,
		AfterID:        q.After.ObservationID,
		Batch:          int32(q.Limit),
	})
	if err != nil {
		return PendingPage{}, fmt.Errorf("list pending observations: %w", err)
	}
	for _, row := range rows {
		page.ObservationIDs = append(page.ObservationIDs, row.ID)
		page.Last = PendingCursor{CreatedAt: row.CreatedAt, ObservationID: row.ID}
	}
	return page, nil
}

// ObservationList names observations of one practice.
type ObservationList struct {
	PracticeCode   string
	ObservationIDs []uuid.UUID
}

// PendingResult is what became of the observations so far.
type PendingResult struct {
	// Open counts those whose first delivery has not ended yet.
	Open        int
	Transformed int
	Transmitted int
	Errors      []TransmissionError
}

// TransmissionError is one delivery that failed. RetryAt is nil when a person has to act.
type TransmissionError struct {
	ObservationID uuid.UUID
	Message       string
	RetryAt       *time.Time
}

// SumUp tells where the observations stand.
func (a *Pending) SumUp(ctx context.Context, list ObservationList) (PendingResult, error) {
	rows, err := a.Store.ListOutcomes(ctx, db.ListOutcomesParams{PracticeCode: list.PracticeCode, ObservationIDs: list.ObservationIDs})
	if err != nil {
		return PendingResult{}, fmt.Errorf("list outcomes: %w", err)
	}
	result := PendingResult{Open: len(list.ObservationIDs) - len(rows)}
	for _, row := range rows {
		if row.Transformed {
			result.Transformed++
		}
		switch {
		case row.Status == db.StatusTransmitted:
			result.Transmitted++
		case row.Status == db.StatusFailed && !row.Due:
			result.Errors = append(result.Errors, TransmissionError{ObservationID: row.ObservationID, Message: row.ErrorMessage, RetryAt: row.NextRetryAt})
		default:
			result.Open++
		}
	}
	return result, nil
}
