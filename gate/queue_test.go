package gate_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/gate"
)

// share is what turns may take of a limit of 240 requests a minute: a twentieth is left to what has no turn.
const share = 228

func (r *rig) take(g *gate.Gate, requests int) gate.Turn {
	r.tb.Helper()
	turn, err := g.TakeTurn(r.tb.Context(), time.Time{}, requests)
	r.must(err)
	return turn
}

// find asks when the turn of a place comes.
func (r *rig) find(g *gate.Gate, place time.Time) gate.Turn {
	r.tb.Helper()
	turn, err := g.TakeTurn(r.tb.Context(), place, 1)
	r.must(err)
	return turn
}

// takeMany takes turns by several callers of several processes at a time, and returns each caller's in its order.
func (r *rig) takeMany(gates []*gate.Gate, callers, turns int) (taken [][]time.Time) {
	r.tb.Helper()
	group, ctx := errgroup.WithContext(r.tb.Context())
	taken = make([][]time.Time, callers)
	for i := range taken {
		group.Go(func() error {
			for range turns / callers {
				turn, err := gates[i%len(gates)].TakeTurn(ctx, time.Time{}, 1)
				if err != nil {
					return err
				}
				taken[i] = append(taken[i], turn.Place)
			}
			return nil
		})
	}
	r.must(group.Wait())
	return taken
}

// 10,000 readings become due at once: each gets a turn, as many a minute as the queue may use, and none is forgotten.
func TestTenThousandReadingsTakeTurns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2, 240)
	began := r.now()
	minutes := map[time.Time]int{}
	seen := map[time.Time]bool{}
	var last time.Time
	for caller, places := range r.takeMany(gates, 4, 10_000) {
		if !slices.IsSortedFunc(places, time.Time.Compare) {
			t.Errorf("caller %d was handed an earlier place after a later one", caller)
		}
		for _, place := range places {
			minute := place.Truncate(time.Minute)
			minutes[minute]++
			if seen[place] && minute.After(r.now()) {
				t.Errorf("the place %s was handed out twice", place)
			}
			seen[place] = true
			if place.After(last) {
				last = place
			}
		}
	}
	for minute, n := range minutes {
		if n > share {
			t.Errorf("%d turns in the minute %s, want %d at most", n, minute.Format(time.TimeOnly), share)
		}
	}
	if needed := time.Duration(10_000/share+1) * time.Minute; last.Sub(began) > needed+time.Minute {
		t.Errorf("the last turn comes after %s, want within about %s", last.Sub(began), needed)
	}
}

func TestTurnsAreHandedOutFirstInFirstOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3, 240)
	r.fill(gates[0])
	last := r.take(gates[0], 1)
	for i := range 600 {
		turn := r.take(gates[i%len(gates)], 1+i%2)
		if !turn.Place.After(last.Place) {
			t.Fatalf("turn %d has the place %s, after %s", i, turn.Place, last.Place)
		}
		if gap := turn.Place.Sub(last.Place); gap > time.Second {
			t.Fatalf("turn %d comes %s after the one before: turns of a later minute are spread evenly", i, gap)
		}
		last = turn
	}
}

// fill gives the queue a backlog of more than a minute.
func (r *rig) fill(g *gate.Gate) {
	r.tb.Helper()
	r.take(g, 1)
	r.exec("UPDATE ecw_gates SET queue_minute = date_trunc('minute', now() - queue_delay) + interval '2 minutes', queue_used = 0")
}

func TestAnIdleQueueStartsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	r.inOneMinute(func() error {
		for i := range share {
			if turn := r.take(g, 1); turn.Wait != 0 {
				return fmt.Errorf("turn %d of a queue that was idle comes after %s", i+1, turn.Wait)
			}
		}
		next := r.now().Truncate(time.Minute).Add(time.Minute)
		if turn := r.take(g, 1); !turn.ComesAt.Equal(next) {
			return fmt.Errorf("the turn after those comes at %s, want at %s", turn.ComesAt, next)
		}
		return nil
	})
	r.exec("UPDATE ecw_gates SET queue_minute = queue_minute - interval '1 hour'") // an hour later
	if turn := r.take(g, 1); turn.Wait != 0 {
		t.Errorf("the turn of a queue that became idle comes after %s", turn.Wait)
	}
}

func TestADeliveryThatTakesTwoRequestsTakesTwoTurns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	r.inOneMinute(func() error {
		for i := range share / 2 {
			if turn := r.take(g, 2); turn.Wait != 0 {
				return fmt.Errorf("turn %d comes after %s", i+1, turn.Wait)
			}
		}
		if turn := r.take(g, 2); turn.Wait == 0 {
			return fmt.Errorf("%d turns of two requests fit into a minute of %d", share/2+1, share)
		}
		return nil
	})
}

