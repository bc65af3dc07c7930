package gate_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// burst is how many requests may leave at once.
const burst = 10

// within checks moments against the limit: no period has more of them than the limit permits for its length,
// plus the burst. For 60 seconds that is limit+10.
func within(t *testing.T, moments []time.Time, interval time.Duration) {
	t.Helper()
	slices.SortFunc(moments, time.Time.Compare)
	for i, first := range moments {
		for j, last := range moments[i:] {
			if most := burst + int(last.Sub(first)/interval); j+1 > most {
				t.Fatalf("%d requests leave within %s, want %d at most", j+1, last.Sub(first), most)
			}
		}
	}
}

// However many processes ask, and however often, together they get the burst and then one request after the
// other at the limit's pace, without a gap while there is a backlog.
func TestManyProcessesShareOneLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const interval = 100 * time.Millisecond
	gates := r.processes(3, limit(600), places(64))
	var mu sync.Mutex
	var moments []time.Time
	group, ctx := errgroup.WithContext(t.Context())

	for _, g := range gates {
		for range 4 {
			group.Go(func() error {
				for range 9 {
					at, wait, err := g.Moment(ctx)
					if err != nil {
						return err
					}

					if wait > 0 {
						t.Errorf("sent back for %s, want a moment", wait)
						return nil
					}

					mu.Lock()
					moments = append(moments, at)
					mu.Unlock()
				}

				return nil
			})
		}
	}

	r.must(group.Wait())

	within(t, moments, interval)
	if want, last := time.Duration(len(moments)-burst)*interval, moments[len(moments)-1].Sub(moments[0]); last > want+want/2 {
		t.Errorf("%d requests take %s, want about %s: the limit is used up while there is a backlog", len(moments), last, want)
	}
}

// The same as above with real requests, which wait for their moments.
func TestRequestsLeaveAtTheLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const interval = 20 * time.Millisecond
	gates := r.processes(3, limit(3000), places(64))
	began := r.now()
	group, ctx := errgroup.WithContext(t.Context())

	for _, g := range gates {
		for range 8 {
			group.Go(func() error {
				for range 5 {
					end, wait, err := g.Begin(ctx)
					if err != nil {
						return err
					}

					if wait > 0 {
						t.Errorf("sent back for %s", wait)
						return nil
					}

					end(ctx, prompt)
				}

				return nil
			})
		}
	}

	r.must(group.Wait())
	took, full := r.now().Sub(began), r.row().BucketFullAt
	const requests = 3 * 8 * 5
	if requests > burst+int(took/interval) {
		t.Errorf("%d requests left within %s, want %d at most", requests, took, burst+int(took/interval))
	}

	if counted := full.Sub(began); counted < requests*interval {
		t.Errorf("the bucket is full after %s, want %s or more: each of %d requests counts", counted, requests*interval, requests)
	}
	if n := r.taken(); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

func TestABurstThenTheLimitsPace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(limit(gate.MinPerMinute))
	_, err := g.State(t.Context())
	r.must(err)

	for name, test := range map[string]struct {
		fullIn    time.Duration // until the bucket is full
		goes      bool
		waitAbout time.Duration
	}{
		"nothing left before":          {-time.Hour, true, 0},
		"the last of the burst":        {53 * time.Second, true, 0},
		"the first after the burst":    {58 * time.Second, true, 4 * time.Second},
		"sent back, as it is far away": {65 * time.Second, false, 11 * time.Second},
		"and says how far":             {100 * time.Second, false, 46 * time.Second},
	} {
		r.exec("UPDATE ecw_gates SET bucket_full_at = clock_timestamp() + $1::interval", test.fullIn)
		before := r.row().BucketFullAt
		asked := r.now()
		at, wait, err := g.Moment(t.Context())
		r.must(err)

		if (wait == 0) != test.goes {
			t.Errorf("%s: told to wait %s", name, wait)
			continue
		}

		late := r.now().Sub(asked) + time.Second
		if !test.goes {
			if wait > test.waitAbout || wait < test.waitAbout-late {
				t.Errorf("%s: told to wait %s, want %s", name, wait, test.waitAbout)
			}
			if after := r.row().BucketFullAt; !after.Equal(before) {
				t.Errorf("%s: a request that did not leave is counted", name)
			}
			continue
		}

		if away := at.Sub(asked); away > test.waitAbout+late || away < test.waitAbout-late {
			t.Errorf("%s: leaves in %s, want %s", name, away, test.waitAbout)
		}
	}
}

