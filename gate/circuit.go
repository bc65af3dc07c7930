package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
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
	// ReasonCredentials: eCW refuses us; a person has to fix that.
	ReasonCredentials = "credentials"
)

// openAfter is how many different readings, or patients of an import, in a row must find eCW unavailable or
// be forbidden before the circuit opens: one that eCW cannot handle does not stop the others.
const openAfter = 3

// Finding is what a request, or the lack of one, says about eCW itself.
type Finding string

const (
	// Nothing: the delivery broke off on our side, or was held up.
	Nothing Finding = ""
	// NotAsked: the transmission has ended, and its delivery never got as far as eCW.
	NotAsked Finding = "not_asked"
	// Answers: eCW works, whatever it said to this request.
	Answers Finding = "answers"
	// Unavailable: eCW could not be reached or failed as a whole.
	Unavailable Finding = "unavailable"
	// Refuses: eCW does not accept our credentials.
	Refuses Finding = "refuses"
	// Forbids: eCW gave a token, and forbids this request with it: the scopes, the app, or this patient only.
	Forbids Finding = "forbids"
)

// FindingOf is what the error of a request says about eCW itself; nil is an answer.
func FindingOf(err error) Finding {
	var e *ecw.Error
	switch {
	case err == nil:
		return Answers
	case !errors.As(err, &e):
		return Nothing
	case e.RefusesUs():
		return Refuses
	case e.Class == ecw.ClassPermanentCredentials:
		return Forbids
	case e.Class == ecw.ClassThrottled:
		return Nothing // a 429 comes before eCW looks at who asks
	case e.Unavailable():
		return Unavailable
	case e.HTTPStatus != 0:
		return Answers
	default:
		return Nothing
	}
}

// Report says what a delivery found, or the read of an import.
type Report struct {
	// TransmissionID is the delivery's, else the [ImportItem]'s.
	TransmissionID uuid.UUID
	// StartedAt is when the delivery began; zero when none did.
	StartedAt time.Time
	Finding   Finding
	// Message says what was wrong, in words that may be shown to anybody.
	Message string
}

// Change is what a report did to the circuit.
type Change struct {
	Opened, Closed bool
	// Unsettled means that the circuit is not closed, or has just closed and there is something to release.
	Unsettled bool
	Reason    string
	// TryNext means that the trial is over and eCW was not asked: the next trial need not wait for its time.
	TryNext bool
	// FailingSince is when the outage began that is over, if the circuit has Closed.
	FailingSince time.Time
}

// Report applies a report to the circuit, in the transaction that records the delivery, and frees its place.
// After the transaction the caller calls [Gate.Release] when the circuit has closed, [Gate.TryNext] when the
// change says so, and else [Gate.CallNext].
func (g *Gate) Report(ctx context.Context, q *db.Queries, r Report) (Change, error) {
	change, err := g.report(ctx, q, r)
	if err != nil {
		return Change{}, err
	}

	// The place comes after the gate, as everywhere: the holder of its lock may be clearing this very place
	// away.
	if _, err := q.LeavePlace(ctx, r.TransmissionID); err != nil {
		return Change{}, fmt.Errorf("leave place: %w", err)
	}
	return change, nil
}

func (g *Gate) report(ctx context.Context, q *db.Queries, r Report) (change Change, err error) {
	if err := g.create(ctx, q); err != nil { // in the transaction: another connection may not be free until this one is
		return Change{}, err
	}
	if r.Finding == Answers {
		if err := q.NoteAnswer(ctx, g.cfg.Practice); err != nil {
			return Change{}, fmt.Errorf("note eCW's answer: %w", err)
		}
	}

	state, err := q.GetGate(ctx, g.cfg.Practice)
	if err != nil {
		return Change{}, g.failed("look at circuit", err)
	}
	if state.Circuit == Closed && len(state.Failing) == 0 && !r.Finding.speaksAgainst() { // most change nothing
		return Change{}, nil
	}

	err = g.lock(ctx, q, func(q *db.Queries, state db.Gate, now time.Time) error {
		if r.StartedAt.IsZero() {
			r.StartedAt = now
		}
		next := afterReport(state, r, now)
		change = changed(state, next, r)
		if err := save(ctx, q, next); err != nil || !change.Closed {
			return err
		}
		return q.StartSlowly(ctx, g.cfg.Practice)
	})
	return change, err
}

// speaksAgainst reports whether a finding may open a closed circuit.
func (f Finding) speaksAgainst() bool {
	return f == Unavailable || f == Refuses || f == Forbids
}

// changed is the change that a report made of the circuit.
func changed(state, next db.Gate, r Report) Change {
	change := Change{
		Opened:    state.Circuit == Closed && next.Circuit == Open,
		Closed:    state.Circuit != Closed && next.Circuit == Closed,
		Unsettled: state.Circuit != Closed || next.Circuit != Closed,
		TryNext:   r.Finding == NotAsked && isTrial(state, r.TransmissionID),
		Reason:    next.Reason,
	}
	if change.Closed {
		change.FailingSince = *state.FailingSince
	}
	return change
}

