package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
)

// The kinds of place.
const (
	kindDelivery = "delivery"
	kindImport   = "import"
	kindOther    = "other"
)

// place is whose request it is.
type place struct {
	id   uuid.UUID
	kind string
}

type placeKey struct{}

// Delivering marks the requests of a delivery: they share the place that it was admitted to.
func Delivering(ctx context.Context, transmissionID uuid.UUID) context.Context {
	return context.WithValue(ctx, placeKey{}, place{transmissionID, kindDelivery})
}

// Importing marks the requests of an import: together they take at most half of the places.
func Importing(ctx context.Context) context.Context {
	return context.WithValue(ctx, placeKey{}, place{kind: kindImport})
}

// whose is the place that a request belongs to; one that belongs to no delivery gets an id of its own.
func whose(ctx context.Context) place {
	p, _ := ctx.Value(placeKey{}).(place)
	if p.kind == "" {
		p.kind = kindOther
	}
	if p.id == uuid.Nil {
		p.id = uuid.New()
	}
	return p
}

// Begin lets one request leave, or says how long to wait before asking again; then nothing may be sent. It waits itself
// when that is short. end has to be called when the request is over.
func (g *Gate) Begin(ctx context.Context) (end func(context.Context, ecw.Observed), wait time.Duration, err error) {
	p := whose(ctx)
	deadline := time.Now().Add(patience) // of our own waiting, which needs no clock that others share
	spent := false
	for {
		pass, err := g.pass(ctx, p, &spent)
		if err == nil && pass.wait > 0 && time.Now().Add(pass.wait).Before(deadline) {
			err = sleep(ctx, pass.wait)
			if err == nil {
				continue
			}
		}
		if err != nil || pass.wait > 0 {
			g.giveUp(ctx, p)
			return nil, max(pass.wait, patience/2), err
		}
		began := pass.at
		return func(ctx context.Context, o ecw.Observed) { g.end(ctx, p, began, o) }, 0, nil
	}
}

// pass is what became of a try: the request may leave, or has to wait.
type pass struct {
	at     time.Time // on PostgreSQL's clock
	wait   time.Duration
	placed bool // it has a place
}

// pass takes a place, and one request of the limit. What it waited for already is spent.
func (g *Gate) pass(ctx context.Context, p place, spent *bool) (out pass, err error) {
	err = g.locked(ctx, func(q *db.Queries, state db.Gate, now time.Time) error {
		out = pass{at: now}
		if blocked := state.BlockedUntil.Sub(now); blocked > 0 {
			out.wait = blocked
			*spent = false // its moment passes, and when the block ends all of those would leave together
			return nil
		}
		if out.placed, err = g.takePlace(ctx, q, state, p); err != nil {
			return err
		}
		if !out.placed {
			out.wait = pollPlace
			return nil
		}
		if *spent {
			return nil
		}
		out.wait = max(0, g.opensAt(state, now).Sub(now))
		if out.wait > patience {
			return nil
		}
		*spent = true // its moment is kept for it
		return g.spend(ctx, q, state, now, 1)
	})
	if err != nil {
		return pass{}, fmt.Errorf("ask gate: %w", err)
	}
	return out, nil
}

// takePlace renews the place that is held, or takes a free one.
func (g *Gate) takePlace(ctx context.Context, q *db.Queries, state db.Gate, p place) (bool, error) {
	held, err := q.HoldsPlace(ctx, p.id)
	if err != nil {
		return false, err
	}
	if !held {
		taken, err := q.CountPlaces(ctx, db.CountPlacesParams{PracticeCode: g.cfg.Practice, ID: p.id})
		if err != nil {
			return false, err
		}
		most := g.places(state)
		if p.kind == kindImport && taken.Imports >= max(1, most/2) || taken.Total >= most {
			if p.kind == kindDelivery {
				return false, nil
			}
			return false, q.ReservePlace(ctx, db.ReservePlaceParams{PracticeCode: g.cfg.Practice, Wait: (2 * pollPlace).Seconds()})
		}
		if p.kind != kindDelivery { // it has what was kept free; whoever else waits says so again in a moment
			if err := q.ReservePlace(ctx, db.ReservePlaceParams{PracticeCode: g.cfg.Practice}); err != nil {
				return false, err
			}
		}
	}
	return true, q.TakePlace(ctx, db.TakePlaceParams{ID: p.id, PracticeCode: g.cfg.Practice, Kind: p.kind, Lease: g.lease().Seconds()})
}

// end takes into account how eCW bore the request, and frees the place of one that belongs to no delivery. What fails here
// expires by itself.
func (g *Gate) end(ctx context.Context, p place, began time.Time, o ecw.Observed) {
	ctx = context.WithoutCancel(ctx)
	err := g.store.SettleRequest(ctx, db.SettleRequestParams{
		PracticeCode: g.cfg.Practice,
		BeganAt:      began,
		Most:         float64(g.cfg.Parallel),
		Overloaded:   o.Overloaded,
		Prompt:       o.Answered && o.Took <= g.cfg.Timeout/2,
	})
	if err == nil && o.Repeats > 0 {
		err = g.locked(ctx, func(q *db.Queries, state db.Gate, now time.Time) error { return g.spend(ctx, q, state, now, o.Repeats) })
	}
	if err != nil {
		g.log.WarnContext(ctx, "the end of a request to eCW could not be recorded", "error", err)
	}
	g.leaveSingle(ctx, p)
}

// giveUp ends the wait of a request that belongs to no delivery. No place is kept for it any more, and whoever was not
// called because one was is called now.
func (g *Gate) giveUp(ctx context.Context, p place) {
	if p.kind == kindDelivery {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if err := g.store.ReservePlace(ctx, db.ReservePlaceParams{PracticeCode: g.cfg.Practice}); err != nil {
		g.log.WarnContext(ctx, "a place before eCW is still reserved, for a moment", "error", err)
	}
	g.leaveSingle(ctx, p)
}

// leaveSingle frees the place of a request that belongs to no delivery, and calls the next delivery.
func (g *Gate) leaveSingle(ctx context.Context, p place) {
	if p.kind == kindDelivery {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := g.store.LeavePlace(ctx, p.id); err != nil {
		g.log.WarnContext(ctx, "a place before eCW could not be freed, it expires by itself", "error", err)
	}
	g.callNext(ctx, false)
}

// Pause holds every request back for the given time, because eCW answered one with 429.
func (g *Gate) Pause(ctx context.Context, wait time.Duration) error {
	err := g.store.PauseRequests(ctx, db.PauseRequestsParams{
		PracticeCode: g.cfg.Practice,
		Pause:        wait.Seconds(),
	})
	if err != nil {
		return fmt.Errorf("pause requests: %w", err)
	}
	return nil
}

// SinceAnswered is how long ago eCW last answered a delivery of any process, within a second.
func (g *Gate) SinceAnswered(ctx context.Context) (time.Duration, error) {
	seconds, err := g.store.SinceAnswered(ctx, g.cfg.Practice)
	if err != nil {
		return 0, g.failed("look at gate", err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
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
