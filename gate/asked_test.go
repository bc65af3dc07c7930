package gate_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// ask sends a request that a person waits for, and reports whether it left.
func (r *rig) ask(a *gate.Asked) (left bool, wait time.Duration) {
	r.tb.Helper()
	end, wait, err := a.Begin(r.tb.Context())
	switch {
	case errors.Is(err, ecw.ErrBudgetUsed):
		if end != nil || wait <= 0 {
			r.tb.Errorf("refused, and told to wait %s", wait)
		}
		return false, wait
	case err != nil || wait > 0:
		r.tb.Fatalf("told to wait %s (%v)", wait, err)
	}
	end(r.tb.Context(), prompt)
	return true, 0
}

// used sets how long it takes until the part of the people is full again.
func (r *rig) used(fullIn time.Duration) {
	r.tb.Helper()
	r.exec("UPDATE ecw_gates SET asked_full_at = clock_timestamp() + $1::interval", fullIn)
}

// The people of all processes share an eighth of the limit at once, and an eighth in a minute. Of a limit of 240
// that is 30, and one every two seconds.
func TestPeopleShareAPart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3, limit(240), places(64))
	r.ask(gates[0].Asked())

	for name, test := range map[string]struct {
		fullIn    time.Duration
		goes      bool
		waitAbout time.Duration
	}{
		"nobody has asked":                        {-time.Hour, true, 0},
		"the last one":                            {57 * time.Second, true, 0},
		"none is left":                            {60 * time.Second, false, 2 * time.Second},
		"the clock was ahead and has been set":    {time.Hour, true, 0},
		"a moment before another one may be sent": {59 * time.Second, false, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r.used(test.fullIn)
			before := r.row().AskedFullAt
			goes, wait := r.ask(gates[1].Asked())
			if goes != test.goes || wait > test.waitAbout || !goes && wait < test.waitAbout-time.Second {
				t.Errorf("it goes: %t, or waits %s", goes, wait)
			}
			if after := r.row().AskedFullAt; after.Equal(before) == goes {
				t.Errorf("it goes: %t, and the part is full at %s, before at %s", goes, after, before)
			}
		})
	}

	r.used(50 * time.Second) // room for five, and for one more every two seconds
	began := time.Now()
	var left atomic.Int64
	var group errgroup.Group
	for _, g := range gates {
		for range 10 {
			group.Go(func() error {
				if goes, _ := r.ask(g.Asked()); goes {
					left.Add(1)
				}
				return nil
			})
		}
	}
	r.must(group.Wait())
	if n, most := left.Load(), 6+int64(time.Since(began)/(2*time.Second)); n < 5 || n > most {
		t.Errorf("%d left, want 5 to %d", n, most)
	}
	if n := r.taken(); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

// A delivery neither pays for what people ask, nor waits for it. Nor does an import.
func TestDeliveriesDoNotPayForPeople(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(limit(240), places(64))
	r.begin(t.Context(), g)(t.Context(), prompt)
	r.used(60 * time.Second)
	before := r.row().AskedFullAt

	for _, ctx := range []context.Context{t.Context(), gate.Importing(t.Context()), gate.Delivering(t.Context(), r.transmission().TransmissionID)} {
		r.begin(ctx, g)(ctx, prompt)
	}
	if after := r.row().AskedFullAt; !after.Equal(before) {
		t.Errorf("the people's part is full at %s, and was at %s", after, before)
	}
}

// What a person asks counts towards the limit of all as well.
func TestWhatPeopleAskCountsTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(limit(60))
	began := r.now()
	r.ask(g.Asked())
	if counted := r.row().BucketFullAt.Sub(began); counted < time.Second {
		t.Errorf("the bucket is full in %s, want the request counted", counted)
	}
}

// A click that is refused waits for nobody: the gate may be locked for as long as it likes.
func TestARefusedClickLocksNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.gate(limit(240)).Asked()
	r.ask(a)
	r.used(60 * time.Second)
	tx, err := r.connect().Begin(t.Context())
	r.must(err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), "SELECT FROM ecw_gates FOR UPDATE")
	r.must(err)

	if goes, _ := r.ask(a); goes {
		t.Error("it was not refused")
	}
	if wait, err := a.Spend(t.Context()); !errors.Is(err, ecw.ErrBudgetUsed) || wait <= 0 {
		t.Errorf("told to wait %s (%v)", wait, err)
	}
}

// What a worker sends for a person is counted before, without a request.
func TestSpendCounts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.gate(limit(gate.MinPerMinute)).Asked() // a connection test takes four, whatever the limit
	began := r.now()
	for range 4 {
		_, err := a.Spend(t.Context())
		r.must(err)
	}
	if wait, err := a.Spend(t.Context()); !errors.Is(err, ecw.ErrBudgetUsed) || wait > 15*time.Second {
		t.Errorf("told to wait %s (%v)", wait, err)
	}
	if row := r.row(); row.BucketFullAt.After(began) {
		t.Errorf("a request is counted that did not leave: the bucket is full at %s", row.BucketFullAt)
	}
}
