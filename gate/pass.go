package gate

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
)

const (
	// passLife is how long a pass is good for. The places of passes that nobody uses are free again after it.
	passLife = time.Second
	// maxPasses is the most that a process takes at once: half of what may leave at once.
	maxPasses = burst / 2
	// passPatience is how long a first delivery waits for a pass before it asks the gate.
	passPatience = 5 * time.Second
	// passPause is how long it waits before it asks again.
	passPause = 50 * time.Millisecond
)

// Pass lets the first delivery of a transmission begin without a lock that all processes share: its place is
// taken, and its first request paid for. A process takes a few at once, far below the limit only, and uses
// them within a second.
type Pass struct {
	// ID is the transmission's, which is not opened yet.
	ID uuid.UUID
	// full means that there are as many places as there may be: a prompt answer makes no more of them.
	full bool
}

// passes are those that this process holds.
type passes struct {
	turn chan struct{} // holds one while somebody asks: the others wait in line
	left chan struct{} // gets one when a delivery of this process has left its place

	mu    sync.Mutex
	list  []Pass
	lapse time.Time // when they are no good any more, by the clock of this process
	taken int       // how many there were at first
}

// Pass returns a pass if one can be had: the circuit is closed, nobody is in the queue, and there is room below
// the limits. Where only the last is not so, it waits a little for the deliveries of this process to end, first
// come, first served: that costs less than the queue. Whether the pass is still good shows when its place is
// renewed ([db.Queries.BeginDelivery]).
func (g *Gate) Pass(ctx context.Context) (pass Pass, ok bool, err error) {
	p, enough := &g.passes, time.After(passPatience)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-enough:
		return Pass{}, false, nil
	case <-ctx.Done():
		return Pass{}, false, ctx.Err()
	}

	for {
		pass, ok, busy, err := g.tryPass(ctx)
		if err != nil || ok || !busy {
			return pass, ok, err
		}

		select {
		case <-p.left:
		case <-time.After(passPause):
		case <-enough:
			return Pass{}, false, nil
		case <-ctx.Done():
			return Pass{}, false, ctx.Err()
		}
	}
}

// Passed says that a delivery that had begun with a pass has left its place.
func (g *Gate) Passed() {
	select {
	case g.passes.left <- struct{}{}:
	default:
	}
}

// tryPass returns a pass of those that this process holds, or takes some more. busy means that there are none
// only because too much is under way at the moment.
func (g *Gate) tryPass(ctx context.Context) (pass Pass, ok, busy bool, err error) {
	p := &g.passes
	p.mu.Lock()
	defer p.mu.Unlock()

	now := time.Now()
	if len(p.list) == 0 || !now.Before(p.lapse) {
		if busy, err = g.takePasses(ctx, p, now); err != nil || len(p.list) == 0 {
			return Pass{}, false, busy, err
		}
	}
	pass, p.list = p.list[0], p.list[1:]
	return pass, true, false, nil
}

// dropPasses throws away what is left: eCW does not answer as it did.
func (g *Gate) dropPasses() {
	g.passes.mu.Lock()
	defer g.passes.mu.Unlock()
	g.passes.list = nil
}

// takePasses takes as many passes as this process seems to need: twice as many as the last time if those were
// used up, else one.
func (g *Gate) takePasses(ctx context.Context, p *passes, now time.Time) (busy bool, err error) {
	wanted := 1
	if len(p.list) == 0 && now.Before(p.lapse) {
		wanted = min(2*p.taken, maxPasses)
	}

	var list []Pass
	err = g.locked(ctx, func(q *db.Queries, state db.Gate, now time.Time) error {
		open, err := g.givesPasses(ctx, q, state, now)
		if err != nil || !open {
			return err
		}
		most, err := g.mostPasses(ctx, q, state, now)
		if err != nil || most <= 0 {
			busy = err == nil
			return err
		}

		list, err = g.givePasses(ctx, q, state, min(wanted, most))
		if err != nil {
			return err
		}
		return g.spend(ctx, q, state, now, len(list))
	})
	if err != nil {
		return false, fmt.Errorf("take passes: %w", err)
	}
	p.list, p.lapse, p.taken = list, now.Add(passLife), max(1, len(list))
	return busy, nil
}

// givePasses takes a place for each of so many passes.
func (g *Gate) givePasses(ctx context.Context, q *db.Queries, state db.Gate, count int) ([]Pass, error) {
	list, ids := make([]Pass, count), make([]uuid.UUID, count)
	for i := range list {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		ids[i], list[i] = id, Pass{ID: id, full: g.places(state) == int64(g.cfg.Parallel)}
	}
	err := q.TakePlaces(ctx, db.TakePlacesParams{IDs: ids, PracticeCode: g.cfg.Practice, Lease: passLife.Seconds()})
	return list, err
}

// givesPasses reports whether first deliveries may begin at all without asking the gate.
func (g *Gate) givesPasses(ctx context.Context, q *db.Queries, state db.Gate, now time.Time) (bool, error) {
	if state.Circuit != Closed || state.BlockedUntil.After(now) || state.ReservedUntil.After(now) || g.places(state) == 1 {
		return false, nil
	}
	return q.QueueIsEmpty(ctx, g.cfg.Practice)
}

// mostPasses is how many passes may be given out.
func (g *Gate) mostPasses(ctx context.Context, q *db.Queries, state db.Gate, now time.Time) (int, error) {
	if err := q.ClearPlaces(ctx, g.cfg.Practice); err != nil {
		return 0, err
	}
	taken, err := q.CountPlaces(ctx, db.CountPlacesParams{PracticeCode: g.cfg.Practice})
	if err != nil {
		return 0, err
	}

	free := int(g.places(state) - 1 - taken.Total) // one is left to who does not come with a pass
	return min(free, maxPasses-g.spent(state, now)), nil
}

// spent is how many requests the bucket lacks.
func (g *Gate) spent(state db.Gate, now time.Time) int {
	missing := g.fullAt(state, now).Sub(now)
	return int((missing + g.interval() - 1) / g.interval())
}

// passed is a pass whose delivery has begun.
type passed struct {
	Pass
	began time.Time // PostgreSQL's time
	used  atomic.Bool
}

// DeliveringWith marks the requests of a delivery that has begun with a pass at the given time of PostgreSQL:
// the first of them is paid for.
func DeliveringWith(ctx context.Context, pass Pass, began time.Time) context.Context {
	p := placeOfDelivery(pass.ID)
	p.pass = &passed{Pass: pass, began: began}
	return context.WithValue(ctx, placeKey{}, p)
}

// use reports whether a request is the one that is paid for.
func (p *passed) use() bool { return p != nil && p.used.CompareAndSwap(false, true) }

// endPassed is what end is for the request that was paid for. Most of them change nothing, and ask nobody.
func (g *Gate) endPassed(ctx context.Context, p *passed, o ecw.Observed) {
	if p.full && o.Repeats == 0 && g.isPrompt(o) {
		g.slow.Store(o.Took > slowAnswer)
		return
	}
	g.settle(ctx, p.began, o)
}
