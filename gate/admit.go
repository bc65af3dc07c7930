package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

// Request asks for the delivery of a transmission.
type Request struct {
	TransmissionID string
	// Place is the transmission's place in the queue, zero while it has none.
	Place time.Time
	// Requests is how many requests to eCW the delivery will probably take.
	Requests int
	// Asked means that a person asked for it just now: it need not queue, and tries an open circuit.
	Asked bool
}

// Admission says whether a delivery may begin: neither Held nor with a Wait, it may.
type Admission struct {
	// Place is the place in the queue, to be shown when the wait is over.
	Place time.Time `json:",omitzero"`
	// Wait is how long until the turn comes.
	Wait time.Duration `json:",omitempty"`
	// Held means that the circuit is not closed; whoever closes it tells the transmission.
	Held bool `json:",omitempty"`
	// Reason is why: ReasonUnavailable or ReasonCredentials.
	Reason string `json:",omitempty"`
	// Trial means that this delivery decides whether the circuit closes.
	Trial bool `json:",omitempty"`
}

// Admit lets a delivery begin, or writes down that the transmission waits. A delivery that may not begin is no attempt.
func (g *Gate) Admit(ctx context.Context, r Request) (Admission, error) {
	state, err := g.Circuit(ctx)
	if err != nil {
		return Admission{}, err
	}
	if state.Circuit != Closed {
		a, err := g.tryOrHold(ctx, r)
		if err != nil || a.Held || a.Trial {
			return a, err
		}
	}
	if r.Asked {
		return Admission{}, nil
	}
	return g.queue(ctx, r)
}

// tryOrHold makes a transmission the trial of a circuit that is not closed, or holds it. It does neither when the circuit
// has closed meanwhile.
func (g *Gate) tryOrHold(ctx context.Context, r Request) (a Admission, err error) {
	err = g.store.InTx(ctx, func(q *db.Queries) error {
		if err := q.LockTransmission(ctx, r.TransmissionID); err != nil {
			return err
		}
		state, err := q.LockGate(ctx, g.practice)
		if err != nil || state.Circuit == Closed {
			return err
		}
		vacant := state.Circuit == HalfOpen && state.Trial == ""
		switch {
		case state.Trial == r.TransmissionID:
			a.Trial = true
			return nil
		case vacant, state.Circuit == Open && r.Asked:
			state.Circuit, state.Trial = HalfOpen, r.TransmissionID
			a.Trial = true
			return save(ctx, q, state)
		}
		a = Admission{Held: true, Reason: state.Reason}
		return q.HoldTransmission(ctx, r.TransmissionID)
	})
	if err != nil {
		return Admission{}, fmt.Errorf("ask circuit: %w", err)
	}
	return a, nil
}

// queue takes a turn, or finds the one that is held, and writes down when it comes unless that is now.
func (g *Gate) queue(ctx context.Context, r Request) (Admission, error) {
	turn, err := g.TakeTurn(ctx, r.Place, r.Requests)
	if err != nil {
		return Admission{}, err
	}
	if turn.Wait > 0 {
		err = g.store.QueueTransmission(ctx, db.QueueTransmissionParams{ID: r.TransmissionID, TurnComesAt: turn.ComesAt})
	}
	if err != nil {
		return Admission{}, fmt.Errorf("queue transmission: %w", err)
	}
	return Admission{Place: turn.Place, Wait: turn.Wait}, nil
}
