package gate

import (
	"context"
	"time"
)

// Moment hands out the moment of one request, as Begin does, without waiting for it; and says how long it would have to
// wait to be asked again, if there is none.
func (g *Gate) Moment(ctx context.Context) (at time.Time, wait time.Duration, err error) {
	p, spent := whose(ctx), false
	out, err := g.pass(ctx, p, &spent)
	if err != nil {
		return time.Time{}, 0, err
	}
	if _, err := g.store.LeavePlace(ctx, p.id); err != nil || !spent {
		return time.Time{}, out.wait, err
	}
	return out.at.Add(out.wait), 0, nil
}
