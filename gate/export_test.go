package gate

import (
	"context"
	"time"
)

// Moment returns the moment at which a request may leave, as Begin determines it, without waiting. Or it
// returns how long the request would have to wait before it asks again.
func (g *Gate) Moment(ctx context.Context) (at time.Time, wait time.Duration, err error) {
	p, spent := placeOf(ctx), false
	at, wait, err = g.pass(ctx, p, &spent)
	if err != nil {
		return time.Time{}, 0, err
	}
	if _, err := g.store.LeavePlace(ctx, p.id); err != nil || !spent {
		return time.Time{}, wait, err
	}
	return at.Add(wait), 0, nil
}
