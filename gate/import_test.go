package gate_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/gate"
)

// item is one of an import.
func item(ordinal int32) uuid.UUID {
	return gate.ImportItem(uuid.MustParse("d4e5f6a7-b8c9-0123-defa-234567890123"), ordinal)
}

func (r *rig) admitImport(g *gate.Gate, item uuid.UUID) gate.Admission {
	r.tb.Helper()
	a, err := g.AdmitImport(r.tb.Context(), item)
	r.must(err)
	return a
}

// findNobody is what the circuit breaker does that has nobody to try.
func (r *rig) findNobody(g *gate.Gate) {
	r.tb.Helper()
	if next, found, err := g.NextTrial(r.tb.Context()); found || err != nil {
		r.tb.Fatalf("%v is to be tried, %v, want nobody", next, err)
	}
}

// Where nothing else is sent to eCW, an import opens the circuit, tries it, and closes it.
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

// An import whose trial was lost, with its worker or because a person ended it, does not stay the trial.
func TestAnImportsTrialThatWasLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := r.gate()
	r.report(g, item(1), gate.Refuses)
	r.findNobody(g)
	r.admitImport(g, item(1))
	r.findNobody(g) // the circuit breaker, which each that waits makes sure of
	if a := r.admitImport(g, item(2)); !a.Trial {
		t.Errorf("the next to come is admitted with %+v", a)
	}
}
