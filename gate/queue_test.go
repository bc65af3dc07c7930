package gate_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// First in, first out by when the transmission was opened, however late it came before the gate; but for what a person
// asked for.
func TestTheQueueIsFirstInFirstOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	list := r.transmissions(7)
	running := list[0]
	r.goes(g, running)
	for _, i := range []int{4, 2, 6, 1, 5, 3} {
		r.waits(g, list[i])
	}
	r.waits(g, asked(list[5]), asked(list[6]))

	for _, next := range []gate.Request{list[5], list[6], list[1], list[2], list[3], list[4]} {
		r.delivered(g, running)
		r.expectCalls("a place is free", next)
		r.goes(g, next)
		r.starts(next, 1)
		if row := r.stored(next); row.HeldAt != nil || row.Asked {
			t.Errorf("stored as %+v, want it out of the queue", row)
		}
		running = next
	}
	r.delivered(g, running)
	r.expectCalls("the queue is empty")
}

// A place may be free while others wait: its process has died, or they are being called. Whoever comes then goes behind
// them, and sees to it that they are called.
func TestNewcomersGoBehindThoseThatWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(2))
	r.fill(g, 2)
	waiting := r.transmissions(3)
	r.waits(g, waiting...)
	r.expire()
	newcomer := r.transmission()
	r.waits(g, newcomer)
	r.expectCalls("the newcomer calls", waiting[0], waiting[1])

	r.goes(g, waiting[1]) // they come in any order
	r.goes(g, waiting[0])
	r.delivered(g, waiting[0])
	r.expectCalls("a place is free", waiting[2])
	r.goes(g, waiting[2])
	r.delivered(g, waiting[1])
	r.expectCalls("a place is free", newcomer)
}

// A retry that is older than all that wait goes ahead of them, as it would in the queue; but not ahead of what a person
// asked for, nor where no place is free.
func TestAnOlderOneThatComesLate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	r.fill(g, 1)
	older, waiting := r.transmission(), r.transmission()
	r.waits(g, waiting)
	r.expire()
	r.goes(g, older)
	r.waits(g, asked(waiting))
	r.expire()
	oldest := r.transmission()
	r.exec("UPDATE transmissions SET created_at = created_at - interval '1 hour' WHERE id = $1", oldest.TransmissionID)
	r.waits(g, oldest)
	r.expectCalls("a person's comes first", waiting)
}

func TestAsManyAreCalledAsThereAreFreePlaces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3)
	under := r.fill(gates[0], parallel)
	waiting := r.transmissions(parallel + 4)
	r.waits(gates[0], waiting...)
	r.expire(under[0].TransmissionID, under[1].TransmissionID, under[2].TransmissionID)

	group := errgroup.Group{}
	for range 4 { // whoever leaves a place, wherever: each is called once
		for _, g := range gates {
			group.Go(func() error { g.CallNext(t.Context()); return nil })
		}
	}
	r.must(group.Wait())
	got := r.calls.take()
	slices.SortFunc(got, func(a, b called) int {
		byAge := observations(waiting)
		return slices.Index(byAge, a.observationID) - slices.Index(byAge, b.observationID)
	})
	r.calls.mu.Lock()
	r.calls.list = got
	r.calls.mu.Unlock()
	for _, c := range r.expectCalls("three places are free", waiting[:3]...) {
		if c.wait != 0 {
			t.Errorf("told to wait %s, want it to come now", c.wait)
		}
	}
	if n := r.taken(); n != parallel {
		t.Errorf("%d places are taken, want %d", n, parallel)
	}
}

// Places are kept for those that are called, for as long as they are told to wait.
func TestTheCalledAreToldHowLongTheLimitTakes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		state string
		opens time.Duration
	}{
		"the bucket is empty": {"bucket_full_at = clock_timestamp() + interval '94 seconds'", 40 * time.Second},
		"eCW blocks":          {"blocked_until = clock_timestamp() + interval '120 seconds'", 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			g := r.gate(limit(gate.MinPerMinute), places(3))
			r.fill(g, 3)
			waiting := r.transmissions(4)
			r.waits(g, waiting...)
			r.expire()
			r.exec("UPDATE ecw_gates SET " + test.state)
			began := r.now()
			g.CallNext(t.Context())
			late := r.now().Sub(began) + 10*time.Millisecond
			for i, c := range r.expectCalls("three places are free", waiting[:3]...) {
				want := test.opens + time.Duration(i)*6*time.Second
				if c.wait > want || c.wait < want-late {
					t.Errorf("the %d. is told to wait %s, want %s", i+1, c.wait, want)
				}
				var expires time.Time
				r.must(r.sql.QueryRow(t.Context(), "SELECT expires_at FROM ecw_places WHERE id = $1", waiting[i].TransmissionID).Scan(&expires))
				if expires.Before(began.Add(c.wait + lease)) {
					t.Errorf("its place expires in %s, want it to wait and to be under way until then", expires.Sub(began))
				}
			}

			newcomer := r.transmission()
			r.waits(g, newcomer)
			r.expectCalls("no place is free")
			r.expire()
			r.waits(g, asked(newcomer))
			if c := r.calls.take(); len(c) != 3 || c[0].observationID != newcomer.ObservationID || c[0].wait == 0 {
				t.Errorf("called %+v, want what a person asks for first, and later", c)
			}
			r.goes(g, newcomer) // it has a place: the request itself asks the limit
		})
	}
}