// What does not fit into the rest of a minute goes into the next, also when it is more than a minute takes.
func TestADeliveryIsNotSplitOverTwoMinutes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, gate.MinPerMinute) // nine of them are the queue's
	r.inOneMinute(func() error {
		next := r.now().Truncate(time.Minute).Add(time.Minute)
		if turn := r.take(g, 8); turn.Wait != 0 {
			return fmt.Errorf("the first comes after %s", turn.Wait)
		}
		for i, requests := range []int{2, 100, 100, 1} {
			want := next.Add(time.Duration(i) * time.Minute)
			if turn := r.take(g, requests); !turn.Place.Equal(want) {
				return fmt.Errorf("turn %d, of %d requests, has the place %s, want %s", i, requests, turn.Place, want)
			}
		}
		return nil
	})
}

func TestAPauseMovesEveryTurnThatIsHandedOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	r.fill(g)
	var before []gate.Turn
	for range 300 {
		before = append(before, r.take(g, 1))
	}
	r.must(g.Pause(t.Context(), 90*time.Second))
	delay := r.delay()
	for i, turn := range before {
		now := r.find(g, turn.Place)
		if !now.Place.Equal(turn.Place) {
			t.Fatalf("turn %d changed its place from %s to %s", i, turn.Place, now.Place)
		}
		if moved := now.ComesAt.Sub(turn.ComesAt); moved != delay || now.Wait <= turn.Wait {
			t.Fatalf("turn %d comes %s later, want %s", i, moved, delay)
		}
	}
	next := r.take(g, 1)
	if last := before[len(before)-1]; !next.Place.After(last.Place) || !next.ComesAt.After(last.ComesAt.Add(delay)) {
		t.Errorf("the next turn, %s at %s, overtakes the last, %s", next.Place, next.ComesAt, last.Place)
	}
}

// A turn that came while eCW blocks us would only be refused: it comes when the block ends.
func TestNoTurnComesInABlock(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*rig, *gate.Gate){
		"the queue is idle":           func(*rig, *gate.Gate) {},
		"a turn of this minute taken": func(r *rig, g *gate.Gate) { r.take(g, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			g := gate.New(r.store, practice, 240)
			due := r.take(g, 1)
			r.exec("UPDATE ecw_gates SET queue_minute = 'epoch', queue_used = 0")
			prepare(r, g)
			r.must(g.Pause(t.Context(), 100*time.Second))
			ends := r.row().BlockedUntil
			if turn := r.take(g, 1); turn.ComesAt.Before(ends) || turn.ComesAt.Sub(ends) > time.Minute {
				t.Errorf("a new turn comes at %s, the block ends at %s", turn.ComesAt, ends)
			}
			if turn := r.find(g, due.Place); turn.ComesAt.Before(ends) {
				t.Errorf("a turn that was due comes at %s, the block ends at %s", turn.ComesAt, ends)
			}
		})
	}
}

// A turn is one place of the queue's clock for good, however often and by whom it is asked for.
func TestAPlaceIsTheSameForEveryProcess(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3, 240)
	r.fill(gates[0])
	turn := r.take(gates[0], 2)
	before := r.row()
	var group sync.WaitGroup
	for _, g := range gates {
		group.Go(func() {
			if got, err := g.TakeTurn(context.WithoutCancel(t.Context()), turn.Place, 2); err != nil || !got.ComesAt.Equal(turn.ComesAt) || got.Wait > turn.Wait {
				t.Errorf("another process is told %+v (%v), want %+v", got, err, turn)
			}
		})
	}
	group.Wait()
	if after := r.row(); after.QueueUsed != before.QueueUsed {
		t.Error("asking for a turn that is held takes another")
	}
	if passed := r.find(gates[1], turn.Place.Add(-time.Hour)); passed.Wait != 0 {
		t.Errorf("a turn that has passed comes after %s, want now", passed.Wait)
	}
}

// The turns that were handed out before an outage were not used: whoever comes after it does not queue behind them.
func TestACircuitThatClosesEmptiesTheQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	for range 1000 {
		r.take(g, 1)
	}
	if turn := r.take(g, 1); turn.Wait < 3*time.Minute {
		t.Fatalf("after 1,000 others the turn comes in %s", turn.Wait)
	}
	r.openCircuit(g, time.Minute)
	id := r.transmission()
	if a := r.admit(g, gate.Request{TransmissionID: id, Asked: true}); !a.Trial {
		t.Fatalf("admitted as %+v, want the trial", a)
	}
	if change := r.report(r.store, g, id, gate.Answers); !change.Closed {
		t.Fatalf("an answer changed the circuit by %+v", change)
	}
	if turn := r.take(g, 1); turn.Wait != 0 {
		t.Errorf("the first turn afterwards comes in %s, want it at once", turn.Wait)
	}
}
