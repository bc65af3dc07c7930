// Package gate decides when a request may leave for a practice's eCW. It keeps every process together below eCW's request
// limit, bounds how much is under way at once by what eCW bears, queues the deliveries beyond that, and stops them while
// eCW is down or refuses our credentials (a circuit breaker). Its state is a few rows of PostgreSQL a practice, and its
// clock is PostgreSQL's, so that any number of workers and API processes agree.
//
// A delivery asks [Gate.Admit] before it begins. It gets a place among those under way, which it keeps over all its
// requests until [Gate.Report] or [Gate.HoldBack], or it waits in the queue: whoever leaves a place calls the next one
// ([Gate.CallNext]). What belongs to no delivery (an import, a person at the console, their tokens) takes a place for each
// request ([Gate.Begin]). An import asks [Gate.AdmitImport] before, and reports to [Gate.Report] what it has found. A place is
// a lease: one whose process has died is free a little later.
package gate

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

const (
	// MinPerMinute is the least request limit that works: below it a delivery of several requests takes minutes.
	MinPerMinute = 10
	// burst is how many requests may leave at once when little has left before. In no 60 seconds do more leave than the limit
	// and this.
	burst = 10
	// leaseMargin is what a place outlasts the longest request.
	leaseMargin = 10 * time.Second
	// patience is how long a request waits here for its moment before it is sent back.
	patience = 10 * time.Second
	// pollPlace is how often a request that waits for a place looks for one.
	pollPlace = 200 * time.Millisecond
)

// Config says what holds for one practice. Every process must be given the same.
type Config struct {
	Store    *db.Store
	Practice string
	// PerMinute is the request limit, MinPerMinute or more.
	PerMinute int
	// Parallel is the most that may be under way at once, 1 or more.
	Parallel int
	// Timeout is the longest that a request may take. An answer in less than half of it came in good time.
	Timeout time.Duration
	// FirstWait is how long what may have arrived waits until it is sent again: the schedule's first wait.
	FirstWait time.Duration
	// Call tells the workflow of an observation that a place is kept for it, and starts one where it was lost.
	Call func(ctx context.Context, practice string, observationID uuid.UUID, call Call) error
	// Logger writes of what the next caller repairs; default: none.
	Logger *slog.Logger
}

// Call tells a waiting transmission that it may go.
type Call struct {
	// Wait is how long until the request limit has room for it; 0 is now.
	Wait time.Duration `json:",omitempty"`
}

// Gate is the gate of one practice. It is safe for concurrent use.
type Gate struct {
	cfg     Config
	store   *db.Store
	log     *slog.Logger
	created atomic.Bool // the practice's row exists
}

// New returns the gate of a practice. It does not ask the database yet.
func New(cfg Config) *Gate {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Gate{cfg: cfg, store: cfg.Store, log: log}
}

// interval is the time between two requests at the limit.
func (g *Gate) interval() time.Duration { return time.Minute / time.Duration(g.cfg.PerMinute) }

// lease is how long a place is kept for a request.
func (g *Gate) lease() time.Duration { return g.cfg.Timeout + leaseMargin }

// Lease is how long after it was marked as sent a delivery may still be under way, if its worker was lost.
func (g *Gate) Lease() time.Duration { return g.lease() }

// FirstWait is how long what may have arrived waits until it is sent again.
func (g *Gate) FirstWait() time.Duration { return g.cfg.FirstWait }

// create makes sure that the practice has a row.
func (g *Gate) create(ctx context.Context, q *db.Queries) error {
	if g.created.Load() {
		return nil
	}
	if err := q.CreateGate(ctx, g.cfg.Practice); err != nil {
		return fmt.Errorf("create gate: %w", err)
	}
	return nil
}

// locked runs fn while nobody else passes the gate. now is PostgreSQL's time.
func (g *Gate) locked(ctx context.Context, fn func(q *db.Queries, state db.Gate, now time.Time) error) error {
	err := g.store.InTx(ctx, func(q *db.Queries) error { return g.lock(ctx, q, fn) })
	if err == nil {
		g.created.Store(true)
	}
	return err
}

// lock is locked within the caller's transaction.
func (g *Gate) lock(ctx context.Context, q *db.Queries, fn func(q *db.Queries, state db.Gate, now time.Time) error) error {
	if err := g.create(ctx, q); err != nil {
		return err
	}
	state, err := q.LockGate(ctx, g.cfg.Practice)
	if err != nil {
		return g.failed("lock gate", err)
	}
	now, err := q.Clock(ctx)
	if err != nil {
		return fmt.Errorf("lock gate: %w", err)
	}
	return fn(q, state, now)
}

// failed is the error of a query for the row. When that is gone, with a database that was restored, the next caller
// makes it again.
func (g *Gate) failed(what string, err error) error {
	if db.IsNotFound(err) {
		g.created.Store(false)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// places is how many may be under way at once.
func (g *Gate) places(state db.Gate) int64 {
	return int64(min(state.Parallel, float64(g.cfg.Parallel)))
}

// opensAt is when the next request may leave.
func (g *Gate) opensAt(state db.Gate, now time.Time) time.Time {
	at := g.fullAt(state, now).Add(-(burst - 1) * g.interval())
	if state.BlockedUntil.After(at) {
		return state.BlockedUntil
	}
	return at
}

// fullAt is when the bucket is full again. A moment further away than any that is handed out comes from a clock that was
// ahead and has been set right: it holds nobody back.
func (g *Gate) fullAt(state db.Gate, now time.Time) time.Time {
	furthest := patience + burst*g.interval() + time.Minute // what is repeated is counted in any case
	if state.BucketFullAt.Before(now) || state.BucketFullAt.Sub(now) > furthest {
		return now
	}
	return state.BucketFullAt
}

// spend takes requests out of the bucket (the generic cell rate algorithm): it is full again that much later.
func (g *Gate) spend(ctx context.Context, q *db.Queries, state db.Gate, now time.Time, requests int) error {
	full := g.fullAt(state, now).Add(time.Duration(requests) * g.interval())
	return q.SpendRequests(ctx, db.SpendRequestsParams{PracticeCode: g.cfg.Practice, BucketFullAt: full})
}

// State returns the state of the circuit.
func (g *Gate) State(ctx context.Context) (db.Gate, error) {
	if err := g.create(ctx, g.store.Queries); err != nil {
		return db.Gate{}, err
	}
	g.created.Store(true)
	state, err := g.store.GetGate(ctx, g.cfg.Practice)
	if err != nil {
		return state, g.failed("look at circuit", err)
	}
	return state, nil
}