// A short wait is the request's own.
func TestAShortWaitIsLeftToTheRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	running, waiting := r.fill(g, 1)[0], r.transmission()
	r.waits(g, waiting)
	r.exec("UPDATE ecw_gates SET blocked_until = clock_timestamp() + interval '4 seconds'")
	r.delivered(g, running)
	if c := r.expectCalls("a place is free", waiting); len(c) == 1 && c[0].wait != 0 {
		t.Errorf("told to wait %s", c[0].wait)
	}
}

func TestACallThatFailsFreesThePlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(2))
	r.fill(g, 2)
	waiting := r.transmissions(2)
	r.waits(g, waiting...)
	r.expire()
	r.calls.fail(errors.New("Temporal is away"))
	g.CallNext(t.Context())
	r.expectCalls("each is tried", waiting...)
	if n := r.taken(); n != 0 {
		t.Errorf("%d places are taken by those that could not be called", n)
	}
	r.calls.fail(nil)
	g.CallNext(t.Context())
	r.expectCalls("again", waiting...)
}

// A call was lost, with the process that was to make it or with the worker that was to hear it.
func TestACalledOneThatNeverComesIsCalledAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	running := r.fill(g, 1)[0]
	waiting := r.transmissions(2)
	r.waits(g, waiting...)
	r.delivered(g, running)
	r.expectCalls("a place is free", waiting[0])
	g.CallNext(t.Context())
	r.expectCalls("its place is kept for it")
	r.expire()
	g.CallNext(t.Context())
	r.expectCalls("its place has expired", waiting[0])
}

func TestNobodyIsCalledWhileTheCircuitIsNotClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	waiting := r.transmission()
	r.openCircuit(g, time.Minute)
	r.admit(g, waiting)
	g.CallNext(t.Context())
	r.expectCalls("the circuit is open")
	_, _, err := g.NextTrial(t.Context())
	r.must(err)
	g.CallNext(t.Context())
	r.expectCalls("the circuit is half open")
	if n := r.taken(); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}

// The queues of practices have nothing to do with each other.
func TestAnotherPracticesQueueIsItsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	other := r.gate(places(1), func(cfg *gate.Config) { cfg.Practice = "OTHER" })
	r.begin(t.Context(), other)
	running, waiting := r.fill(g, 1)[0], r.transmission()
	r.waits(g, waiting)
	other.CallNext(t.Context())
	r.must(other.Pause(t.Context(), time.Hour))
	r.expectCalls("another practice's")
	r.delivered(g, running)
	if c := r.expectCalls("a place is free", waiting); len(c) == 1 && c[0].wait != 0 {
		t.Errorf("told to wait %s by another practice's block", c[0].wait)
	}
}

// What was brought forward is called like what waits; when it may not go after all, it waits for its retry as before.
func TestWhatWasBroughtForwardIsCalled(t *testing.T) {
	t.Parallel()
	for name, comes := range map[string]struct {
		prepare func(*rig, *gate.Gate)
		request func(gate.Request) gate.Request
		want    gate.Admission
	}{
		"and goes":           {func(*rig, *gate.Gate) {}, same, gate.Admission{}},
		"and finds no place": {loseThePlace, same, gate.Admission{Scheduled: true}},
		"and finds the next outage": {func(r *rig, g *gate.Gate) { r.openCircuit(g, time.Second) }, same,
			gate.Admission{Scheduled: true, Reason: gate.ReasonCredentials}},
		"and a person asks for it": {loseThePlace, asked, gate.Admission{Held: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			g := r.gate(places(1))
			failed := r.transmission()
			r.fail(failed, time.Minute)
			before := r.stored(failed)
			r.must(g.Release(t.Context(), r.now().Add(-time.Hour)))
			r.expectCalls("it is in the queue", failed)
			comes.prepare(r, g)
			if a := r.admit(g, comes.request(failed)); a != comes.want {
				t.Errorf("told %+v, want %+v", a, comes.want)
			}

			row := r.stored(failed)
			switch {
			case comes.want.Scheduled:
				if row.Status != before.Status || !row.NextRetryAt.Equal(*before.NextRetryAt) || row.BroughtForward || row.HeldAt != nil {
					t.Errorf("stored as %+v, want it as %+v", row, before)
				}
				r.expire()
				r.exec("UPDATE ecw_gates SET circuit = 'closed', reason = '', opened_at = NULL, trial = NULL")
				g.CallNext(t.Context())
				r.expectCalls("it is not in the queue any more")
			case comes.want.Held:
				if row.Status != db.StatusPending || row.NextRetryAt != nil || row.BroughtForward || row.HeldAt == nil || !row.Asked {
					t.Errorf("stored as %+v, want it in the queue", row)
				}
			default:
				r.starts(failed, 2)
				if row := r.stored(failed); row.BroughtForward || row.NextRetryAt != nil {
					t.Errorf("stored as %+v, want it under way", row)
				}
			}
		})
	}
}

// loseThePlace lets the place of whoever was called expire, and somebody else take it.
func loseThePlace(r *rig, g *gate.Gate) {
	r.expire()
	r.goes(g, asked(r.transmission()))
}

func same(t gate.Request) gate.Request { return t }

// A retry that is due waits in the queue; its schedule is over.
func TestARetryThatIsDueWaitsInTheQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	failed := r.transmission()
	r.fail(failed, time.Minute)
	r.exec("UPDATE transmissions SET next_retry_at = now() - interval '1 second' WHERE id = $1", failed.TransmissionID)
	r.fill(g, 1)
	r.waits(g, failed)
	row := r.stored(failed)
	if row.Status != db.StatusPending || row.NextRetryAt != nil || row.AttemptCount != 1 || row.ErrorClass != "retryable" {
		t.Errorf("stored as %+v, want it in the queue with its attempt and its error", row)
	}
}
