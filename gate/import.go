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
		vacant := state.Circuit == HalfOpen && state.Trial == nil
		switch {
		case isTrial(state, item):
			a = Admission{Trial: true}
			return nil
		case !vacant:
			a = admitImport(state)
			return nil
		}
		state.Trial = &item
		a = Admission{Trial: true}
		return save(ctx, q, state)
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
