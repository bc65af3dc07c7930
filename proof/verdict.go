package proof

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// holdings is what the EHR has of one observation.
type holdings struct {
	count int    // of Observations with its identifier
	found string // the id that a FHIR search gives, or ""
}

// evidence is what three witnesses say when all is settled: the senders, our database and the EHR.
type evidence struct {
	accepted    []string                // observation ids that were answered 201 or 200
	first, last map[string]transmission // before and after a person transmitted what had failed
	ehr         map[string]holdings     // by observation id
	running     int                     // transmission workflows that have not ended
	problems    []string                // what went wrong beside the readings
}

// Verdict counts the readings. Only the first three counters may be above zero; Problems say more about the others.
type Verdict struct {
	Accepted            int
	Delivered           int // by itself
	DeliveredByTransmit int // after a person transmitted it
	Duplicates          int // more than one Observation in the EHR
	Lost                int // none
	WrongStatus         int // our database says something else than the EHR
	StuckWorkflows      int
	Problems            []string
}

// judge compares. It says of every reading that is not delivered exactly once what is wrong with it.
func judge(e evidence) Verdict {
	v := Verdict{Accepted: len(e.accepted), StuckWorkflows: e.running, Problems: e.problems}
	for _, id := range slices.Sorted(slices.Values(e.accepted)) {
		t, held := e.last[id], e.ehr[id]
		transmitted := t.Status == "transmitted"
		wrong := ""
		switch {
		case held.count > 1:
			v.Duplicates++
			wrong = fmt.Sprintf("stands %d times in the EHR", held.count)
		case held.count == 0:
			v.Lost++
			wrong = "is not in the EHR"
		case !transmitted || text(t.ECWObservationID) != held.found:
			wrong = "is in the EHR as " + held.found
		case e.first[id].Status == "transmitted":
			v.Delivered++
		default:
			v.DeliveredByTransmit++
		}
		if transmitted != (held.count > 0) || transmitted && text(t.ECWObservationID) != held.found {
			v.WrongStatus++
		}
		if e.first[id].nth > 1 {
			v.Problems = append(v.Problems, fmt.Sprintf("observation %s had %d transmissions, though nobody had asked for another", id, e.first[id].nth))
		}
		if wrong != "" {
			v.Problems = append(v.Problems, fmt.Sprintf("observation %s %s; the database has %s %s as %q, %s %s",
				id, wrong, t.ID, t.Status, text(t.ECWObservationID), text(t.ErrorClass), text(t.ErrorMessage)))
		}
	}
	for id := range maps.Keys(e.ehr) {
		if !slices.Contains(e.accepted, id) {
			v.Problems = append(v.Problems, "the EHR holds observation "+id+", which no sender was told of")
		}
	}
	return v
}

// OK tells whether every reading was delivered exactly once and nothing else went wrong.
func (v Verdict) OK() bool {
	return v.Accepted > 0 && v.Duplicates+v.Lost+v.WrongStatus+v.StuckWorkflows+len(v.Problems) == 0
}

// Write prints the table, and below it what is wrong.
func (v Verdict) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range []struct {
		name  string
		count int
	}{
		{"accepted", v.Accepted}, {"delivered", v.Delivered}, {"delivered after a person's transmit", v.DeliveredByTransmit},
		{"duplicates", v.Duplicates}, {"lost", v.Lost}, {"wrong status", v.WrongStatus}, {"workflows left running", v.StuckWorkflows},
	} {
		fmt.Fprintf(w, "%s\t%d\t\n", row.name, row.count)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, problem := range v.Problems {
		fmt.Fprintln(out, "-", problem)
	}
	return nil
}
