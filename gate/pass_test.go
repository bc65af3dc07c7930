package gate_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// passes takes passes, at most so many, until the gate gives none.
func (r *rig) passes(g *gate.Gate, most int) (list []gate.Pass) {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(r.tb.Context(), 300*time.Millisecond) // shorter than a pass is good for
	defer cancel()
	for range most {
		pass, ok, err := g.Pass(ctx)
		if ctx.Err() == nil {
			r.must(err)
		}
		if !ok {
			break
		}
		list = append(list, pass)
	}
	return list
}

func TestPassesStayBelowTheLimits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		perMinute, parallel int
		want                int
	}{
		"of the burst":  {perMinute: 60, parallel: 100, want: 5},
		"of the places": {perMinute: 100_000, parallel: 4, want: 3},
		"of one place":  {perMinute: 100_000, parallel: 1, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			processes := r.processes(3, func(c *gate.Config) { c.PerMinute, c.Parallel = test.perMinute, test.parallel })
			r.bears(processes[0], float64(test.parallel))

			var mu sync.Mutex
			var wait sync.WaitGroup
			given := 0
			for _, g := range processes {
				wait.Go(func() {
					n := len(r.passes(g, 20))
					mu.Lock()
					defer mu.Unlock()
					given += n
				})
			}
			wait.Wait()
			if given != test.want || r.taken() != test.want {
				t.Errorf("%d passes were given and %d places are taken, want %d", given, r.taken(), test.want)
			}
		})
	}
}

// However processes and single requests compete, no more leave in a time than the limit and its burst.
func TestPassesKeepTheLimit(t *testing.T) {
	t.Parallel()
	const perMinute, lasts = 600, 3 * time.Second
	r := newRig(t)
	processes := r.processes(3, func(c *gate.Config) { c.PerMinute, c.Parallel = perMinute, 100 })
	r.bears(processes[0], 100)

	var mu sync.Mutex
	var wait sync.WaitGroup
	left := 0
	began := time.Now()
	for i, g := range processes {
		wait.Go(func() {
			for time.Since(began) < lasts {
				n := 0
				if i == 0 {
					end := r.begin(t.Context(), g)
					end(t.Context(), ecw.Observed{Answered: true})
					n = 1
				} else {
					n = len(r.passes(g, 20))
				}
				mu.Lock()
				left += n
				mu.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	wait.Wait()
	most := 10 + int(time.Since(began).Seconds()*perMinute/60) + 1
	if left > most {
		t.Errorf("%d left in %s, want %d at most", left, time.Since(began), most)
	}
	if left < most/2 {
		t.Errorf("only %d left in %s", left, time.Since(began))
	}
}

// A process takes more at once when it used up what it had.
func TestAProcessTakesAsManyPassesAsItNeeds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(func(c *gate.Config) { c.PerMinute, c.Parallel = 100_000, 100 })
	r.bears(g, 100)
	r.passes(g, 8)
	if got := r.taken(); got <= 8 {
		t.Errorf("%d places were taken for 8 passes: each was taken by itself", got)
	}
}

// Passes that nobody uses give their places back after a second.
func TestAPassLapses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(func(c *gate.Config) { c.PerMinute, c.Parallel = 60, 3 })
	r.bears(g, 3)
	if got := len(r.passes(g, 2)); got != 2 {
		t.Fatalf("%d passes were given, want 2", got)
	}
	if got := len(r.passes(g, 1)); got != 0 {
		t.Fatalf("a third pass was given, with one place left")
	}
	r.await("the passes to lapse", func() bool { return r.taken() == 0 })
	r.await("another to be given", func() bool { return len(r.passes(g, 1)) == 1 })
}
