package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// PlanTrial writes down how long it is until the next trial, for people to see.
func (g *Gate) PlanTrial(ctx context.Context, wait time.Duration) error {
	if err := g.store.PlanTrial(ctx, db.PlanTrialParams{PracticeCode: g.cfg.Practice, Wait: wait.Seconds()}); err != nil {
		return fmt.Errorf("plan trial: %w", err)
	}
	return nil
}

// Waiting is a transmission that waits for the circuit to close.
type Waiting struct {
	TransmissionID uuid.UUID
	ObservationID  uuid.UUID
}

// TryNext makes one of those that wait the trial, and tells it. It reports whether one waited.
func (g *Gate) TryNext(ctx context.Context) (bool, error) {
	next, found, err := g.NextTrial(ctx)
	if err != nil || !found {
		return false, err
	}
	if err := g.cfg.Call(ctx, g.cfg.Practice, next.ObservationID, Call{}); err != nil {
		return false, fmt.Errorf("call the trial: %w", err)
	}
	return true, nil
}

// NextTrial lets one of those that wait through: the one left alone the longest, so that a reading that eCW cannot
// handle does not keep the circuit open for the others. With nobody waiting, the next to come is the trial. found is
// false then, and when the circuit is closed.
func (g *Gate) NextTrial(ctx context.Context) (next Waiting, found bool, err error) {
	err = g.store.InTx(ctx, func(q *db.Queries) error {
		state, err := q.GetGate(ctx, g.cfg.Practice)
		if err != nil || state.Circuit == Closed {
			return err
		}
		rows, err := q.ListTrials(ctx, db.ListTrialsParams{
			PracticeCode: g.cfg.Practice,
			FailingSince: *state.FailingSince,
			FirstWait:    g.cfg.FirstWait.Seconds(),
			Batch:        1,
		})
		if err != nil {
			return err
		}
		if len(rows) > 0 { // before the gate is locked, as everybody does
			if err := q.TouchTransmission(ctx, rows[0].ID); err != nil {
				return err
			}
		}
		if state, err = q.LockGate(ctx, g.cfg.Practice); err != nil || state.Circuit == Closed {
			return err
		}
		if len(rows) == 0 {
			return save(ctx, q, afterChoice(state, nil))
		}
		next, found = Waiting{TransmissionID: rows[0].ID, ObservationID: rows[0].ObservationID}, true
		return save(ctx, q, afterChoice(state, &next.TransmissionID))
	})
	if err != nil {
		return Waiting{}, false, fmt.Errorf("choose trial: %w", err)
	}
	return next, found, nil
}
