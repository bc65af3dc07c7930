package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// The reasons why a transmission is held although the circuit is closed. A person has to act on both.
const (
	// ReasonPatient: eCW shows another person under the patient's id, and somebody has to look at the link.
	ReasonPatient = "patient"
	// ReasonArchived: the patient is archived.
	ReasonArchived = "archived"
)

// Request asks for the delivery of a transmission.
type Request struct {
	TransmissionID uuid.UUID
	ObservationID  uuid.UUID
	// Asked means that a person asked for it just now: it goes ahead of the queue, and tries an open circuit.
	Asked bool
}

// Admission says whether a delivery may begin.
type Admission struct {
	// Held means that it waits in the queue, and is called.
	Held bool `json:",omitempty"`
	// Scheduled means that it may not begin, and waits for the moment that the schedule had given it.
	Scheduled bool `json:",omitempty"`
	// Reason is why it is held: ReasonUnavailable or ReasonCredentials when the circuit is not closed,
	// ReasonPatient or ReasonArchived when it is the patient's, else "".
	Reason string `json:",omitempty"`
	// Trial means that this delivery decides whether the circuit closes.
	Trial bool `json:",omitempty"`
	// Trying means that another is the trial now: an import that is held asks again soon.
	Trying bool `json:",omitempty"`
}

// Waits reports whether the delivery may not begin.
func (a Admission) Waits() bool { return a.Held || a.Scheduled }

// Admit lets a delivery begin, and gives it a place among those under way; or it records that the delivery
// waits, which is no attempt. The error wraps [db.ErrForgotten] when the database does not know the
// transmission.
func (g *Gate) Admit(ctx context.Context, r Request) (a Admission, err error) {
	err = g.store.InTx(ctx, func(q *db.Queries) error {
		a, err = g.AdmitIn(ctx, q, r)
		return err
	})
	if err != nil {
		return Admission{}, fmt.Errorf("ask gate: %w", err)
	}
	g.created.Store(true)

	if a.Waits() {
		g.CallNext(ctx)
	}
	return a, nil
}

// AdmitIn is Admit in q's transaction. After it the caller calls [Gate.CallNext] if the delivery waits.
func (g *Gate) AdmitIn(ctx context.Context, q *db.Queries, r Request) (a Admission, err error) {
	if err := lockTransmission(ctx, q, r); err != nil {
		return Admission{}, err
	}
	err = g.lock(ctx, q, func(q *db.Queries, state db.Gate, now time.Time) error {
		a, err = g.admit(ctx, q, state, now, r)
		return err
	})
	return a, err
}

// lockTransmission makes sure that there is one to deliver: no place is kept, and no trial made, for one that
// the database has forgotten.
func lockTransmission(ctx context.Context, q *db.Queries, r Request) error {
	return db.Written(q.LockTransmission(ctx, db.LockTransmissionParams{ID: r.TransmissionID, ObservationID: r.ObservationID}))
}

func (g *Gate) admit(ctx context.Context, q *db.Queries, state db.Gate, now time.Time, r Request) (Admission, error) {
	reason, err := q.WhyHeld(ctx, r.ObservationID)
	if err != nil {
		return Admission{}, err
	}
	if reason != "" {
		return g.hold(ctx, q, state, r, reason)
	}
	if state.Circuit != Closed {
		return g.tryOrHold(ctx, q, state, r)
	}

	free, err := g.mayGo(ctx, q, state, now, r)
	if err != nil {
		return Admission{}, err
	}
	if !free {
		return g.hold(ctx, q, state, r, "")
	}
	return Admission{}, g.keep(ctx, q, placeOfDelivery(r.TransmissionID), 0)
}

// mayGo reports whether there is a place for the delivery: its own, or a free one for which nobody waits.
func (g *Gate) mayGo(ctx context.Context, q *db.Queries, state db.Gate, now time.Time, r Request) (bool, error) {
	if held, err := q.HoldsPlace(ctx, r.TransmissionID); err != nil || held {
		return held, err
	}
	if g.opensIn(state, now) > patience/2 {
		return false, nil
	}

	free, err := g.isFree(ctx, q, state, placeOfDelivery(r.TransmissionID))
	if err != nil || !free || r.Asked {
		return free, err
	}
	return q.GoesFirst(ctx, db.GoesFirstParams{PracticeCode: g.cfg.Practice, ID: r.TransmissionID})
}

// hold puts a transmission into the queue, and takes its place away.
func (g *Gate) hold(ctx context.Context, q *db.Queries, state db.Gate, r Request, reason string) (Admission, error) {
	if isTrial(state, r.TransmissionID) {
		if err := save(ctx, q, afterHold(state, r.TransmissionID)); err != nil {
			return Admission{}, err
		}
	}
	if _, err := q.LeavePlace(ctx, r.TransmissionID); err != nil {
		return Admission{}, err
	}

	held, err := q.HoldTransmission(ctx, db.HoldTransmissionParams{ID: r.TransmissionID, ObservationID: r.ObservationID, Asked: r.Asked})
	if db.IsNotFound(err) {
		return Admission{}, db.ErrForgotten
	}
	if err != nil {
		return Admission{}, err
	}
	if held && reason == "" {
		g.callLater(ctx)
	}
	return Admission{Held: held, Scheduled: !held, Reason: reason}, nil
}

