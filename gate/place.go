package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
)

const (
	// leaseMargin is how much longer a place is kept than the longest request may take.
	leaseMargin = 10 * time.Second
	// slowAnswer is how long an answer takes that comes slowly.
	slowAnswer = 2 * time.Second
	// pollPlace is how often a request that waits for a place looks for one.
	pollPlace = 200 * time.Millisecond
)

// placeKind is what a place is taken for.
type placeKind string

const (
	kindDelivery placeKind = "delivery"
	kindImport   placeKind = "import"
	kindOther    placeKind = "other"
)

// place is one of those among the requests under way. All requests of a delivery share one, whose id is the
// transmission's; any other request is single, and has a place of its own.
type place struct {
	id   uuid.UUID
	kind placeKind
	pass *passed // nil: every request asks the gate
	// asked means that a person waits for the answer: it also has to be within the part that people may use.
	asked bool
}

func (p place) single() bool { return p.kind != kindDelivery }

func placeOfDelivery(transmissionID uuid.UUID) place {
	return place{id: transmissionID, kind: kindDelivery}
}

type placeKey struct{}

// Delivering marks the requests of a delivery: they share the place that it was admitted to.
func Delivering(ctx context.Context, transmissionID uuid.UUID) context.Context {
	return context.WithValue(ctx, placeKey{}, placeOfDelivery(transmissionID))
}

// Importing marks the requests of an import: together they take at most half of the places.
func Importing(ctx context.Context) context.Context {
	return context.WithValue(ctx, placeKey{}, place{kind: kindImport})
}

// placeOf is the place for a request, taken or not.
func placeOf(ctx context.Context) place {
	p, _ := ctx.Value(placeKey{}).(place)
	if p.kind == "" {
		p.kind = kindOther
	}
	if p.id == uuid.Nil {
		p.id = uuid.New()
	}
	return p
}

// Begin lets one request leave, or says how long to wait before asking again; then nothing may be sent. It
// waits itself when that is short. end has to be called when the request is over.
func (g *Gate) Begin(ctx context.Context) (end func(context.Context, ecw.Observed), wait time.Duration, err error) {
	return g.begin(ctx, placeOf(ctx))
}

func (g *Gate) begin(ctx context.Context, p place) (end func(context.Context, ecw.Observed), wait time.Duration, err error) {
	if p.pass.use() {
		return func(ctx context.Context, o ecw.Observed) { g.endPassed(ctx, p.pass, o) }, 0, nil
	}
	began, wait, err := g.await(ctx, p)
	if err != nil || wait > 0 {
		g.giveUp(ctx, p)
		return nil, max(wait, patience/2), err
	}
	return func(ctx context.Context, o ecw.Observed) { g.end(ctx, p, began, o) }, 0, nil
}

// await tries to pass until the request may leave, or would have to wait beyond its patience.
func (g *Gate) await(ctx context.Context, p place) (at time.Time, wait time.Duration, err error) {
	deadline := time.Now().Add(patience) // of our own waiting, which needs no clock that others share
	spent := false
	for {
		at, wait, err = g.pass(ctx, p, &spent)
		if err != nil || wait == 0 || !time.Now().Add(wait).Before(deadline) {
			return at, wait, err
		}
		if err := sleep(ctx, wait); err != nil {
			return at, wait, err
		}
	}
}

// pass takes a place, and one request out of the bucket unless that is spent already. at is PostgreSQL's
// time; the request may leave when wait is 0.
func (g *Gate) pass(ctx context.Context, p place, spent *bool) (at time.Time, wait time.Duration, err error) {
	err = g.locked(ctx, func(q *db.Queries, state db.Gate, now time.Time) error {
		at = now
		if blocked := state.BlockedUntil.Sub(now); blocked > 0 {
			wait = blocked
			*spent = false // its moment passes, and when the block ends all such requests would leave together
			return nil
		}

		placed, err := g.take(ctx, q, state, p)
		if err != nil {
			return err
		}
		if !placed {
			wait = pollPlace
			return nil
		}

		if *spent {
			return nil
		}
		wait = g.opensIn(state, now)
		if wait > patience {
			return nil
		}
		if p.asked {
			if err := g.spendAsked(ctx, q, state, now); err != nil {
				return err
			}
		}
		*spent = true // its moment is kept for it
		return g.spend(ctx, q, state, now, 1)
	})
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("ask gate: %w", err)
	}
	return at, wait, nil
}

