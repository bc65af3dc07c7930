package gate_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// openCircuit opens it by a refusal, as if so long ago.
func (r *rig) openCircuit(g *gate.Gate, age time.Duration) {
	r.tb.Helper()
	change := r.report(r.store, g, "another", gate.Refuses)
	if !change.Opened {
		r.tb.Fatalf("a refusal changed the circuit by %+v", change)
	}
	r.exec("UPDATE ecw_gates SET failing_since = now() - $1::interval, opened_at = now() - $1::interval", age)
}

// report tells a gate of an outcome, as the transaction does that records it.
func (r *rig) report(store *db.Store, g *gate.Gate, id string, f gate.Finding) (change gate.Change) {
	r.tb.Helper()
	r.must(store.InTx(r.tb.Context(), func(q *db.Queries) (err error) {
		report := gate.Report{TransmissionID: id, StartedAt: time.Now().UTC(), Finding: f, Message: "eCW said something"}
		change, err = g.Take(r.tb.Context(), q, report)
		return err
	}))
	return change
}

func (r *rig) admit(g *gate.Gate, request gate.Request) gate.Admission {
	r.tb.Helper()
	request.Requests = 1
	a, err := g.Admit(r.tb.Context(), request)
	r.must(err)
	return a
}

// stored is how a transmission stands in the database.
func (r *rig) stored(id string) db.Transmission {
	r.tb.Helper()
	row, err := r.store.GetTransmission(r.tb.Context(), db.GetTransmissionParams{PracticeCode: practice, ID: id})
	r.must(err)
	return row.Transmission
}

func TestAClosedCircuitLetsDeliveriesBegin(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	id := r.transmission()
	if a := r.admit(g, gate.Request{TransmissionID: id}); a.Held || a.Trial || a.Wait != 0 || a.Place.IsZero() {
		t.Errorf("admitted by %+v, want a turn that has come", a)
	}
	r.fill(g)
	a := r.admit(g, gate.Request{TransmissionID: id})
	if row := r.stored(id); a.Wait == 0 || a.Place.IsZero() || row.Status != db.StatusPending || row.NextRetryAt == nil {
		t.Errorf("told %+v and stored as %+v, want it to wait for its turn", a, row)
	}
	if again := r.admit(g, gate.Request{TransmissionID: id, Place: a.Place}); !again.Place.Equal(a.Place) || again.Wait > a.Wait {
		t.Errorf("told %+v after %+v, want the same place", again, a)
	}
	if asked := r.admit(g, gate.Request{TransmissionID: id, Asked: true}); asked != (gate.Admission{}) {
		t.Errorf("what a person asks for is told %+v, want it to go", asked)
	}
}

func TestAnOpenCircuitHolds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := gate.New(r.store, practice, 240)
	r.openCircuit(g, time.Minute)
	first, second := r.transmission(), r.transmission()
	used := r.row().QueueUsed
	if a := r.admit(g, gate.Request{TransmissionID: first}); !a.Held || a.Reason != gate.ReasonCredentials || a.Trial {
		t.Errorf("told %+v, want it held", a)
	}
	held := r.stored(first)
	if held.Status != db.StatusPending || held.HeldAt == nil || held.NextRetryAt != nil || held.AttemptCount != 0 {
		t.Errorf("stored as %+v, want it held", held)
	}
	if r.row().QueueUsed != used {
		t.Error("what is held takes a turn")
	}
	r.admit(g, gate.Request{TransmissionID: first})
	if again := r.stored(first); !again.HeldAt.Equal(*held.HeldAt) {
		t.Errorf("held since %s, then since %s", held.HeldAt, again.HeldAt)
	}

	if a := r.admit(g, gate.Request{TransmissionID: second, Asked: true}); !a.Trial || a.Held {
		t.Errorf("what a person asks for is told %+v, want it to be the trial", a)
	}
	if a := r.admit(g, gate.Request{TransmissionID: first, Asked: true}); !a.Held {
		t.Errorf("another one is told %+v while a trial is under way", a)
	}
	if a := r.admit(g, gate.Request{TransmissionID: second}); !a.Trial {
		t.Errorf("the trial is told %+v when it asks again", a)
	}
	if change := r.report(r.store, g, second, gate.Answers); !change.Closed || !change.Unsettled || change.Opened {
		t.Errorf("the trial's success changed %+v", change)
	}
	if a := r.admit(g, gate.Request{TransmissionID: first}); a.Held || a.Trial {
		t.Errorf("told %+v by a closed circuit", a)
	}
}

// With nobody waiting there is no trial to choose: of those who come next, at the same time, one is it.
func TestTheNextToComeIsTheTrial(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(3, 240)
	r.openCircuit(gates[0], time.Minute)
	if _, found, err := gates[1].NextTrial(t.Context()); found || err != nil {
		t.Fatalf("found a trial: %t (%v)", found, err)
	}
	if row := r.row(); row.Circuit != gate.HalfOpen || row.Trial != "" {
		t.Fatalf("the circuit is %+v, want it half open with nobody tried", row)
	}
	const comers = 12
	ids := make([]string, comers)
	for i := range ids {
		ids[i] = r.transmission()
	}
	admissions := make([]gate.Admission, comers)
	var group sync.WaitGroup
	for i, id := range ids {
		group.Go(func() {
			a, err := gates[i%len(gates)].Admit(context.WithoutCancel(t.Context()), gate.Request{TransmissionID: id, Requests: 1})
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
			if got := r.row().Trial; got != ids[i] {
				t.Errorf("the circuit tries %q, the trial is %q", got, ids[i])
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
		"for its turn":    func(r *rig, g *gate.Gate) { r.fill(g) },
		"for the circuit": func(r *rig, g *gate.Gate) { r.openCircuit(g, time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			g := gate.New(r.store, practice, 240)
			id := r.transmission()
			r.must(r.store.StartAttempt(t.Context(), db.StartAttemptParams{TransmissionID: id, Delivery: 3, Number: 3, StartedAt: time.Now()}))
			prepare(r, g)
			for range 2 {
				r.admit(g, gate.Request{TransmissionID: id})
				if row := r.stored(id); row.Status != db.StatusPending || row.AttemptCount != 2 {
					t.Errorf("stored as %s with %d attempts, want it pending with the 2 that were made", row.Status, row.AttemptCount)
				}
			}
		})
	}
}

// A process that has just started records many outcomes at once: none may need a second connection meanwhile.
func TestAReportNeedsNoOtherConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	store := r.open("&pool_max_conns=1")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := store.InTx(ctx, func(q *db.Queries) error {
		_, err := gate.New(store, practice, 240).Take(ctx, q, gate.Report{TransmissionID: "TXN-1", StartedAt: time.Now(), Finding: gate.Refuses})
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
	gates := r.processes(2, 240)
	for i, report := range []struct {
		id      string
		finding gate.Finding
		opens   bool
	}{
		{"A", gate.Unavailable, false}, {"B", gate.Unavailable, false}, {"C", gate.Answers, false},
		{"A", gate.Unavailable, false}, {"B", gate.Unavailable, false}, {"C", gate.Nothing, false}, {"D", gate.Unavailable, true},
	} {
		change := r.report(r.store, gates[i%2], report.id, report.finding)
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
	gates := r.processes(3, 240)
	opened := make([]bool, len(gates))
	var group sync.WaitGroup
	for i, g := range gates {
		group.Go(func() { opened[i] = r.report(r.store, g, string(rune('A'+i)), gate.Unavailable).Opened })
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
