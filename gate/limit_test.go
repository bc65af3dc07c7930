package gate_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/gate"
)

// allowAll asks from every process, by several callers each, and counts what was let through.
func (r *rig) allowAll(gates []*gate.Gate, callers, requests int) (allowed int64) {
	r.tb.Helper()
	var n atomic.Int64
	group, ctx := errgroup.WithContext(r.tb.Context())
	for _, g := range gates {
		for range callers {
			group.Go(func() error {
				for range requests {
					wait, err := g.Allow(ctx)
					if err != nil {
						return err
					}
					if wait == 0 {
						n.Add(1)
					}
				}
				return nil
			})
		}
	}
	r.must(group.Wait())
	return n.Load()
}

func TestManyProcessesShareOneLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const limit = 100
	gates := r.processes(3, limit)
	r.inOneMinute(func() error {
		if allowed := r.allowAll(gates, 5, 20); allowed != limit {
			return fmt.Errorf("%d of 300 requests were let through in a minute, want %d", allowed, limit)
		}
		before := r.now()
		wait, err := gates[0].Allow(t.Context())
		next := before.Truncate(time.Minute).Add(time.Minute)
		if earliest, latest := next.Sub(r.now()), next.Sub(before); wait < earliest || wait > latest {
			return fmt.Errorf("told to wait %s at %s, want until %s", wait, before, next)
		}
		return err
	})

	r.exec("UPDATE ecw_gates SET sent_minute = sent_minute - interval '1 minute'") // the minute is over
	r.inOneMinute(func() error {
		if allowed := r.allowAll(gates, 5, 20); allowed != limit {
			return fmt.Errorf("%d requests were let through in the next minute, want %d", allowed, limit)
		}
		return nil
	})
}

// A request that waits for the row while the minute turns must not bring the old minute back, and with it a count of
// nothing for the new one.
func TestTheMinuteTurnsWhileARequestWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const limit = 10
	g := gate.New(r.store, practice, limit)
	_, err := g.Allow(t.Context())
	r.must(err)
	tx, err := r.sql.Begin(t.Context())
	r.must(err)
	// Another process, a little later: it has used up the minute that has just begun.
	_, err = tx.Exec(t.Context(), "UPDATE ecw_gates SET sent_minute = date_trunc('minute', now()) + interval '1 minute', sent = $1", limit)
	r.must(err)
	late := make(chan time.Duration)
	go func() {
		wait, err := g.Allow(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Error(err)
		}
		late <- wait
	}()
	other := newWatch(r)
	other.awaitLock()
	r.must(tx.Commit(t.Context()))
	if wait := <-late; wait == 0 {
		t.Error("one more than the limit was let through")
	}
	if row := r.row(); row.Sent != limit || row.SentMinute.Before(r.now().Truncate(time.Minute)) {
		t.Errorf("%d requests are counted for %s, want what the other process counted", row.Sent, row.SentMinute)
	}
}

// newWatch is the rig with a connection of its own, for while the other one holds a lock.
func newWatch(r *rig) *rig {
	return &rig{tb: r.tb, url: r.url, store: r.store, sql: r.connect()}
}

// The database's clock was ahead and was set right: a count for a minute that is yet to come holds nobody back.
func TestACountFromTheFutureIsForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 10)
	_, err := g.Allow(t.Context())
	r.must(err)
	r.exec("UPDATE ecw_gates SET sent_minute = date_trunc('minute', now()) + interval '1 day', sent = 10")
	if wait, err := g.Allow(t.Context()); err != nil || wait != 0 {
		t.Errorf("told to wait %s (%v)", wait, err)
	}
}

func TestAPauseHoldsEveryProcessBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3, 1000)
	r.must(gates[0].Pause(t.Context(), 40*time.Second)) // the first that this database hears of the practice
	for i, g := range gates {
		wait, err := g.Allow(t.Context())
		r.must(err)
		if wait < 30*time.Second || wait > 40*time.Second {
			t.Errorf("process %d is told to wait %s, want what is left of 40s", i, wait)
		}
	}
	r.must(gates[1].Pause(t.Context(), time.Second)) // eCW names less: the block stands
	if wait, err := gates[2].Allow(t.Context()); err != nil || wait < 30*time.Second {
		t.Errorf("told to wait %s (%v), want the longer block to stand", wait, err)
	}
	if row := r.row(); row.Sent != 0 {
		t.Errorf("%d requests are counted, but none left", row.Sent)
	}
	r.exec("UPDATE ecw_gates SET blocked_until = now()")
	if allowed := r.allowAll(gates, 1, 1); allowed != 3 {
		t.Errorf("%d of 3 requests were let through after the block", allowed)
	}
}

// When eCW blocks us, all requests under way meet it: the queue stands still for as long as the block, not for their sum.
func TestSeveralPausesOfOneBlockAddUpToTheBlock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(4, 1000)
	before := r.now()
	group, ctx := errgroup.WithContext(t.Context())
	for _, g := range gates {
		for i := range 5 {
			group.Go(func() error { return g.Pause(ctx, time.Duration(20+i)*time.Second) })
		}
	}
	r.must(group.Wait())
	row := r.row()
	if delay := r.delay(); delay < 24*time.Second || delay > row.BlockedUntil.Sub(before) {
		t.Errorf("the queue stands still for %s, want from about %s to %s", delay, before, row.BlockedUntil)
	}
	if block := row.BlockedUntil.Sub(before); block > 24*time.Second+r.now().Sub(before) {
		t.Errorf("blocked for %s by 429s of at most 24s", block)
	}

	first := r.delay()
	r.exec("UPDATE ecw_gates SET blocked_until = now() - interval '1 hour'")
	r.must(gates[0].Pause(t.Context(), 10*time.Second))
	if second := r.delay() - first; second != 10*time.Second {
		t.Errorf("another block stops the queue for %s, want all of its 10s", second)
	}
}

// A database that is restored may be older than the practice's row.
func TestARowThatIsGoneComesBack(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(context.Context, *gate.Gate) error{
		"Allow":    func(ctx context.Context, g *gate.Gate) error { _, err := g.Allow(ctx); return err },
		"TakeTurn": func(ctx context.Context, g *gate.Gate) error { _, err := g.TakeTurn(ctx, time.Time{}, 1); return err },
		"find turn": func(ctx context.Context, g *gate.Gate) error {
			_, err := g.TakeTurn(ctx, time.Now(), 1)
			return err
		},
		"Circuit": func(ctx context.Context, g *gate.Gate) error { _, err := g.Circuit(ctx); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			g := gate.New(r.store, practice, 100)
			r.must(ask(t.Context(), g))
			r.exec("DELETE FROM ecw_gates")
			_ = ask(t.Context(), g) // finds out, and may fail
			if err := ask(t.Context(), g); err != nil {
				t.Errorf("asked again: %v", err)
			}
		})
	}
}
