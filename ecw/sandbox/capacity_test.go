package sandbox

import (
	"sync"
	"testing"
	"time"
)

// TestSharing compares the ends of requests with results worked out by hand, for several sizes of the steps
// of time.
func TestSharing(t *testing.T) {
	t.Parallel()
	const s = time.Second
	type arrival struct{ at, work, ends time.Duration }

	for name, arrivals := range map[string][]arrival{
		"alone":              {{0, 3 * s, 3 * s}},
		"one after another":  {{0, s, s}, {2 * s, s, 3 * s}},
		"two at once":        {{0, 2 * s, 4 * s}, {0, 2 * s, 4 * s}},
		"the short one ends": {{0, s, 2 * s}, {0, 3 * s, 4 * s}},
		"one comes later":    {{0, 2 * s, 3 * s}, {s, 2 * s, 4 * s}},
		"three, one by one":  {{0, 3 * s, 5500 * time.Millisecond}, {s, s, 3500 * time.Millisecond}, {2 * s, 2 * s, 6 * s}},
	} {
		for _, step := range []time.Duration{s, s / 4, s / 1000} {
			var shared sharing
			var work time.Duration
			begun := time.Now()
			under := map[int]<-chan struct{}{}

			for now := time.Duration(0); now <= 10*s; now += step {
				shared.advance(begun.Add(now))
				for i, done := range under {
					if !isClosed(done) {
						continue
					}
					if ends := arrivals[i].ends; now < ends || now > ends+step {
						t.Errorf("%s, steps of %s: request %d has ended at %s, want %s", name, step, i, now, ends)
					}
					delete(under, i)
				}

				for i, a := range arrivals {
					if a.at == now {
						under[i] = shared.enter(begun.Add(now), a.work)
						work += a.work
					}
				}
			}

			if len(under) > 0 {
				t.Errorf("%s, steps of %s: %d requests never end", name, step, len(under))
			}
			if off := (shared.busy - work).Abs(); off > time.Microsecond {
				t.Errorf("%s, steps of %s: busy for %s, want %s", name, step, shared.busy, work)
			}
		}
	}
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// TestCapacityServesManyAtOnce: many requests share the capacity, and all of them end when their work is
// done.
func TestCapacityServesManyAtOnce(t *testing.T) {
	t.Parallel()
	const n, work = 2000, 200 * time.Microsecond
	c := newCapacity()
	begun := time.Now()
	var all sync.WaitGroup

	for range n {
		all.Go(func() { c.use(work) })
	}

	all.Wait()
	if took := time.Since(begun); took < n*work {
		t.Errorf("%d times %s were done in %s", n, work, took)
	}
	if busy := c.busy(); busy < n*work-time.Millisecond || busy > n*work+time.Millisecond {
		t.Errorf("busy for %s, want %s", busy, n*work)
	}
}