// Release lets the deliveries go on that waited for the circuit, one at first: those that it held, and those
// that failed since the outage began and wait for their retry. It may run twice.
func (g *Gate) Release(ctx context.Context, failingSince time.Time) error {
	if !failingSince.IsZero() {
		err := g.store.BringForward(ctx, db.BringForwardParams{
			PracticeCode: g.cfg.Practice,
			FailingSince: failingSince,
			FirstWait:    g.cfg.FirstWait.Seconds(),
		})
		if err != nil {
			return fmt.Errorf("bring forward what failed in the outage: %w", err)
		}
	}
	g.CallNext(ctx)
	return nil
}

// The transitions of the circuit. Each returns the circuit after an event, or the same one where the event
// changes nothing; docs/reliability.md shows them as a diagram. An answer that finds the circuit closed and
// nothing failing is not reported to it, here and in the query RecordDelivered: it changes nothing.

// afterReport is the circuit after a report. While it is not closed, only the trial's report closes it: the
// other deliveries that report then began before it opened.
func afterReport(s db.Gate, r Report, now time.Time) db.Gate {
	decides := isTrial(s, r.TransmissionID)
	switch r.Finding {
	case Answers:
		if decides || s.Circuit == Closed {
			return closed(s)
		}

	case Refuses:
		if decides || s.Circuit == Closed {
			return opened(s, ReasonCredentials, r, now)
		}
		s.Reason, s.Message = ReasonCredentials, r.Message // graver than an outage

	case Unavailable, Forbids:
		s.FailingSince = earliest(s.FailingSince, r.StartedAt) // deliveries do not end in the order in which they began
		if s.Circuit == Closed && !slices.Contains(s.Failing, r.TransmissionID) {
			s.Failing = append(s.Failing, r.TransmissionID)
		}
		if decides || s.Circuit == Closed && len(s.Failing) >= openAfter {
			return opened(s, r.Finding.reason(), r, now)
		}

	case Nothing, NotAsked:
		if decides {
			return opened(s, s.Reason, Report{Message: s.Message, StartedAt: r.StartedAt}, now)
		}
	}
	return s
}

// afterArrival is the circuit after a delivery, or an item of an import, has come. It becomes the trial where
// the trial is vacant, and where a person asked for it and the circuit is open.
func afterArrival(s db.Gate, id uuid.UUID, asked bool) db.Gate {
	vacant := s.Circuit == HalfOpen && s.Trial == nil
	if vacant || s.Circuit == Open && asked {
		s.Circuit, s.Trial = HalfOpen, &id
	}
	return s
}

// afterChoice is the circuit after a trial was chosen, or nobody was found: nil leaves the trial vacant, for
// the next to come. It replaces a trial that was lost.
func afterChoice(s db.Gate, trial *uuid.UUID) db.Gate {
	if s.Circuit != Closed {
		s.Circuit, s.Trial, s.NextTrialAt = HalfOpen, trial, nil
	}
	return s
}

// afterHold is the circuit after a delivery was held, or held back. The trial is the trial no longer: it has
// decided nothing, so another has to.
func afterHold(s db.Gate, id uuid.UUID) db.Gate {
	if isTrial(s, id) {
		s.Circuit, s.Trial = Open, nil
	}
	return s
}

func closed(s db.Gate) db.Gate {
	s.Circuit, s.Reason, s.Message, s.Trial, s.Failing = Closed, "", "", nil, []uuid.UUID{}
	s.FailingSince, s.OpenedAt, s.NextTrialAt = nil, nil, nil
	return s
}

func opened(s db.Gate, reason string, r Report, now time.Time) db.Gate {
	s.Circuit, s.Reason, s.Message, s.Trial = Open, reason, r.Message, nil
	s.FailingSince = earliest(s.FailingSince, r.StartedAt)
	s.OpenedAt = earliest(s.OpenedAt, now)
	return s
}

// isTrial reports whether a delivery, or an item of an import, is the one that decides whether the circuit
// closes.
func isTrial(s db.Gate, id uuid.UUID) bool {
	return s.Circuit == HalfOpen && s.Trial != nil && *s.Trial == id
}

// reason is recorded when findings of this kind open the circuit.
func (f Finding) reason() string {
	if f == Forbids {
		return ReasonCredentials
	}
	return ReasonUnavailable
}

func earliest(known *time.Time, t time.Time) *time.Time {
	if known != nil && known.Before(t) {
		return known
	}
	return &t
}

func save(ctx context.Context, q *db.Queries, s db.Gate) error {
	err := q.SetCircuit(ctx, db.SetCircuitParams{
		PracticeCode: s.PracticeCode,
		Circuit:      s.Circuit,
		Reason:       s.Reason,
		Message:      s.Message,
		Failing:      s.Failing,
		FailingSince: s.FailingSince,
		OpenedAt:     s.OpenedAt,
		NextTrialAt:  s.NextTrialAt,
		Trial:        s.Trial,
	})
	if err != nil {
		return fmt.Errorf("set circuit: %w", err)
	}
	return nil
}
