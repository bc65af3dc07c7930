package gate

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// ImportItem is what the circuit knows an item of an import by, where it knows a delivery by its transmission: the same
// whenever the item is tried.
func ImportItem(importID uuid.UUID, ordinal int32) uuid.UUID {
	return uuid.NewSHA1(importID, []byte(strconv.Itoa(int(ordinal))))
}

// AdmitImport lets an item of an import begin, or says that it waits for the circuit. Nobody calls it: it asks again. It is
// the trial only where no transmission waits to be that, and its outcome is reported with [Gate.Report] as a delivery's is.
func (g *Gate) AdmitImport(ctx context.Context, item uuid.UUID) (a Admission, err error) {
	state, err := g.State(ctx)
	if err != nil || state.Circuit != HalfOpen { // most find it closed, and need no lock
		return admitImport(state), err
	}
	err = g.locked(ctx, func(q *db.Queries, state db.Gate, _ time.Time) error {
		next := afterArrival(state, item, false)
		if !isTrial(next, item) {
			a = admitImport(state)
			return nil
		}
		a = Admission{Trial: true}
		if isTrial(state, item) {
			return nil
		}
		return save(ctx, q, next)
	})
	if err != nil {
		return Admission{}, fmt.Errorf("ask gate: %w", err)
	}
	return a, nil
}

// admitImport is the admission of an item that is not the trial.
func admitImport(state db.Gate) Admission {
	return Admission{Held: state.Circuit != Closed, Reason: state.Reason, Trying: state.Circuit == HalfOpen}
}