func TestARequestWhoseMomentIsFarAwayIsSentBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(limit(gate.MinPerMinute))

	for name, ctx := range map[string]context.Context{
		"a single one": t.Context(),
		"an import":    gate.Importing(t.Context()),
		"a delivery":   gate.Delivering(t.Context(), r.transmission().TransmissionID),
	} {
		_, err := g.State(t.Context())
		r.must(err)
		began := r.now()
		r.exec("UPDATE ecw_gates SET bucket_full_at = clock_timestamp() + interval '94 seconds'")
		end, wait, err := g.Begin(ctx)
		took := r.now().Sub(began)
		if end != nil || err != nil || wait > 40*time.Second || wait < 40*time.Second-took-time.Millisecond {
			t.Errorf("%s is told to wait %s (%v), want 40 s", name, wait, err)
		}
	}

	if n := r.taken(); n != 1 {
		t.Errorf("%d places are taken, want the delivery's, which it gives back itself", n)
	}
}

// Go's transport may repeat a search by itself. eCW counts the repetition, so the gate must count it too.
func TestRepeatsAreCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(limit(60))
	began := r.now()
	r.begin(t.Context(), g)(t.Context(), ecw.Observed{Took: time.Second, Repeats: 3})
	if counted := r.row().BucketFullAt.Sub(began); counted < 4*time.Second {
		t.Errorf("the bucket is full in %s, want four requests counted", counted)
	}
}

func TestAPauseHoldsEveryProcessBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3)
	r.must(gates[0].Pause(t.Context(), 40*time.Second)) // the practice has no row yet
	full := r.row().BucketFullAt

	for i, g := range gates {
		end, wait, err := g.Begin(t.Context())
		r.must(err)
		if end != nil || wait < 20*time.Second || wait > 40*time.Second {
			t.Errorf("process %d is told to wait %s, want what is left of 40s", i, wait)
		}
	}

	r.must(gates[1].Pause(t.Context(), time.Second)) // a shorter pause does not shorten the block
	if _, wait, err := gates[2].Begin(t.Context()); err != nil || wait < 20*time.Second {
		t.Errorf("told to wait %s (%v), want the longer block to stand", wait, err)
	}
	if row := r.row(); !row.BucketFullAt.Equal(full) || r.taken() != 0 {
		t.Errorf("the bucket is full at %s and %d places are taken, but nothing left", row.BucketFullAt, r.taken())
	}

	r.exec("UPDATE ecw_gates SET blocked_until = clock_timestamp()")
	for _, g := range gates {
		r.begin(t.Context(), g)(t.Context(), prompt)
	}
}

// If several requests under way are refused in one block, the block lasts as long as eCW says, not the sum.
func TestSeveralPausesOfOneBlockAreTheBlock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.now()
	group, ctx := errgroup.WithContext(t.Context())

	for _, g := range r.processes(4) {
		for i := range 5 {
			group.Go(func() error { return g.Pause(ctx, time.Duration(20+i)*time.Second) })
		}
	}

	r.must(group.Wait())
	until, after := r.row().BlockedUntil, r.now()
	if until.Before(before.Add(24*time.Second)) || until.After(after.Add(24*time.Second)) {
		t.Errorf("blocked from about %s until %s, want for 24 s", before, until)
	}
}

// The moments of requests that wait pass while eCW blocks us. When the block ends, each takes a new moment,
// so that they do not all leave together in addition to the burst.
func TestNobodyLeavesAllAtOnceAfterABlock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(limit(60), places(64))
	_, err := g.State(t.Context())
	r.must(err)
	r.exec("UPDATE ecw_gates SET bucket_full_at = clock_timestamp() + interval '12 seconds'") // its moment comes in 3 s
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)

	group.Go(func() error {
		end, wait, err := g.Begin(ctx)
		if err == nil && wait == 0 {
			end(ctx, prompt)
		}
		return err
	})

	r.await("a request that waits for its moment", func() bool { return r.taken() == 1 })
	first := r.row().BucketFullAt
	r.must(g.Pause(t.Context(), 4*time.Second))
	r.must(group.Wait())

	if again := r.row().BucketFullAt; again.Sub(first) < time.Second {
		t.Errorf("the bucket is full at %s, and was at %s before the block: no other moment was taken", again, first)
	}
}

// If the database's clock was ahead and was corrected, requests that are counted for a future time hold back
// no other.
func TestACountFromTheFutureIsForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(limit(gate.MinPerMinute))
	r.begin(t.Context(), g)(t.Context(), prompt)
	r.exec("UPDATE ecw_gates SET bucket_full_at = clock_timestamp() + interval '1 day'")
	r.begin(t.Context(), g)(t.Context(), prompt)
	if full := r.row().BucketFullAt.Sub(r.now()); full > time.Minute {
		t.Errorf("the bucket is full in %s", full)
	}
}
