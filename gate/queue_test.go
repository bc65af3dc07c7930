package gate_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

func TestAClosedCircuitLetsDeliveriesBegin(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	first, second := r.transmission(), r.transmission()
	r.goes(g, first)

	if !r.hasPlace(first.TransmissionID) {
		t.Error("it goes without a place")
	}

	r.goes(g, first) // asks again, after a crash
	if n := r.taken(); n != 1 {
		t.Errorf("%d places are taken by one delivery", n)
	}

	r.waits(g, second)
	held := r.stored(second)
	if held.Status != db.StatusPending || held.HeldAt == nil || held.NextRetryAt != nil || held.AttemptCount != 0 || held.Asked {
		t.Errorf("stored as %+v, want it in the queue", held)
	}

	if r.hasPlace(second.TransmissionID) {
		t.Error("what waits has a place")
	}

	r.waits(g, second)
	if again := r.stored(second); !again.HeldAt.Equal(*held.HeldAt) {
		t.Errorf("in the queue since %s, then since %s", held.HeldAt, again.HeldAt)
	}

	r.expectCalls("no place is free")

	r.waits(g, asked(second))
	if row := r.stored(second); !row.Asked || !row.HeldAt.Equal(*held.HeldAt) {
		t.Errorf("stored as %+v once a person asked for it", row)
	}
}

// If a place is free, a delivery that a person asks for goes ahead of all that wait.
func TestWhatAPersonAsksForGoesAhead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	list := r.transmissions(4)
	r.goes(g, list[0])
	r.waits(g, list[1:3]...)
	r.expire()
	r.goes(g, asked(list[3]))
}

// A transmission that a person asked for waits in the queue, is called, and comes too late for the place that
// was kept for it. Its workflow no longer says that a person asked, but the queue remembers it.
func TestWhatAPersonAskedForStaysAhead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	list := r.transmissions(4)
	r.goes(g, list[0])
	r.waits(g, list[1:3]...)
	r.waits(g, asked(list[3]))
	r.expire()
	r.goes(g, list[3])
}

// A delivery that has begun and returns to the queue was never sent, so it is no longer counted.
func TestWhatWaitsAgainHasMadeNoAttempt(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*rig, *gate.Gate){
		"for a place":     func(r *rig, g *gate.Gate) { r.goes(g, r.transmission()) },
		"for the circuit": func(r *rig, g *gate.Gate) { r.openCircuit(g, time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			g := r.gate(places(1))
			waiting := r.transmission()
			r.starts(waiting, 3)
			prepare(r, g)

			for range 2 {
				if a := r.admit(g, waiting); !a.Held {
					t.Errorf("told %+v", a)
				}
				if row := r.stored(waiting); row.Status != db.StatusPending || row.AttemptCount != 2 {
					t.Errorf("stored as %s with %d attempts, want it pending with the 2 that were made", row.Status, row.AttemptCount)
				}
			}
		})
	}
}

// A delivery that our own limit holds back returns to its position in the queue, and frees its place.
func TestADeliveryThatIsHeldBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	list := r.transmissions(2)
	r.goes(g, list[0])
	r.starts(list[0], 1)
	r.waits(g, list[1])

	var a gate.Admission
	r.must(r.store.InTx(t.Context(), func(q *db.Queries) (err error) {
		a, err = g.HoldBack(t.Context(), q, list[0], "")
		return err
	}))

	if a != (gate.Admission{Held: true}) || r.taken() != 0 {
		t.Errorf("told %+v with %d places taken, want it to wait without one", a, r.taken())
	}
	if row := r.stored(list[0]); row.Status != db.StatusPending || row.HeldAt == nil || row.AttemptCount != 0 {
		t.Errorf("stored as %+v, want it in the queue with no attempt", row)
	}

	g.CallNext(t.Context())
	r.expectCalls("the older one comes first", list[0])
}

// If the database was restored to an earlier state, or another writer came first, nothing is written and no
// place is taken.
func TestWhatTheDatabaseDoesNotKnowIsForgotten(t *testing.T) {
	t.Parallel()
	for state, prepare := range map[string]func(*rig, *gate.Gate){
		"a free place":    func(*rig, *gate.Gate) {},
		"no free place":   func(r *rig, g *gate.Gate) { r.goes(g, r.transmission()) },
		"an open circuit": func(r *rig, g *gate.Gate) { r.openCircuit(g, time.Minute) },
	} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			g := r.gate(places(1))
			delivered, known := r.transmission(), r.transmission()
			r.must(r.deliver(t.Context(), r.store, g, delivered))
			prepare(r, g)
			taken, circuit := r.taken(), r.row().Circuit

			for name, request := range map[string]gate.Request{
				"an unknown one":         {TransmissionID: uuid.New(), ObservationID: known.ObservationID},
				"another observation's":  {TransmissionID: known.TransmissionID, ObservationID: delivered.ObservationID},
				"one that was delivered": delivered,
			} {
				for _, request := range []gate.Request{request, asked(request)} {
					if a, err := g.Admit(t.Context(), request); !errors.Is(err, db.ErrForgotten) || a != (gate.Admission{}) {
						t.Errorf("%s (asked: %t) is told %+v (%v), want it forgotten", name, request.Asked, a, err)
					}
				}

				err := r.store.InTx(t.Context(), func(q *db.Queries) error {
					_, err := g.HoldBack(t.Context(), q, request, "")
					return err
				})
				if !errors.Is(err, db.ErrForgotten) {
					t.Errorf("%s is held back (%v), want it forgotten", name, err)
				}
			}

			if n, row := r.taken(), r.row(); n != taken || row.Circuit != circuit {
				t.Errorf("%d places are taken and the circuit is %s, want %d and %s", n, row.Circuit, taken, circuit)
			}
			if row := r.stored(known); row.HeldAt != nil {
				t.Errorf("another's transmission is in the queue: %+v", row)
			}
		})
	}
}

// The order is that of the transmissions' creation, however late each comes to the gate. What a person asked
// for goes first.
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

// A place may be free while transmissions wait, because its process has died or because they are being
// called. A newcomer then waits behind them, and has them called.
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

	r.goes(g, waiting[1]) // the called ones come in any order
	r.goes(g, waiting[0])
	r.delivered(g, waiting[0])
	r.expectCalls("a place is free", waiting[2])
	r.goes(g, waiting[2])
	r.delivered(g, waiting[1])
	r.expectCalls("a place is free", newcomer)
}

// A retry that is older than all that wait goes ahead of them, as it would in the queue. It does not go ahead
// of what a person asked for, and it waits if no place is free.
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
	for range 4 { // each is called once, whichever process frees a place
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

// Places are kept for called transmissions as long as the limit makes them wait.
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

			r.goes(g, newcomer) // it gets a place; its request asks the limit
		})
	}
}

// A short wait for the limit is left to the request.
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

// A call may be lost with the process that makes it, or with the worker that receives it.
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

// The queues of practices are independent of each other.
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

// A retry that was brought forward is called like a waiting transmission. If it may not go after all, it
// waits for its retry as before.
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

// loseThePlace makes the places of called transmissions expire, and gives a place to another one.
func loseThePlace(r *rig, g *gate.Gate) {
	r.expire()
	r.goes(g, asked(r.transmission()))
}

func same(t gate.Request) gate.Request { return t }

// A retry that is due waits in the queue, and no longer for its time.
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
