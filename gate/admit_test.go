package gate_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

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

// With a free place, what a person asks for goes ahead of all that wait.
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

// It had to wait in the queue, and comes once it was called, too late for the place that was kept for it: its workflow says no
// more that somebody asks, but the queue knows.
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

func TestAnOpenCircuitHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	r.openCircuit(g, time.Minute)
	first, second := r.transmission(), r.transmission()
	if a := r.admit(g, first); a != (gate.Admission{Held: true, Reason: gate.ReasonCredentials}) {
		t.Errorf("told %+v, want it held", a)
	}
	if row := r.stored(first); row.Status != db.StatusPending || row.HeldAt == nil || row.NextRetryAt != nil || row.AttemptCount != 0 {
		t.Errorf("stored as %+v, want it held", row)
	}
	if n := r.taken(); n != 0 {
		t.Error("what is held takes a place")
	}

	if a := r.admit(g, asked(second)); a != (gate.Admission{Trial: true}) {
		t.Errorf("what a person asks for is told %+v, want it to be the trial", a)
	}
	if !r.hasPlace(second.TransmissionID) {
		t.Error("the trial has no place")
	}
	if a := r.admit(g, asked(first)); !a.Held {
		t.Errorf("another one is told %+v while a trial is under way", a)
	}
	if a := r.admit(g, second); a != (gate.Admission{Trial: true}) {
		t.Errorf("the trial is told %+v when it asks again", a)
	}
	r.expectCalls("the circuit is not closed")

	change := r.report(g, second.TransmissionID, gate.Answers)
	if !change.Closed || !change.Unsettled || change.Opened || change.FailingSince.IsZero() {
		t.Errorf("the trial's success changed %+v", change)
	}
	if r.hasPlace(second.TransmissionID) {
		t.Error("the trial is over and keeps its place")
	}
	r.goes(g, first)
}

// A place that was kept for a transmission is free when the circuit opens before it comes.
func TestWhatWasCalledIsHeldByACircuitThatOpened(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate(places(1))
	list := r.transmissions(2)
	r.goes(g, list[0])
	r.waits(g, list[1])
	r.delivered(g, list[0])
	r.expectCalls("a place is free", list[1])
	r.openCircuit(g, time.Minute)
	if a := r.admit(g, list[1]); !a.Held || a.Reason != gate.ReasonCredentials || r.taken() != 0 {
		t.Errorf("told %+v with %d places taken, want it held", a, r.taken())
	}
}

// With nobody waiting there is no trial to choose: of those who come next, at the same time, one is it.
func TestTheNextToComeIsTheTrial(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3)
	r.openCircuit(gates[0], time.Minute)
	if _, found, err := gates[1].NextTrial(t.Context()); found || err != nil {
		t.Fatalf("found a trial: %t (%v)", found, err)
	}
	if row := r.row(); row.Circuit != gate.HalfOpen || row.Trial != nil {
		t.Fatalf("the circuit is %+v, want it half open with nobody tried", row)
	}

	comers := r.transmissions(12)
	admissions := make([]gate.Admission, len(comers))
	var group sync.WaitGroup
	for i, comer := range comers {
		group.Go(func() {
			a, err := gates[i%len(gates)].Admit(context.WithoutCancel(t.Context()), comer)
			if err != nil {
				t.Error(err)
			}
			admissions[i] = a
		})
	}
	group.Wait()

	trials := 0
	for i, a := range admissions {
		switch {
		case a.Trial && !a.Held:
			trials++
			if got := r.row().Trial; got == nil || *got != comers[i].TransmissionID {
				t.Errorf("the circuit tries %v, the trial is %s", got, comers[i].TransmissionID)
			}
		case !a.Held:
			t.Errorf("admitted by %+v", a)
		}
	}
	if trials != 1 {
		t.Errorf("%d of them are the trial, want one", trials)
	}
}

// A delivery that was begun and comes back to wait was never sent: it is not counted any more.
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

// What our own limit holds back in the middle goes back to where it was in the queue, and frees its place.
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

// A database that was restored, or another writer that came first: nothing is written, and no place is taken.
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

// A process that has just started records many outcomes at once: none may need a second connection meanwhile.
func TestAReportNeedsNoOtherConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	store := r.open("&pool_max_conns=1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g := r.gate(onStore(store))
	request := r.transmission()
	err := store.InTx(ctx, func(q *db.Queries) error {
		if _, err := g.HoldBack(ctx, q, request, ""); err != nil {
			return err
		}
		_, err := g.Report(ctx, q, gate.Report{TransmissionID: uuid.New(), StartedAt: time.Now(), Finding: gate.Refuses})
		return err
	})
	r.must(err)
	if row := r.row(); row.Circuit != gate.Open {
		t.Errorf("the circuit is %+v", row)
	}
}

func TestAnAnswerEndsARowOfFailures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2)
	a, b, c, d := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	for i, report := range []struct {
		id      uuid.UUID
		finding gate.Finding
		opens   bool
	}{
		{a, gate.Unavailable, false},
		{b, gate.Unavailable, false},
		{c, gate.Answers, false},
		{a, gate.Unavailable, false},
		{b, gate.Unavailable, false},
		{c, gate.Nothing, false},
		{d, gate.Unavailable, true},
	} {
		change := r.report(gates[i%2], report.id, report.finding)
		if change.Opened != report.opens || change.Closed || change.Unsettled != report.opens {
			t.Errorf("report %d changed %+v, want it to open: %t", i, change, report.opens)
		}
	}
	if row := r.row(); row.Reason != gate.ReasonUnavailable || len(row.Failing) != 3 || row.FailingSince == nil {
		t.Errorf("the circuit is %+v", row)
	}
}

// Reports of many processes at once are all heard.
func TestReportsOfManyProcesses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3)
	opened := make([]bool, len(gates))
	var group sync.WaitGroup
	for i, g := range gates {
		group.Go(func() {
			change, err := r.take(context.WithoutCancel(t.Context()), g, uuid.New(), gate.Unavailable)
			if err != nil {
				t.Error(err)
			}
			opened[i] = change.Opened
		})
	}
	group.Wait()
	n := 0
	for _, o := range opened {
		if o {
			n++
		}
	}
	if row := r.row(); row.Circuit != gate.Open || n != 1 {
		t.Errorf("the circuit is %+v, opened by %d of the reports, want by one", row, n)
	}
}
