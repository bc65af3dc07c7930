package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// Circuit holds the activities of the CircuitBreaker workflow.
type Circuit struct {
	Store *db.Store
	Gate  *gate.Gate
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

// LookAtCircuit returns the state of the circuit.
func (a *Circuit) LookAtCircuit(ctx context.Context, practice string) (CircuitState, error) {
	state, err := a.Gate.State(ctx)
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

// StartTrial lets one waiting transmission through and reports whether there was one.
func (a *Circuit) StartTrial(ctx context.Context, _ string) (bool, error) { return a.Gate.TryNext(ctx) }

// Outage is one that is over.
type Outage struct {
	PracticeCode string
	// Since is when it began; zero when only what was held is left to be released.
	Since time.Time `json:",omitzero"`
}

// Release lets everything go on that waited for eCW, and calls the first of it. The delivery that closed the
// circuit does so too.
func (a *Circuit) Release(ctx context.Context, o Outage) error {
	return a.Gate.Release(ctx, o.Since)
}

// CallNext calls the next in the queue, where a call was lost.
func (a *Circuit) CallNext(ctx context.Context, _ string) error {
	a.Gate.CallNext(ctx)
	return nil
}
