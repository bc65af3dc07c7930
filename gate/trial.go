package gate

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// PlanTrial records how long it is until the next trial, for people to see.
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

// TryNext makes one of those that wait the trial, and calls its workflow. It reports whether one waited.
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

// NextTrial lets one of those that wait through: the one left alone the longest, so that a reading that eCW
// cannot handle does not keep the circuit open for the others. With nobody waiting, the next to come is the
// trial. found is false then, and when the circuit is closed.
func (g *Gate) NextTrial(ctx context.Context) (next Waiting, found bool, err error) {
	err = g.store.InTx(ctx, func(q *db.Queries) error {
		next, found, err = g.chooseTrial(ctx, q)
		return err
	})
	if err != nil {
		return Waiting{}, false, fmt.Errorf("choose trial: %w", err)
	}
	return next, found, nil
}

func (g *Gate) chooseTrial(ctx context.Context, q *db.Queries) (next Waiting, found bool, err error) {
	state, err := q.GetGate(ctx, g.cfg.Practice)
	if err != nil || state.Circuit == Closed {
		return Waiting{}, false, err
	}
	next, found, err = g.leftAlone(ctx, q, *state.FailingSince)
	if err != nil {
		return Waiting{}, false, err
	}

	state, err = q.LockGate(ctx, g.cfg.Practice)
	if err != nil || state.Circuit == Closed {
		return Waiting{}, false, err
	}
	if !found {
		return Waiting{}, false, save(ctx, q, afterChoice(state, nil))
	}
	return next, true, save(ctx, q, afterChoice(state, &next.TransmissionID))
}

// leftAlone locks the transmission that was left alone the longest, and puts it at the end of that order. The
// gate is locked after it, as everywhere.
func (g *Gate) leftAlone(ctx context.Context, q *db.Queries, failingSince time.Time) (longest Waiting, found bool, err error) {
	rows, err := q.ListTrials(ctx, db.ListTrialsParams{
		PracticeCode: g.cfg.Practice,
		FailingSince: failingSince,
		FirstWait:    g.cfg.FirstWait.Seconds(),
		Batch:        1,
	})
	if err != nil || len(rows) == 0 {
		return Waiting{}, false, err
	}
	longest = Waiting{TransmissionID: rows[0].ID, ObservationID: rows[0].ObservationID}
	return longest, true, q.TouchTransmission(ctx, longest.TransmissionID)
}

// tryOrHold makes a transmission the trial of a circuit that is not closed, or holds it. Where no place is
// free, the trial's first request waits for one.
func (g *Gate) tryOrHold(ctx context.Context, q *db.Queries, state db.Gate, r Request) (Admission, error) {
	trial, err := becomesTrial(ctx, q, state, r.TransmissionID, r.Asked)
	if err != nil {
		return Admission{}, err
	}
	if !trial {
		return g.hold(ctx, q, state, r, state.Reason)
	}

	p := placeOfDelivery(r.TransmissionID)
	free, err := g.isFree(ctx, q, state, p)
	if err != nil || !free {
		return Admission{Trial: true}, err
	}
	return Admission{Trial: true}, g.keep(ctx, q, p, 0)
}

// becomesTrial reports whether a delivery, or an item of an import, that has come is the trial, already or
// from now on.
func becomesTrial(ctx context.Context, q *db.Queries, state db.Gate, id uuid.UUID, asked bool) (bool, error) {
	if isTrial(state, id) {
		return true, nil
	}
	next := afterArrival(state, id, asked)
	if !isTrial(next, id) {
		return false, nil
	}
	return true, save(ctx, q, next)
}

// ImportItem is the id of an item of an import, by which the circuit knows it as it knows a delivery by its
// transmission: the same whenever the item is tried.
func ImportItem(importID uuid.UUID, ordinal int32) uuid.UUID {
	return uuid.NewSHA1(importID, []byte(strconv.Itoa(int(ordinal))))
}

// AdmitImport lets an item of an import begin, or says that it waits for the circuit. Nobody calls it: it
// asks again. It is the trial only where no transmission waits to be that, and its outcome is reported with
// [Gate.Report] as a delivery's is.
func (g *Gate) AdmitImport(ctx context.Context, item uuid.UUID) (a Admission, err error) {
	state, err := g.State(ctx)
	if err != nil || state.Circuit != HalfOpen { // most find it closed, and need no lock
		return admitImport(state), err
	}

	err = g.locked(ctx, func(q *db.Queries, state db.Gate, _ time.Time) error {
		trial, err := becomesTrial(ctx, q, state, item, false)
		a = Admission{Trial: true}
		if !trial {
			a = admitImport(state)
		}
		return err
	})
	if err != nil {
		return Admission{}, fmt.Errorf("ask gate: %w", err)
	}
	return a, nil
}

// admitImport is the admission of an item that is not the trial.
func admitImport(state db.Gate) Admission {
	return Admission{
		Held:   state.Circuit != Closed,
		Reason: state.Reason,
		Trying: state.Circuit == HalfOpen,
	}
}
