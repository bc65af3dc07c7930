package proof

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// holdings is what the EHR has of one observation.
type holdings struct {
	count int    // of Observations with its identifier
	found string // the id that a FHIR search gives, or ""
}

// evidence is what the senders, our database and the EHR say after everything has settled.
type evidence struct {
	accepted []string                // observation ids that were answered 201 or 200
	latest   map[string]transmission // of each observation
	ehr      map[string]holdings     // by observation id
	limit    sandbox.LimitStats
	load     sandbox.LoadStats
	running  int      // transmission workflows that have not ended
	problems []string // what went wrong beside the readings
}

// Verdict counts the readings by outcome. Problems has a line for each fault.
type Verdict struct {
	Accepted    int
	Delivered   int            // once, and our database knows
	Failed      map[string]int // not at all, and our database says so, by error class
	Duplicates  int            // more than one Observation in the EHR
	Lost        int            // none, and our database does not say that it failed
	WrongStatus int            // our database says something else than the EHR

	StuckWorkflows int
	BusiestMinute  int // most requests that the EHR took in one
	OverLimit      int // minutes in which more was sent than the EHR allows
	MostInFlight   int // most requests that the EHR had under way at once; shown for information only

	// Openings counts how often the circuit opened, by reason, if that was watched. It is no fault.
	Openings map[string]int
	Problems []string
}

// judge compares the evidence on each reading, and adds a problem for each that is not as it should be.
func judge(e evidence) Verdict {
	v := Verdict{
		Accepted:       len(e.accepted),
		Failed:         map[string]int{},
		StuckWorkflows: e.running,
		BusiestMinute:  e.limit.BusiestMinute,
		OverLimit:      e.limit.Exceeded,
		MostInFlight:   e.load.MostInFlight,
		Problems:       e.problems,
	}
	for _, id := range slices.Sorted(slices.Values(e.accepted)) {
		v.judgeReading(id, e.latest[id], e.ehr[id])
	}

	for id := range maps.Keys(e.ehr) {
		if !slices.Contains(e.accepted, id) {
			v.Problems = append(v.Problems, "the EHR holds observation "+id+", which no sender had accepted")
		}
	}

	return v
}

func (v *Verdict) judgeReading(id string, t transmission, held holdings) {
	transmitted := t.Status == "transmitted"
	wrongStatus := transmitted != (held.count > 0) || transmitted && text(t.ECWObservationID) != held.found
	wrong := ""
	switch {
	case held.count > 1:
		v.Duplicates++
		wrong = fmt.Sprintf("stands %d times in the EHR", held.count)
	case held.count == 1 && wrongStatus:
		wrong = "is in the EHR as " + held.found
	case held.count == 1:
		v.Delivered++
	case !transmitted && t.settled():
		v.Failed[text(t.ErrorClass)]++
	default:
		v.Lost++
		wrong = "is not in the EHR"
	}

	if wrongStatus {
		v.WrongStatus++
	}
	if wrong != "" {
		v.Problems = append(v.Problems, fmt.Sprintf("observation %s %s; the database has %s %s as %q, %s %s",
			id, wrong, t.ID, t.Status, text(t.ECWObservationID), text(t.ErrorClass), text(t.ErrorMessage)))
	}
	if t.nth > 1 {
		v.Problems = append(v.Problems, fmt.Sprintf("observation %s had %d transmissions, though nobody had asked for another", id, t.nth))
	}
}

// OK reports whether every reading was delivered exactly once, or has failed and is known to have, and
// nothing else went wrong.
func (v Verdict) OK() bool {
	return v.Delivered > 0 && v.Duplicates+v.Lost+v.WrongStatus+v.StuckWorkflows+v.OverLimit+len(v.Problems) == 0
}

// Write prints the table, and below it what is wrong.
func (v Verdict) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range []struct {
		name   string
		count  int
		detail string
	}{
		{"accepted", v.Accepted, ""},
		{"delivered", v.Delivered, ""},
		{"failed, and known to have", total(v.Failed), counts(v.Failed)},
		{"duplicates", v.Duplicates, ""},
		{"lost", v.Lost, ""},
		{"wrong status", v.WrongStatus, ""},
		{"workflows left running", v.StuckWorkflows, ""},
		{"minutes over the EHR's limit", v.OverLimit, fmt.Sprintf("%d requests in the busiest", v.BusiestMinute)},
		{"most requests under way at once", v.MostInFlight, ""},
		{"circuit openings", total(v.Openings), counts(v.Openings)},
	} {
		fmt.Fprintf(w, "%s\t%d\t  %s\n", row.name, row.count, row.detail)
	}

	if err := w.Flush(); err != nil {
		return err
	}

	for _, problem := range v.Problems {
		fmt.Fprintln(out, "-", problem)
	}

	return nil
}

func total(counted map[string]int) (sum int) {
	for _, n := range counted {
		sum += n
	}
	return sum
}

// counts writes what was counted, in the order of the names: "credentials 1, unavailable 3".
func counts(counted map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counted)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counted[name]))
	}
	return strings.Join(parts, ", ")
}
