package gate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// crowd is many deliveries, imports and people's requests to one eCW, from several processes.
type crowd struct {
	*rig
	gates []*gate.Gate
	log   lockedLog
	desks map[uuid.UUID]chan gate.Call // on which each delivery receives its call

	under, imports, mostUnder, mostImports atomic.Int64
	outages                                atomic.Int64 // how many more deliveries fail
	opened                                 atomic.Int64
}

// lockedLog counts the warnings of the gates.
type lockedLog struct {
	mu   sync.Mutex
	text string
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(p)
	return len(p), nil
}

func newCrowd(t *testing.T, processes int, change ...func(*gate.Config)) *crowd {
	c := &crowd{rig: newRig(t), desks: map[uuid.UUID]chan gate.Call{}}
	change = append(change, limit(60_000), func(cfg *gate.Config) {
		cfg.Call = c.call
		cfg.Logger = slog.New(slog.NewTextHandler(&c.log, nil))
	})
	c.gates = c.processes(processes, change...)
	return c
}

func (c *crowd) call(_ context.Context, _ string, observationID uuid.UUID, call gate.Call) error {
	select {
	case c.desks[observationID] <- call:
	default: // it was called already, and has not received the call yet
	}
	return nil
}

// enters counts a request in n, the number under way, and keeps the highest number in most.
func (c *crowd) enters(n, most *atomic.Int64) {
	for now := n.Add(1); ; {
		seen := most.Load()
		if now <= seen || most.CompareAndSwap(seen, now) {
			return
		}
	}
}

// deliver brings one reading to eCW, as its workflow does.
func (c *crowd) deliver(ctx context.Context, g *gate.Gate, t gate.Request) error {
	for number := int32(1); ; number++ {
		a, err := g.Admit(ctx, t)
		if err != nil {
			return fmt.Errorf("admit: %w", err)
		}

		done := false
		if !a.Waits() {
			if done, err = c.attempt(ctx, g, t, number); done || err != nil {
				return err
			}
		}

		select {
		case call := <-c.desks[t.ObservationID]:
			time.Sleep(call.Wait)
		case <-ctx.Done():
			return fmt.Errorf("nobody called: %w", ctx.Err())
		}
	}
}

// attempt makes a delivery of two requests.
func (c *crowd) attempt(ctx context.Context, g *gate.Gate, t gate.Request, number int32) (done bool, err error) {
	err = db.Written(c.store.StartAttempt(ctx, db.StartAttemptParams{
		TransmissionID: t.TransmissionID,
		ObservationID:  t.ObservationID,
		Delivery:       number,
		Number:         1,
		StartedAt:      time.Now(),
	}))
	if err != nil {
		return false, fmt.Errorf("start: %w", err)
	}

	observed, finding := prompt, gate.Answers
	if c.outages.Add(-1) >= 0 {
		observed, finding = overload, gate.Unavailable
	}

	c.enters(&c.under, &c.mostUnder)
	for range 2 {
		end, wait, err := g.Begin(gate.Delivering(ctx, t.TransmissionID))
		if err != nil || wait > 0 {
			c.under.Add(-1)
			return false, errors.Join(err, fmt.Errorf("a delivery with a place is sent back for %s", wait))
		}
		end(ctx, observed)
	}

	c.under.Add(-1)

	var change gate.Change
	err = c.store.InTx(ctx, func(q *db.Queries) error {
		out := db.RecordOutcomeParams{
			ID:            t.TransmissionID,
			ObservationID: t.ObservationID,
			Status:        db.StatusTransmitted,
			AttemptCount:  1,
		}

		if finding == gate.Answers {
			ecwID := "obs"
			out.ECWObservationID = &ecwID
		} else {
			out.Status, out.Held, out.ErrorClass = db.StatusPending, true, "retryable"
		}

		if err := db.Written(q.RecordOutcome(ctx, out)); err != nil {
			return err
		}

		var err error
		change, err = g.Report(ctx, q, gate.Report{
			TransmissionID: t.TransmissionID,
			StartedAt:      time.Now(),
			Finding:        finding,
			Message:        "down",
		})

		return err
	})
	if err != nil {
		return false, fmt.Errorf("record: %w", err)
	}

	if change.Opened {
		c.opened.Add(1)
	}

	if !change.Closed {
		g.CallNext(ctx)
		return finding == gate.Answers, nil
	}

	group, ctx := errgroup.WithContext(ctx) // the circuit breaker releases too
	for _, g := range c.gates {
		group.Go(func() error { return g.Release(ctx, change.FailingSince) })
	}

	return finding == gate.Answers, group.Wait()
}

