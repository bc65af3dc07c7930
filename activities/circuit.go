package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// Circuit holds the activities of the CircuitBreaker workflow.
type Circuit struct {
	Store *db.Store
	Gate  *gate.Gate
	// Proceed tells the workflow of an observation that it may go, and starts one where it was lost.
	Proceed func(ctx context.Context, practice string, observationID uuid.UUID, call Call) error
}

// Call tells a waiting transmission that it may go.
type Call struct {
	// Place is its place in the queue for eCW's request limit, whose turn comes at ComesAt. Both are zero for the trial of
	// a circuit, which goes at once.
	Place   time.Time `json:",omitzero"`
	ComesAt time.Time `json:",omitzero"`
}

// CircuitState is where a practice's circuit stands.
type CircuitState struct {
	// State is gate.Closed, gate.Open or gate.HalfOpen; Reason and Message say why it is not closed.
	State   string
	Reason  string
	Message string
	// FailingSince is when the first delivery failed of those that opened it, zero when it is closed.
	FailingSince time.Time
	// Held is how many transmissions wait.
	Held int64
}

// TrialPlan names a practice, and how long it is until the next trial.
type TrialPlan struct {
	PracticeCode string
	Wait         time.Duration
}

// PlanTrial writes down when the next trial of the circuit will be, for people to see.
func (a *Circuit) PlanTrial(ctx context.Context, plan TrialPlan) error {
	return a.Gate.PlanTrial(ctx, plan.Wait)
}

// LookAtCircuit tells where the circuit stands.
func (a *Circuit) LookAtCircuit(ctx context.Context, practice string) (CircuitState, error) {
	state, err := a.Gate.Circuit(ctx)
	if err != nil {
		return CircuitState{}, err
	}
	held, err := a.Store.CountHeld(ctx, practice)
	if err != nil {
		return CircuitState{}, fmt.Errorf("count held transmissions: %w", err)
	}
	return circuitState(state, held), nil
}

func circuitState(g db.Gate, held int64) CircuitState {
	state := CircuitState{State: g.Circuit, Reason: g.Reason, Message: g.Message, Held: held}
	if g.FailingSince != nil {
		state.FailingSince = *g.FailingSince
	}
	return state
}

// StartTrial lets one waiting transmission through and returns its id; "" when none waits.
func (a *Circuit) StartTrial(ctx context.Context, practice string) (string, error) {
	next, found, err := a.Gate.NextTrial(ctx)
	if err != nil || !found {
		return "", err
	}
	return next.TransmissionID, a.Proceed(ctx, practice, next.ObservationID, Call{})
}

// Release is what one run of Release takes on.
type Release struct {
	PracticeCode string
	// Since and Until are when the outage began and ended: who failed in between need not wait for its retry.
	Since time.Time
	Until time.Time
	Limit int
}

// ReleaseHeld gives the next ones that wait for the circuit their turns within eCW's request limit, first in, first out,
// and tells them. It returns how many there were. It may run twice: who was told twice delivers once.
func (a *Circuit) ReleaseHeld(ctx context.Context, r Release) (int, error) {
	waiting, err := a.Gate.WaitingSince(ctx, r.Since, r.Until, r.Limit)
	if err != nil {
		return 0, err
	}
	for _, w := range waiting {
		turn, err := a.Gate.TakeTurn(ctx, time.Time{}, w.Requests)
		if err != nil {
			return 0, err
		}
		if err := a.Proceed(ctx, r.PracticeCode, w.ObservationID, Call{Place: turn.Place, ComesAt: turn.ComesAt}); err != nil {
			return 0, err
		}
		// After the call: a row that waits no longer would not be called again.
		err = a.Store.ReleaseTransmission(ctx, db.ReleaseTransmissionParams{ID: w.TransmissionID, TurnComesAt: turn.ComesAt, SeenAt: w.SeenAt})
		if err != nil {
			return 0, fmt.Errorf("queue transmission: %w", err)
		}
		activity.RecordHeartbeat(ctx)
	}
	return len(waiting), nil
}
