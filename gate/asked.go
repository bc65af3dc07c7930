package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
)

const (
	// askedPart says which part of the request limit people may use at once, and which part in a minute: an
	// eighth. In no 60 seconds do they use more than both together, a quarter of the limit. So three quarters
	// are the deliveries', however often somebody clicks.
	askedPart = 8
	// leastAsked is what they have in any case, because a connection test takes so many.
	leastAsked = 4
)

// Asked is the limiter of the requests for which a person waits. They pass the gate as all others do, and are
// counted once more, by all processes together. Beyond the part that people may use they are refused at once,
// with [ecw.ErrBudgetUsed]. It is safe for concurrent use.
type Asked struct{ gate *Gate }

// Asked returns the limiter of the requests for which a person waits.
func (g *Gate) Asked() *Asked { return &Asked{gate: g} }

// Begin is [Gate.Begin], and refuses a request beyond the part that people may use. One that is refused locks
// nothing, so that clicking costs the deliveries nothing either.
func (a *Asked) Begin(ctx context.Context) (end func(context.Context, ecw.Observed), wait time.Duration, err error) {
	if wait, err = a.look(ctx); err != nil {
		return nil, wait, err
	}

	p := placeOf(ctx)
	p.asked = true
	end, wait, err = a.gate.begin(ctx, p)
	if used := (*budgetUsed)(nil); errors.As(err, &used) { // others have spent it meanwhile
		return nil, used.wait, ecw.ErrBudgetUsed
	}
	return end, wait, err
}

// Pause is [Gate.Pause].
func (a *Asked) Pause(ctx context.Context, wait time.Duration) error { return a.gate.Pause(ctx, wait) }

// Spend takes a request out of the part that people may use, for one that a worker will send because a person
// asked for it. The request itself passes the gate like that of any delivery. The error is
// [ecw.ErrBudgetUsed] when there is none left; wait says when there is one again.
func (a *Asked) Spend(ctx context.Context) (wait time.Duration, err error) {
	if wait, err = a.look(ctx); err != nil {
		return wait, err
	}

	err = a.gate.locked(ctx, func(q *db.Queries, state db.Gate, now time.Time) error { return a.gate.spendAsked(ctx, q, state, now) })
	if used := (*budgetUsed)(nil); errors.As(err, &used) {
		return used.wait, ecw.ErrBudgetUsed
	}
	if err != nil {
		return 0, fmt.Errorf("spend a request: %w", err)
	}
	return 0, nil
}

// look returns ecw.ErrBudgetUsed when nothing is left.
func (a *Asked) look(ctx context.Context) (wait time.Duration, err error) {
	state, err := a.gate.store.LookAtAsked(ctx, a.gate.cfg.Practice)
	if db.IsNotFound(err) { // the first request of the practice
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at gate: %w", err)
	}
	if wait = a.gate.askedOpensIn(state.AskedFullAt, state.Now); wait > 0 {
		return wait, ecw.ErrBudgetUsed
	}
	return 0, nil
}

// budgetUsed ends the transaction of a request that is refused.
type budgetUsed struct{ wait time.Duration }

func (e *budgetUsed) Error() string { return ecw.ErrBudgetUsed.Error() }

// spendAsked takes one request out of the part that people may use.
func (g *Gate) spendAsked(ctx context.Context, q *db.Queries, state db.Gate, now time.Time) error {
	if wait := g.askedOpensIn(state.AskedFullAt, now); wait > 0 {
		return &budgetUsed{wait}
	}
	full := g.askedFullAt(state.AskedFullAt, now).Add(g.askedInterval())
	return q.SpendAsked(ctx, db.SpendAskedParams{PracticeCode: g.cfg.Practice, AskedFullAt: full})
}

// askedMost is how many requests people may send at once, and in a minute.
func (g *Gate) askedMost() time.Duration {
	return time.Duration(max(leastAsked, g.cfg.PerMinute/askedPart))
}

// askedInterval is the time between two of them, when they are sent evenly.
func (g *Gate) askedInterval() time.Duration { return time.Minute / g.askedMost() }

// askedOpensIn is how long until people may send another request.
func (g *Gate) askedOpensIn(full, now time.Time) time.Duration {
	return max(0, g.askedFullAt(full, now).Add(-(g.askedMost()-1)*g.askedInterval()).Sub(now))
}

// askedFullAt is when the part is there as a whole again. A moment further away than any that is handed out
// comes from a clock that was ahead and has been set right.
func (g *Gate) askedFullAt(full, now time.Time) time.Time {
	if full.Before(now) || full.Sub(now) > 2*time.Minute {
		return now
	}
	return full
}