// take renews the place that is held, or takes a free one, and reports whether it did. A single request that
// finds none reserves the next one, for as long as it waits; a delivery is called from the queue instead.
func (g *Gate) take(ctx context.Context, q *db.Queries, state db.Gate, p place) (bool, error) {
	held, err := q.HoldsPlace(ctx, p.id)
	if err != nil {
		return false, err
	}
	if held {
		return true, g.keep(ctx, q, p, 0)
	}

	free, err := g.isFree(ctx, q, state, p)
	if err != nil {
		return false, err
	}

	if p.single() {
		wait := 2 * pollPlace
		if free { // others that wait reserve again in a moment
			wait = 0
		}
		if err := g.reserve(ctx, q, wait); err != nil {
			return false, err
		}
	}
	if !free {
		return false, nil
	}
	return true, g.keep(ctx, q, p, 0)
}

// isFree reports whether a place is free, or would be if p had none. Imports take half of the places at most,
// and one at least.
func (g *Gate) isFree(ctx context.Context, q *db.Queries, state db.Gate, p place) (bool, error) {
	taken, err := q.CountPlaces(ctx, db.CountPlacesParams{PracticeCode: g.cfg.Practice, ID: p.id})
	if err != nil {
		return false, err
	}

	most := g.places(state)
	if p.kind == kindImport && taken.Imports >= max(1, most/2) {
		return false, nil
	}
	return taken.Total < most, nil
}

// places is how many may be under way at once.
func (g *Gate) places(state db.Gate) int64 {
	return int64(min(state.Parallel, float64(g.cfg.Parallel)))
}

// keep takes a place, or renews it, for a request that leaves after the given wait.
func (g *Gate) keep(ctx context.Context, q *db.Queries, p place, wait time.Duration) error {
	return q.TakePlace(ctx, db.TakePlaceParams{
		ID:           p.id,
		PracticeCode: g.cfg.Practice,
		Kind:         string(p.kind),
		Lease:        (wait + g.Lease()).Seconds(),
	})
}

// Lease is how long a place is kept for a request, and so how long after it was marked as sent a delivery may
// still be under way if its worker was lost.
func (g *Gate) Lease() time.Duration { return g.cfg.Timeout + leaseMargin }

// reserve has the queue leave one place free for the given time.
func (g *Gate) reserve(ctx context.Context, q *db.Queries, wait time.Duration) error {
	return q.ReservePlace(ctx, db.ReservePlaceParams{PracticeCode: g.cfg.Practice, Wait: wait.Seconds()})
}

// end takes into account how eCW bore the request, and frees the place of a single one. A place that cannot
// be freed expires by itself.
func (g *Gate) end(ctx context.Context, p place, began time.Time, o ecw.Observed) {
	g.settle(ctx, began, o)
	g.leaveSingle(ctx, p)
}

func (g *Gate) settle(ctx context.Context, began time.Time, o ecw.Observed) {
	ctx = context.WithoutCancel(ctx)
	g.slow.Store(o.Took > slowAnswer)
	if !o.Answered {
		g.dropPasses()
	}
	if err := g.recordEnd(ctx, began, o); err != nil {
		g.log.WarnContext(ctx, "the end of a request to eCW could not be recorded", "error", err)
	}
}

// isPrompt reports whether an answer came in good time.
func (g *Gate) isPrompt(o ecw.Observed) bool { return o.Answered && o.Took <= g.cfg.Timeout/2 }

func (g *Gate) recordEnd(ctx context.Context, began time.Time, o ecw.Observed) error {
	err := g.store.SettleRequest(ctx, db.SettleRequestParams{
		PracticeCode: g.cfg.Practice,
		BeganAt:      began,
		Most:         float64(g.cfg.Parallel),
		Overloaded:   o.Overloaded,
		Prompt:       g.isPrompt(o),
	})
	if err != nil || o.Repeats == 0 {
		return err
	}
	return g.locked(ctx, func(q *db.Queries, state db.Gate, now time.Time) error {
		return g.spend(ctx, q, state, now, o.Repeats)
	})
}

// giveUp ends the wait of a single request. No place is reserved for it any more, so the delivery that could
// have had that place is called now.
func (g *Gate) giveUp(ctx context.Context, p place) {
	if !p.single() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if err := g.reserve(ctx, g.store.Queries, 0); err != nil {
		g.log.WarnContext(ctx, "a place before eCW is still reserved, for a moment", "error", err)
	}
	g.leaveSingle(ctx, p)
}

// leaveSingle frees the place of a single request, and calls the next delivery.
func (g *Gate) leaveSingle(ctx context.Context, p place) {
	if !p.single() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := g.store.LeavePlace(ctx, p.id); err != nil {
		g.log.WarnContext(ctx, "a place before eCW could not be freed, it expires by itself", "error", err)
	}
	g.callNext(ctx, false)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
