// Package gate decides when a request may leave for a practice's eCW. It keeps every process together below
// eCW's request limit (limit.go), bounds how much is under way at once by what eCW bears (place.go), queues
// the deliveries beyond that (queue.go), and stops them while eCW is down or refuses our credentials
// (circuit.go, trial.go). Its state is a few rows of PostgreSQL a practice, and its clock is PostgreSQL's, so
// that any number of workers and API processes agree.
//
// A delivery asks [Gate.Admit] before it begins. It gets a place among those under way, which it keeps over
// all its requests until [Gate.Report] or [Gate.HoldBack], or it waits in the queue until a delivery that
// leaves a place calls the next one ([Gate.CallNext]). A request that belongs to no delivery (of an import,
// of a person at the console, for their tokens) takes a place of its own ([Gate.Begin]). One that a person
// waits for also comes out of a smaller part of the limit (asked.go). An import asks
// [Gate.AdmitImport] before it reads, and reports to [Gate.Report] what it has found. A place is a lease: one
// whose process has died is free a little later.
//
// docs/reliability.md shows the circuit as a diagram.
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

// patience is how long a request waits here for its moment before it is sent back.
const patience = 10 * time.Second

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
	// FirstWait is how long a request that may have arrived waits until it is sent again: the schedule's
	// first wait.
	FirstWait time.Duration
	// Call tells the workflow of an observation that a place is kept for it, and starts one where it was
	// lost.
	Call func(ctx context.Context, practice string, observationID uuid.UUID, call Call) error
	// Logger gets what the next caller repairs; default: none.
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
	passes  passes
	slow    atomic.Bool // AnswersSlowly
	calling atomic.Bool // callLater will
}

// New returns the gate of a practice. It does not ask the database yet.
func New(cfg Config) *Gate {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Gate{cfg: cfg, store: cfg.Store, log: log, passes: passes{turn: make(chan struct{}, 1), left: make(chan struct{}, 1)}}
}

// FirstWait is how long a request that may have arrived waits until it is sent again.
func (g *Gate) FirstWait() time.Duration { return g.cfg.FirstWait }

// AnswersSlowly reports whether eCW's last answer to this process took long.
func (g *Gate) AnswersSlowly() bool { return g.slow.Load() }

// State returns the practice's row: its limit, its places and its circuit.
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

// SinceAnswered is how long ago eCW last answered a delivery of any process, within a second.
func (g *Gate) SinceAnswered(ctx context.Context) (time.Duration, error) {
	seconds, err := g.store.SinceAnswered(ctx, g.cfg.Practice)
	if err != nil {
		return 0, g.failed("look at gate", err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

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

// lock does what locked does, within the caller's transaction.
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

// failed is the error of a query for the row. When the row is gone, because the database was restored, the
// next caller creates it again.
func (g *Gate) failed(action string, err error) error {
	if db.IsNotFound(err) {
		g.created.Store(false)
	}
	return fmt.Errorf("%s: %w", action, err)
}
