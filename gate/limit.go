package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

const (
	// MinPerMinute is the least request limit that works: below it a delivery of several requests takes
	// minutes.
	MinPerMinute = 10
	// burst is how many requests may leave at once when little has left before. In no 60 seconds do more
	// leave than the limit and this.
	burst = 10
)

// Pause holds every request back for the given time, because eCW answered one with 429.
func (g *Gate) Pause(ctx context.Context, wait time.Duration) error {
	err := g.store.PauseRequests(ctx, db.PauseRequestsParams{PracticeCode: g.cfg.Practice, Pause: wait.Seconds()})
	if err != nil {
		return fmt.Errorf("pause requests: %w", err)
	}
	return nil
}

// interval is the time between two requests at the limit.
func (g *Gate) interval() time.Duration { return time.Minute / time.Duration(g.cfg.PerMinute) }

// opensIn is how long until the next request may leave.
func (g *Gate) opensIn(state db.Gate, now time.Time) time.Duration {
	at := g.fullAt(state, now).Add(-(burst - 1) * g.interval())
	if state.BlockedUntil.After(at) {
		at = state.BlockedUntil
	}
	return max(0, at.Sub(now))
}

// fullAt is when the bucket is full again. A moment further away than any that is handed out comes from a
// clock that was ahead and has been set right: it holds nobody back.
func (g *Gate) fullAt(state db.Gate, now time.Time) time.Time {
	furthest := patience + burst*g.interval() + time.Minute // repeated requests are counted in any case
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
