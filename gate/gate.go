// Package gate decides when a request may leave for a practice's eCW. It keeps every process together below eCW's
// request limit, hands each delivery its turn when more is waiting than the limit lets through, and stops deliveries
// while eCW is down or refuses our credentials (a circuit breaker). Its state is one row of PostgreSQL a practice, and
// its clock is PostgreSQL's, so that any number of workers and API processes agree.
package gate

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

// MinPerMinute is the least limit that works: one delivery can take several requests, and has to fit into a minute.
const MinPerMinute = 10

// Gate is the gate of one practice. It is safe for concurrent use.
type Gate struct {
	store     *db.Store
	practice  string
	perMinute int
	created   atomic.Bool // the practice's row exists
}

// New returns the gate of a practice that may send perMinute requests a minute, MinPerMinute or more. It does not ask
// the database yet.
func New(store *db.Store, practice string, perMinute int) *Gate {
	return &Gate{store: store, practice: practice, perMinute: perMinute}
}

// create makes sure that the practice has a row.
func (g *Gate) create(ctx context.Context) error {
	if g.created.Load() {
		return nil
	}
	if err := g.store.CreateGate(ctx, g.practice); err != nil {
		return fmt.Errorf("create gate: %w", err)
	}
	g.created.Store(true)
	return nil
}

// failed is the error of a query for the row. When that is gone, with a database that was restored, the next caller
// makes it again.
func (g *Gate) failed(what string, err error) error {
	if db.IsNotFound(err) {
		g.created.Store(false)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Allow counts one request, or says how long to wait before asking again; then nothing may be sent.
func (g *Gate) Allow(ctx context.Context) (wait time.Duration, err error) {
	if err := g.create(ctx); err != nil {
		return 0, err
	}
	row, err := g.store.AllowRequest(ctx, db.AllowRequestParams{PracticeCode: g.practice, PerMinute: int32(g.perMinute)})
	if err != nil {
		return 0, g.failed("count request", err)
	}
	if row.Allowed {
		return 0, nil
	}
	return row.AskAgainAt.Sub(row.AskedAt), nil
}

// Pause holds every request back for the given time, because eCW answered one with 429. Who waits for a turn waits that
// much longer.
func (g *Gate) Pause(ctx context.Context, wait time.Duration) error {
	if err := g.create(ctx); err != nil {
		return err
	}
	err := g.store.PauseRequests(ctx, db.PauseRequestsParams{PracticeCode: g.practice, Pause: wait.Seconds()})
	if err != nil {
		return fmt.Errorf("pause requests: %w", err)
	}
	return nil
}

// Turn is a turn in the queue for the practice's request limit.
type Turn struct {
	// Place is a moment on the queue's clock, which stands still while eCW blocks us: it is not a time of day.
	Place time.Time
	// ComesAt is when that is, as things stand, and Wait how long until then; 0 is now.
	ComesAt time.Time
	Wait    time.Duration
}

// TakeTurn hands out the next free turn for so many requests. Who holds a place already is told when its turn comes: a
// 429 may have moved the queue meanwhile.
func (g *Gate) TakeTurn(ctx context.Context, place time.Time, requests int) (Turn, error) {
	if err := g.create(ctx); err != nil {
		return Turn{}, err
	}
	if !place.IsZero() {
		row, err := g.store.TurnComesAt(ctx, db.TurnComesAtParams{PracticeCode: g.practice, Place: place})
		if err != nil {
			return Turn{}, g.failed("find turn", err)
		}
		return Turn{Place: place, ComesAt: row.ComesAt, Wait: max(0, row.ComesAt.Sub(row.AskedAt))}, nil
	}
	row, err := g.store.TakeTurn(ctx, db.TakeTurnParams{PracticeCode: g.practice, Requests: int32(requests), PerMinute: int32(g.queuePerMinute())})
	if err != nil {
		return Turn{}, g.failed("take turn", err)
	}
	return Turn{Place: row.Place, ComesAt: row.ComesAt, Wait: max(0, row.ComesAt.Sub(row.AskedAt))}, nil
}

// queuePerMinute leaves a twentieth of the limit to what has no turn: token requests, a person at the console, and
// deliveries that need more requests than they said.
func (g *Gate) queuePerMinute() int { return g.perMinute - max(1, g.perMinute/20) }
