package gate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

// The states of the circuit.
const (
	// Closed lets deliveries begin.
	Closed = "closed"
	// Open holds them all.
	Open = "open"
	// HalfOpen lets one through, the trial, whose outcome closes the circuit or opens it again.
	HalfOpen = "half_open"
)

// Why a circuit is not closed.
const (
	// ReasonUnavailable: eCW cannot be reached, or fails at everything.
	ReasonUnavailable = "unavailable"
	// ReasonCredentials: eCW refuses us; a person has to mend that.
	ReasonCredentials = "credentials"
)

// openAfter is how many different readings in a row must find eCW unavailable or be forbidden before the circuit opens:
// one that eCW cannot handle does not stop the others.
const openAfter = 3

// Finding is what a delivery's outcome says about eCW itself.
type Finding int

const (
	// Nothing: the delivery never got as far as eCW, or broke off on our side.
	Nothing Finding = iota
	// Answers: eCW works, whatever it said to this reading.
	Answers
	// Unavailable: eCW could not be reached or failed as a whole.
	Unavailable
	// Refuses: eCW does not accept our credentials.
	Refuses
	// Forbids: eCW gave a token, and forbids this request with it: the scopes, the app, or this patient only.
	Forbids
)

// Report is what a delivery found.
type Report struct {
	TransmissionID string
	// StartedAt is when the delivery began; zero when none did.
	StartedAt time.Time
	Finding   Finding
	// Message says what was wrong, in words that may be shown to anybody.
	Message string
}

// Change is what a report did to the circuit.
type Change struct {
	Opened, Closed bool
	// Unsettled means that the circuit is not closed, or that there is something to release because it just has been.
	Unsettled bool
	Reason    string
}

// Take takes a report into account, as part of the transaction that records the delivery.
func (g *Gate) Take(ctx context.Context, q *db.Queries, r Report) (Change, error) {
	if !g.created.Load() { // in the transaction: another connection may not be free until this one is
		if err := q.CreateGate(ctx, g.practice); err != nil {
			return Change{}, fmt.Errorf("create gate: %w", err)
		}
	}
	state, err := q.GetGate(ctx, g.practice)
	if err != nil {
		return Change{}, g.failed("look at circuit", err)
	}
	if state.Circuit == Closed && (r.Finding == Nothing || r.Finding == Answers) {
		if r.Finding == Answers && len(state.Failing) > 0 {
			err = q.ForgetFailures(ctx, g.practice)
		}
		return Change{}, err
	}
	if state, err = q.LockGate(ctx, g.practice); err != nil {
		return Change{}, fmt.Errorf("lock circuit: %w", err)
	}
	now := time.Now().UTC()
	if r.StartedAt.IsZero() {
		r.StartedAt = now
	}
	next := step(state, r, now)
	if err := save(ctx, q, next); err != nil {
		return Change{}, err
	}
	change := Change{
		Opened:    state.Circuit == Closed && next.Circuit == Open,
		Closed:    state.Circuit != Closed && next.Circuit == Closed,
		Unsettled: state.Circuit != Closed || next.Circuit != Closed,
		Reason:    next.Reason,
	}
	if change.Closed {
		err = q.ResetQueue(ctx, g.practice)
	}
	return change, err
}

// step is the circuit after a report. While it is open, only the trial's report closes it: what else comes in began
// before.
func step(s db.Gate, r Report, now time.Time) db.Gate {
	trial := s.Circuit == HalfOpen && s.Trial == r.TransmissionID
	switch r.Finding {
	case Answers:
		if trial || s.Circuit == Closed {
			return closed(s)
		}
	case Refuses:
		if trial || s.Circuit == Closed {
			return opened(s, ReasonCredentials, r, now)
		}
		s.Reason, s.Message = ReasonCredentials, r.Message // graver than an outage
	case Unavailable, Forbids:
		s.FailingSince = earliest(s.FailingSince, r.StartedAt) // deliveries do not end in the order that they began in
		if s.Circuit == Closed && !slices.Contains(s.Failing, r.TransmissionID) {
			s.Failing = append(s.Failing, r.TransmissionID)
		}
		if trial || s.Circuit == Closed && len(s.Failing) >= openAfter {
			return opened(s, r.Finding.reason(), r, now)
		}
	case Nothing:
		if trial {
			return opened(s, s.Reason, Report{Message: s.Message, StartedAt: r.StartedAt}, now)
		}
	}
	return s
}

// reason is why a circuit opens that three findings of a kind open.
func (f Finding) reason() string {
	if f == Forbids {
		return ReasonCredentials
	}
	return ReasonUnavailable
}

func closed(s db.Gate) db.Gate {
	s.Circuit, s.Reason, s.Message, s.Trial, s.Failing = Closed, "", "", "", []string{}
	s.FailingSince, s.OpenedAt, s.NextTrialAt = nil, nil, nil
	return s
}

func opened(s db.Gate, reason string, r Report, now time.Time) db.Gate {
	s.Circuit, s.Reason, s.Message, s.Trial = Open, reason, r.Message, ""
	s.FailingSince = earliest(s.FailingSince, r.StartedAt)
	s.OpenedAt = earliest(s.OpenedAt, now)
	return s
}

func earliest(known *time.Time, t time.Time) *time.Time {
	if known != nil && known.Before(t) {
		return known
	}
	return &t
}

func save(ctx context.Context, q *db.Queries, s db.Gate) error {
	err := q.SetCircuit(ctx, db.SetCircuitParams{
		PracticeCode: s.PracticeCode, Circuit: s.Circuit, Reason: s.Reason, Message: s.Message, Failing: s.Failing,
		FailingSince: s.FailingSince, OpenedAt: s.OpenedAt, NextTrialAt: s.NextTrialAt, Trial: s.Trial,
	})
	if err != nil {
		return fmt.Errorf("set circuit: %w", err)
	}
	return nil
}