// ask sends single requests.
func (c *crowd) ask(ctx context.Context, g *gate.Gate, imports bool) error {
	if imports {
		ctx = gate.Importing(ctx)
	}

	for range 15 {
		end, wait, err := g.Begin(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if wait > 0 {
			continue
		}

		c.enters(&c.under, &c.mostUnder)
		if imports {
			c.enters(&c.imports, &c.mostImports)
		}

		time.Sleep(time.Millisecond) // the request is under way
		if imports {
			c.imports.Add(-1)
		}

		c.under.Add(-1)
		end(ctx, ecw.Observed{Took: time.Second, Answered: true, Repeats: 1})
	}

	return nil
}

// breaker chooses trials for an open circuit, as the workflow of the circuit breaker does.
func (c *crowd) breaker(ctx context.Context, g *gate.Gate) error {
	for ctx.Err() == nil {
		state, err := g.State(ctx)
		if err == nil && state.Circuit != gate.Closed && state.Trial == nil {
			var next gate.Waiting
			var found bool
			if next, found, err = g.NextTrial(ctx); found {
				err = errors.Join(err, c.call(ctx, practice, next.ObservationID, gate.Call{}))
			}
		}

		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("breaker: %w", err)
		}

		time.Sleep(5 * time.Millisecond)
	}

	return nil
}

// run delivers readings to eCW, while imports and people send requests too. There is no sweep, so a reading
// whose call is lost waits for ever and the test fails.
func (c *crowd) run(readings int) {
	c.tb.Helper()
	list := c.transmissions(readings)
	for _, t := range list {
		c.desks[t.ObservationID] = make(chan gate.Call, 1)
	}

	ctx, cancel := context.WithTimeout(c.tb.Context(), 3*time.Minute)
	defer cancel()
	background, stop := context.WithCancel(ctx)
	defer stop()
	var watchers errgroup.Group
	watchers.Go(func() error { return c.breaker(background, c.gates[0]) })

	group, ctx := errgroup.WithContext(ctx)
	for i, t := range list {
		group.Go(func() error { return c.deliver(ctx, c.gates[i%len(c.gates)], t) })
	}

	for i := range 4 {
		group.Go(func() error { return c.ask(ctx, c.gates[i%len(c.gates)], i < 2) })
	}

	err := group.Wait()
	stop()
	c.must(errors.Join(err, watchers.Wait()))

	if c.log.text != "" {
		c.tb.Errorf("the gates warn: %s", c.log.text)
	}
	if n := c.taken(); n != 0 {
		c.tb.Errorf("%d places are taken in the end", n)
	}

	for _, t := range list {
		if row := c.stored(t); row.Status != db.StatusTransmitted {
			c.tb.Errorf("%s is %s in the end", t.TransmissionID, row.Status)
		}
	}
}

func TestACrowdIsDeliveredWithinThePlaces(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 4} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, 3, places(most))
			c.run(40)
			if n := c.mostUnder.Load(); n > int64(most) {
				t.Errorf("%d were under way at once, want %d at most", n, most)
			}
			if n := c.mostImports.Load(); n > int64(max(1, most/2)) {
				t.Errorf("%d imports were under way at once, want half of %d at most", n, most)
			}
		})
	}
}

// Deliveries fail in between, so the circuit opens and closes; still every reading is delivered. Only a trial
// may be under way in addition to the places.
func TestACrowdIsDeliveredThroughOutages(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, 3, places(4))
	c.outages.Store(25)
	c.run(40)
	if n := c.mostUnder.Load(); n > 5 {
		t.Errorf("%d were under way at once, want 4 and the trial at most", n)
	}
	if c.opened.Load() == 0 {
		t.Error("the circuit never opened")
	}
}
