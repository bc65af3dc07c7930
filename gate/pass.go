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
	passPatience = time.Second
	// passPause is how long a process that was given none waits before it asks again.
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
	mu     sync.Mutex
	list   []Pass
	lapse  time.Time // when they are no good any more, by the clock of this process
	taken  int       // how many there were at first
	denied time.Time // when the gate last gave none
	busy   bool      // that was because too much was under way
	left   chan struct{}
}

// Pass returns a pass if one can be had: the circuit is closed, nobody is in the queue, and less than half of
// the limit and of the places is in use. Where only the last is not so, it waits a little for the deliveries
// of this process to end. Whether the pass is still good shows when its place is renewed
// ([db.Queries.BeginDelivery]).
func (g *Gate) Pass(ctx context.Context) (pass Pass, ok bool, err error) {
	deadline := time.Now().Add(passPatience)
	for {
		pass, ok, err := g.tryPass(ctx)
		if err != nil || ok || !g.passes.isBusy() || time.Now().After(deadline) {
			return pass, ok, err
		}

		if err := g.passes.await(ctx); err != nil {
			return Pass{}, false, err
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

func (g *Gate) tryPass(ctx context.Context) (pass Pass, ok bool, err error) {
	p := &g.passes
	p.mu.Lock()
	defer p.mu.Unlock()

	now := time.Now()
	if len(p.list) == 0 || !now.Before(p.lapse) {
		if now.Before(p.denied.Add(passPause)) {
			return Pass{}, false, nil
		}
		if err := g.takePasses(ctx, p, now); err != nil {
			return Pass{}, false, err
		}
	}
	if len(p.list) == 0 {
		p.denied = now
		return Pass{}, false, nil
	}

	pass, p.list = p.list[0], p.list[1:]
	return pass, true, nil
}

// isBusy reports whether the gate gave no pass only because too much is under way at the moment.
func (p *passes) isBusy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy
}

// await returns when a delivery of this process has left its place, and otherwise soon.
func (p *passes) await(ctx context.Context) error {
	timer := time.NewTimer(passPause)
	defer timer.Stop()
	select {
	case <-p.left:
		p.mu.Lock()
		p.denied = time.Time{}
		p.mu.Unlock()
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dropPasses throws away what is left: eCW does not answer as it did.
func (g *Gate) dropPasses() {
	g.passes.mu.Lock()
	defer g.passes.mu.Unlock()
	g.passes.list = nil
}

// takePasses takes as many passes as this process seems to need: twice as many as the last time if those were
// used up, else one.
func (g *Gate) takePasses(ctx context.Context, p *passes, now time.Time) error {
	wanted := 1
	if len(p.list) == 0 && now.Before(p.lapse) {
		wanted = min(2*p.taken, maxPasses)
	}

	p.list, p.lapse, p.taken, p.busy = nil, now.Add(passLife), wanted, false
	var list []Pass
	err := g.locked(ctx, func(q *db.Queries, state db.Gate, now time.Time) error {
		open, err := g.givesPasses(ctx, q, state, now)
		if err != nil || !open {
			return err
		}
		most, err := g.mostPasses(ctx, q, state, now)
		if err != nil || most <= 0 {
			p.busy = err == nil
			return err
		}

		ids := make([]uuid.UUID, min(wanted, most))
		for i := range ids {
			if ids[i], err = uuid.NewV7(); err != nil {
				return err
			}
			list = append(list, Pass{ID: ids[i], full: g.places(state) == int64(g.cfg.Parallel)})
		}
		err = q.TakePlaces(ctx, db.TakePlacesParams{IDs: ids, PracticeCode: g.cfg.Practice, Lease: passLife.Seconds()})
		if err != nil {
			return err
		}
		return g.spend(ctx, q, state, now, len(ids))
	})
	if err != nil {
		return fmt.Errorf("take passes: %w", err)
	}
	p.list = list
	return nil
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

	places := int(g.places(state)/2 - taken.Total)
	return min(places, maxPasses-g.spent(state, now)), nil
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
