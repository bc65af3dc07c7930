package gate_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/gate"
)

func (r *rig) nextTrial(g *gate.Gate) gate.Request {
	r.tb.Helper()
	next, found, err := g.NextTrial(r.tb.Context())
	r.must(err)
	if found != (next.TransmissionID != uuid.Nil) {
		r.tb.Fatalf("found %t: %+v", found, next)
	}
	return gate.Request{TransmissionID: next.TransmissionID, ObservationID: next.ObservationID}
}

// The trials rotate, so that a reading that eCW cannot handle does not keep the circuit open for the others.
func TestTrialsRotate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2)
	r.openCircuit(gates[0], time.Minute)
	held := r.hold(gates[0], 3)
	tried := r.transmission()
	r.fail(tried, 30*time.Second) // during the outage, so that it may be a trial too
	r.fail(r.transmission(), time.Hour)
	want := append(slices.Clone(held), tried)

	for round := range 2 {
		for i, next := range want {
			if got := r.nextTrial(gates[i%2]); got != next {
				t.Errorf("round %d: trial %d is %+v, want %+v", round, i, got, next)
			}

			row := r.row()
			if row.Circuit != gate.HalfOpen || row.Trial == nil || *row.Trial != next.TransmissionID || row.NextTrialAt != nil {
				t.Errorf("the circuit is %+v, want it to try %s", row, next.TransmissionID)
			}

			if a := r.admit(gates[0], next); a != (gate.Admission{Trial: true}) {
				t.Errorf("the trial is told %+v", a)
			}
			if change := r.report(gates[0], next.TransmissionID, gate.Refuses); change.Closed || change.Opened || !change.Unsettled {
				t.Errorf("the trial's failure changed %+v", change)
			}
			if row := r.row(); row.Circuit != gate.Open || row.Trial != nil {
				t.Errorf("the circuit is %+v, want it open again", row)
			}
		}
	}
}

func TestNobodyIsTriedByAClosedCircuit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	_, err := g.State(t.Context())
	r.must(err)
	r.fail(r.transmission(), time.Second)

	if next := r.nextTrial(g); next.TransmissionID != uuid.Nil {
		t.Errorf("a closed circuit tries %+v", next)
	}

	r.must(g.PlanTrial(t.Context(), time.Minute))
	if row := r.row(); row.Circuit != gate.Closed || row.NextTrialAt != nil {
		t.Errorf("the circuit is %+v", row)
	}
}

func TestThePlannedTrialIsShown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	r.openCircuit(g, time.Minute)
	before := r.now()
	r.must(g.PlanTrial(t.Context(), 90*time.Second))
	at := r.row().NextTrialAt
	if at == nil || at.Before(before.Add(90*time.Second)) || at.After(r.now().Add(90*time.Second)) {
		t.Errorf("the next trial is planned for %s", at)
	}
}

// Only a transmission that would be released may be the trial.
func TestOnlyWhatWouldBeReleasedIsTheTrial(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	names := r.openOutage(g)
	got := map[string]bool{}

	for range len(outage) + 1 {
		next := r.nextTrial(g)
		if name := names[next.TransmissionID]; name == "" || got[name] {
			break
		}
		got[names[next.TransmissionID]] = true
		r.report(g, next.TransmissionID, gate.Refuses)
	}

	for _, o := range outage {
		if got[o.name] != o.freed {
			t.Errorf("%q may be the trial: %t, want %t", o.name, got[o.name], o.freed)
		}
	}
}

// If no transmission waits, none can be chosen as the trial. Of those that come next at the same time, one
// becomes it.
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

// item is an item of an import.
func item(ordinal int32) uuid.UUID {
	return gate.ImportItem(uuid.MustParse("d4e5f6a7-b8c9-0123-defa-234567890123"), ordinal)
}

func (r *rig) admitImport(g *gate.Gate, item uuid.UUID) gate.Admission {
	r.tb.Helper()
	a, err := g.AdmitImport(r.tb.Context(), item)
	r.must(err)
	return a
}

// findNobody chooses a trial, as the circuit breaker does, and must find no transmission that waits.
func (r *rig) findNobody(g *gate.Gate) {
	r.tb.Helper()
	if next, found, err := g.NextTrial(r.tb.Context()); found || err != nil {
		r.tb.Fatalf("%v is to be tried, %v, want nobody", next, err)
	}
}

// If nothing else is sent to eCW, an import alone opens the circuit, is the trial, and closes it.
func TestAnImportAloneIsTheTrial(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()

	for n := range int32(3) {
		if a := r.admitImport(g, item(n)); a.Waits() || a.Trial {
			t.Fatalf("item %d is admitted with %+v by a closed circuit", n, a)
		}
		r.report(g, item(n), gate.Unavailable)
	}

	if got := r.row(); got.Circuit != gate.Open || got.Reason != gate.ReasonUnavailable {
		t.Fatalf("after three items the circuit is %+v", got)
	}
	if a := r.admitImport(g, item(4)); !a.Held || a.Trying || a.Reason != gate.ReasonUnavailable {
		t.Errorf("the open circuit admits with %+v", a)
	}

	r.findNobody(g)
	if a := r.admitImport(g, item(4)); !a.Trial || a.Waits() {
		t.Fatalf("the next to come is admitted with %+v, want it to be the trial", a)
	}
	if a := r.admitImport(g, item(4)); !a.Trial || a.Waits() { // its activity ran again
		t.Errorf("the trial is admitted again with %+v", a)
	}
	if a := r.admitImport(g, item(5)); !a.Held || !a.Trying {
		t.Errorf("beside the trial another is admitted with %+v", a)
	}

	change := r.report(g, item(4), gate.Refuses)
	if got := r.row(); !change.Unsettled || got.Circuit != gate.Open || got.Reason != gate.ReasonCredentials {
		t.Errorf("a trial in vain leaves the circuit as %+v", got)
	}

	r.findNobody(g)
	r.admitImport(g, item(5))
	if change := r.report(g, item(5), gate.Answers); !change.Closed || r.row().Circuit != gate.Closed {
		t.Errorf("the trial that eCW answered leaves the circuit as %+v", r.row())
	}
}

// An import never takes the trial from a transmission that waits.
func TestAnImportLeavesTheTrialToTransmissions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	r.report(g, item(1), gate.Refuses)
	held := r.transmission()
	r.admit(g, held)
	next := r.nextTrial(g)
	if next.TransmissionID != held.TransmissionID {
		t.Fatalf("%v is tried, want the transmission", next)
	}

	if a := r.admitImport(g, item(1)); !a.Held || !a.Trying {
		t.Errorf("the import is admitted with %+v", a)
	}
}

// An import does not stay the trial if its trial was lost with its worker, or because a person ended it.
func TestAnImportsTrialThatWasLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	r.report(g, item(1), gate.Refuses)
	r.findNobody(g)
	r.admitImport(g, item(1))
	r.findNobody(g) // the circuit breaker runs, because every waiting import makes sure of it
	if a := r.admitImport(g, item(2)); !a.Trial {
		t.Errorf("the next to come is admitted with %+v", a)
	}
}