// callLater calls the queue once more when the passes of all processes have lapsed. The places of passes that
// nobody used become free without a delivery that ends; and one that ended while this transmission was put into the
// queue may not have seen it. Without that, the sweep would call it, within five minutes.
func (g *Gate) callLater(ctx context.Context) {
	if !g.calling.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(passLife+passPause, func() {
		g.calling.Store(false)
		g.CallNext(ctx)
	})
}

// HoldBack puts a delivery that had begun back into the queue: our own limits held it back, or its patient was
// archived or turned out to be somebody else, and nothing was sent. q's transaction should also take back what was
// recorded of its beginning.
func (g *Gate) HoldBack(ctx context.Context, q *db.Queries, r Request, reason string) (a Admission, err error) {
	if err := lockTransmission(ctx, q, r); err != nil {
		return Admission{}, err
	}
	err = g.lock(ctx, q, func(q *db.Queries, state db.Gate, _ time.Time) error {
		a, err = g.hold(ctx, q, state, r, reason)
		return err
	})
	return a, err
}

// CallNext keeps the free places for those who come next in the queue, and calls their workflows. It is
// called whenever a place was left; when a call is lost, the place expires, and the next delivery to come
// calls again. So its errors are only logged.
func (g *Gate) CallNext(ctx context.Context) { g.callNext(ctx, true) }

// callNext keeps a place free for a single request that has reserved one, if singleFirst is set. A single
// request that leaves its place does not set it: the queue has its turn then, or requests that follow each
// other would keep the place for ever.
func (g *Gate) callNext(ctx context.Context, singleFirst bool) {
	ctx = context.WithoutCancel(ctx)
	list, err := g.next(ctx, singleFirst)
	if err != nil {
		g.log.WarnContext(ctx, "nobody was called from the queue before eCW; the next delivery does it", "error", err)
	}

	for _, c := range list {
		err := g.cfg.Call(ctx, g.cfg.Practice, c.observationID, Call{Wait: c.wait})
		if err == nil {
			continue
		}
		g.log.WarnContext(ctx, "a waiting transmission could not be called; its place expires, and it is called again", "error", err)
		_, err = g.store.LeavePlace(ctx, c.id)
		if err != nil && !errors.Is(err, context.Canceled) {
			return
		}
	}
}

// called is a transmission that a place is kept for.
type called struct {
	id            uuid.UUID
	observationID uuid.UUID
	wait          time.Duration
}

func (g *Gate) next(ctx context.Context, singleFirst bool) (list []called, err error) {
	if empty, err := g.store.QueueIsEmpty(ctx, g.cfg.Practice); err != nil || empty {
		return nil, err
	}

	err = g.locked(ctx, func(q *db.Queries, state db.Gate, now time.Time) error {
		if state.Circuit != Closed {
			return nil
		}
		list, err = g.keepNext(ctx, q, state, now, singleFirst)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("choose who comes next: %w", err)
	}
	return list, nil
}

// keepNext keeps the free places for those at the head of the queue.
func (g *Gate) keepNext(ctx context.Context, q *db.Queries, state db.Gate, now time.Time, singleFirst bool) ([]called, error) {
	free, err := g.freePlaces(ctx, q, state, now, singleFirst)
	if err != nil || free <= 0 {
		return nil, err
	}
	rows, err := q.ListNext(ctx, db.ListNextParams{PracticeCode: g.cfg.Practice, Batch: int32(free)})
	if err != nil {
		return nil, err
	}

	opens := g.opensIn(state, now)
	var list []called
	for i, row := range rows {
		wait := opens + time.Duration(i)*g.interval()
		if wait < patience/2 { // the request waits for its moment itself
			wait = 0
		}
		if err := g.keep(ctx, q, placeOfDelivery(row.ID), wait); err != nil {
			return nil, err
		}
		list = append(list, called{id: row.ID, observationID: row.ObservationID, wait: wait})
	}
	return list, nil
}

// freePlaces is how many places are free for the queue.
func (g *Gate) freePlaces(ctx context.Context, q *db.Queries, state db.Gate, now time.Time, singleFirst bool) (int64, error) {
	if err := q.ClearPlaces(ctx, g.cfg.Practice); err != nil {
		return 0, err
	}
	taken, err := q.CountPlaces(ctx, db.CountPlacesParams{PracticeCode: g.cfg.Practice})
	if err != nil {
		return 0, err
	}

	free := g.places(state) - taken.Total
	if singleFirst && state.ReservedUntil.After(now) && taken.Singles == 0 {
		free--
	}
	return free, nil
}
