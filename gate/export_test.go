package gate

import (
	"context"
	"time"
)

// Moment hands out the moment of one request, as Begin does, without waiting for it; or says how long the
// request would have to wait to ask again.
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
