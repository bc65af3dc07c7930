package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// Circuit returns the state of the circuit.
func (g *Gate) Circuit(ctx context.Context) (db.Gate, error) {
	if err := g.create(ctx); err != nil {
		return db.Gate{}, err
	}
	state, err := g.store.GetGate(ctx, g.practice)
	if err != nil {
		return state, g.failed("look at circuit", err)
	}
	return state, nil
}

// PlanTrial writes down how long it is until the next trial, for people to see.
func (g *Gate) PlanTrial(ctx context.Context, wait time.Duration) error {
	if err := g.store.PlanTrial(ctx, db.PlanTrialParams{PracticeCode: g.practice, Wait: wait.Seconds()}); err != nil {
		return fmt.Errorf("plan trial: %w", err)
	}
	return nil
}

// Waiting is a transmission that waits for the circuit to close.
type Waiting struct {
	TransmissionID string
	ObservationID  uuid.UUID
	// Requests is how many requests to eCW its delivery will probably take: one more when it may have arrived before.
	Requests int
	// SeenAt is when its row last changed, so that [db.Queries.ReleaseTransmission] leaves one alone that went on since.
	SeenAt time.Time
}

// NextTrial lets one of those that wait through: the one left alone the longest, so that a reading that eCW cannot
// handle does not keep the circuit open for the others. With nobody waiting, the next to come is the trial. found is
// false then, and when the circuit is closed.
func (g *Gate) NextTrial(ctx context.Context) (next Waiting, found bool, err error) {
	err = g.store.InTx(ctx, func(q *db.Queries) error {
		state, err := q.GetGate(ctx, g.practice)
		if err != nil || state.Circuit == Closed {
			return err
		}
		rows, err := q.ListTrials(ctx, db.ListTrialsParams{PracticeCode: g.practice, FailingSince: *state.FailingSince, Batch: 1})
		if err != nil {
			return err
		}
		if len(rows) > 0 { // before the gate is locked, as everybody does
			if err := q.TouchTransmission(ctx, rows[0].ID); err != nil {
				return err
			}
		}
		if state, err = q.LockGate(ctx, g.practice); err != nil || state.Circuit == Closed {
			return err
		}
		state.Circuit, state.Trial, state.NextTrialAt = HalfOpen, "", nil
		if len(rows) > 0 {
			next, found = Waiting{TransmissionID: rows[0].ID, ObservationID: rows[0].ObservationID}, true
			state.Trial = next.TransmissionID
		}
		return save(ctx, q, state)
	})
	if err != nil {
		return Waiting{}, false, fmt.Errorf("choose trial: %w", err)
	}
	return next, found, nil
}

// WaitingSince lists who waits for the circuit, first in, first out: those it holds, and those that were last tried in
// the outage, between since and until, and would wait for their retry.
func (g *Gate) WaitingSince(ctx context.Context, since, until time.Time, limit int) ([]Waiting, error) {
	rows, err := g.store.ListHeld(ctx, db.ListHeldParams{PracticeCode: g.practice, FailingSince: since, FailingUntil: until, Batch: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("list held transmissions: %w", err)
	}
	waiting := make([]Waiting, len(rows))
	for i, row := range rows {
		waiting[i] = Waiting{TransmissionID: row.ID, ObservationID: row.ObservationID, Requests: 1, SeenAt: row.UpdatedAt}
		if row.Attempted {
			waiting[i].Requests = 2
		}
	}
	return waiting, nil
}
