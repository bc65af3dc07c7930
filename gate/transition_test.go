package gate

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// txn is the id of the transmission that the tests call by that name.
func txn(name string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)) }

// transitions lists the circuit after every event in every state. Transmission 1 is the trial in the last
// state, and was the latest trial before the other states. Transmission 9 is another.
const transitions = `
event          of | closed             | closed after 2     | open               | vacant               | trial
nothing         1 | closed             | closed after 2     | open               | vacant               | open
nothing         9 | closed             | closed after 2     | open               | vacant               | trial
not asked       1 | closed             | closed after 2     | open               | vacant               | open
not asked       9 | closed             | closed after 2     | open               | vacant               | trial
answers         1 | closed             | closed             | open               | vacant               | closed
answers         9 | closed             | closed             | open               | vacant               | trial
unavailable     1 | closed after 1     | open               | open               | vacant               | open
unavailable     9 | closed after 1     | open               | open               | vacant               | trial
forbids         1 | closed after 1     | open (credentials) | open               | vacant               | open (credentials)
forbids         9 | closed after 1     | open (credentials) | open               | vacant               | trial
refuses         1 | open (credentials) | open (credentials) | open (credentials) | vacant (credentials) | open (credentials)
refuses         9 | open (credentials) | open (credentials) | open (credentials) | vacant (credentials) | trial (credentials)
comes           1 | closed             | closed after 2     | open               | trial                | trial
comes           9 | closed             | closed after 2     | open               | trial of another     | trial
asked           1 | closed             | closed after 2     | trial              | trial                | trial
asked           9 | closed             | closed after 2     | trial of another   | trial of another     | trial
chosen          1 | closed             | closed after 2     | trial              | trial                | trial
chosen          9 | closed             | closed after 2     | trial of another   | trial of another     | trial of another
nobody chosen   1 | closed             | closed after 2     | vacant             | vacant               | vacant
nobody chosen   9 | closed             | closed after 2     | vacant             | vacant               | vacant
held            1 | closed             | closed after 2     | open               | vacant               | open
held            9 | closed             | closed after 2     | open               | vacant               | trial
`

// states are the states of the table.
var states = []string{"closed", "closed after 2", "open", "vacant", "trial"}

// table is transitions by event, by transmission and by state.
func table(t *testing.T) map[[3]string]string {
	t.Helper()
	cells := map[[3]string]string{}
	for _, line := range strings.Split(strings.TrimSpace(transitions), "\n")[1:] {
		columns := strings.Split(line, "|")
		event, of, _ := strings.Cut(strings.TrimSpace(columns[0]), "  ")

		if len(columns) != len(states)+1 {
			t.Fatalf("%q has %d states, want %d", line, len(columns)-1, len(states))
		}

		for i, state := range states {
			cells[[3]string{event, strings.TrimSpace(of), state}] = strings.TrimSpace(columns[i+1])
		}
	}

	return cells
}

// events are all events that may change the circuit: a report of every finding that circuit.go declares, and
// the other events of a transmission.
func events(t *testing.T) map[string]func(s db.Gate, id uuid.UUID) db.Gate {
	t.Helper()
	all := map[string]func(s db.Gate, id uuid.UUID) db.Gate{
		"comes":         func(s db.Gate, id uuid.UUID) db.Gate { return afterArrival(s, id, false) },
		"asked":         func(s db.Gate, id uuid.UUID) db.Gate { return afterArrival(s, id, true) },
		"chosen":        func(s db.Gate, id uuid.UUID) db.Gate { return afterChoice(s, &id) },
		"nobody chosen": func(s db.Gate, _ uuid.UUID) db.Gate { return afterChoice(s, nil) },
		"held":          afterHold,
	}

	source, err := os.ReadFile("circuit.go")
	if err != nil {
		t.Fatal(err)
	}

	findings := regexp.MustCompile(`(?m)^\t\w+\s+Finding = "(\w*)"`).FindAllStringSubmatch(string(source), -1)
	if len(findings) == 0 {
		t.Fatal("circuit.go declares no finding")
	}

	for _, match := range findings {
		all[name(Finding(match[1]))] = func(s db.Gate, id uuid.UUID) db.Gate {
			report := Report{
				TransmissionID: id,
				StartedAt:      noon.Add(time.Minute),
				Finding:        Finding(match[1]),
				Message:        "new",
			}
			return afterReport(s, report, noon.Add(2*time.Minute))
		}
	}

	return all
}

// name is the finding's name in the table.
func name(f Finding) string {
	if f == Nothing {
		return "nothing"
	}
	return strings.ReplaceAll(string(f), "_", " ")
}

// The table has a row for every event in every state, and no other row.
func TestEveryTransitionOfTheCircuit(t *testing.T) {
	t.Parallel()
	want := table(t)
	for event, after := range events(t) {
		for _, of := range []string{"1", "9"} {
			for _, state := range states {
				cell := [3]string{event, of, state}
				expected, listed := want[cell]
				if !listed {
					t.Errorf("the table has no row for %q of transmission %s", event, of)
					break
				}

				delete(want, cell)
				before := circuit(state)
				got := after(before, txn(of))
				if describe(got) != expected {
					t.Errorf("%v: the circuit is %q, want %q", cell, describe(got), expected)
				}

				checkSound(t, fmt.Sprint(cell), got)
				checkOutage(t, event, before, got)
			}
		}
	}

	for cell := range want {
		t.Errorf("%v: there is no such event", cell)
	}
}

// checkOutage checks what people are shown of an outage after an event. Its beginning must not change, and
// the message must be that of the report that opened the circuit, or of a refusal.
func checkOutage(t *testing.T, event string, before, got db.Gate) {
	t.Helper()
	if got.Circuit == Closed {
		return
	}
	if before.Circuit != Closed && (!got.FailingSince.Equal(noon) || !got.OpenedAt.Equal(noon)) {
		t.Errorf("%q when %s: the outage began at %s and opened the circuit at %s, want it to last",
			event, describe(before), got.FailingSince, got.OpenedAt)
	}
	opens := (event == name(Unavailable) || event == name(Forbids)) && before.Circuit != got.Circuit
	if newer := event == name(Refuses) || opens; (got.Message == "new") != newer {
		t.Errorf("%q when %s: the message is %q", event, describe(before), got.Message)
	}
}

// The diagram in docs/reliability.md shows the transitions of the table, and no others.
func TestTheDiagramOfTheCircuit(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}

	shown := map[string][]string{}
	for _, edge := range regexp.MustCompile(`(?m)^ +(\w+ --> \w+): (.+)$`).FindAllStringSubmatch(string(document), -1) {
		shown[edge[1]] = append(shown[edge[1]], strings.Split(edge[2], ", ")...)
	}

	want, cells := map[string][]string{}, table(t)
	for cell, after := range cells {
		event, from, to := cell[0], node(cell[2]), node(after)
		if from == to {
			continue
		}
		if cell[2] == "closed after 2" && node(cells[[3]string{event, cell[1], "closed"}]) != to {
			event = "third " + event
		}

		if edge := from + " --> " + to; !slices.Contains(want[edge], event) {
			want[edge] = append(want[edge], event)
		}
	}

	for _, edges := range []map[string][]string{shown, want} {
		for _, labels := range edges {
			slices.Sort(labels)
		}
	}

	if !maps.EqualFunc(shown, want, slices.Equal) {
		t.Errorf("the diagram shows\n%v, want\n%v", shown, want)
	}
}

// node is the diagram's node for a state of the table.
func node(state string) string { return strings.Fields(state)[0] }

// describe returns the table's name of a circuit's state.
func describe(s db.Gate) string {
	state := s.Circuit
	switch {
	case s.Circuit == Closed && len(s.Failing) > 0:
		state = fmt.Sprintf("closed after %d", len(s.Failing))
	case s.Circuit == HalfOpen && s.Trial == nil:
		state = "vacant"
	case isTrial(s, txn("1")):
		state = "trial"
	case s.Circuit == HalfOpen:
		state = "trial of another"
	}

	if s.Reason == ReasonCredentials {
		state += " (credentials)"
	}

	return state
}

var noon = time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC)

// circuit is a valid circuit in a state of the table. If it is not closed, it has been open for an outage
// since noon.
func circuit(state string) db.Gate {
	s := db.Gate{PracticeCode: "FFHEDD", Circuit: Closed, Failing: []uuid.UUID{}}
	since, opened, trial := noon, noon, txn("1")
	switch state {
	case "closed":
		return s
	case "closed after 2":
		s.Failing, s.FailingSince = []uuid.UUID{txn("2"), txn("3")}, &since
		return s
	}

	s.Circuit, s.Reason, s.Message, s.FailingSince, s.OpenedAt = Open, ReasonUnavailable, "old", &since, &opened
	switch state {
	case "vacant":
		s.Circuit = HalfOpen
	case "trial":
		s.Circuit, s.Trial = HalfOpen, &trial
	}

	return s
}

// checkSound checks a circuit against the constraints of its database table.
func checkSound(t *testing.T, name string, s db.Gate) {
	t.Helper()
	closed := s.Circuit == Closed
	explained, since := (s.Reason == "") == closed, closed || s.FailingSince != nil
	if !explained || !since || (s.OpenedAt == nil) != closed || s.Trial != nil && s.Circuit != HalfOpen {
		t.Errorf("%s: the circuit cannot be stored: %+v", name, s)
	}
	if s.Failing == nil {
		t.Errorf("%s: failing is nil, which the database takes for NULL", name)
	}
}

func TestThreeReadingsInARowOpenTheCircuit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reports []Report
		opens   bool
	}{
		"three of them":           {[]Report{failing("A", 0), failing("B", 1), failing("C", 2)}, true},
		"two of them":             {[]Report{failing("A", 0), failing("B", 1)}, false},
		"one again and again":     {[]Report{failing("A", 0), failing("A", 1), failing("A", 2), failing("A", 3)}, false},
		"two again and again":     {[]Report{failing("A", 0), failing("B", 1), failing("A", 2), failing("B", 3)}, false},
		"an answer in between":    {[]Report{failing("A", 0), failing("B", 1), answering("C"), failing("D", 2)}, false},
		"one says nothing":        {[]Report{failing("A", 0), {TransmissionID: txn("C")}, failing("B", 1), failing("C", 2)}, true},
		"the third is refused":    {[]Report{failing("A", 0), {TransmissionID: txn("B"), StartedAt: noon, Finding: Refuses}}, true},
		"three are forbidden":     {[]Report{forbidden("A"), forbidden("B"), forbidden("C")}, true},
		"one forbidden for ever":  {[]Report{forbidden("A"), forbidden("A"), forbidden("A")}, false},
		"an answer, then a third": {[]Report{failing("A", 0), answering("C"), failing("A", 1), failing("B", 2), failing("D", 3)}, true},
	} {
		s := circuit(Closed)
		for _, r := range test.reports {
			s = afterReport(s, r, noon.Add(time.Hour))
			checkSound(t, name, s)
		}
		if (s.Circuit == Open) != test.opens {
			t.Errorf("%s: the circuit is %q", name, s.Circuit)
		}
	}
}

// failing is a report of an outage by a delivery that began that many seconds after noon.
func failing(id string, second int) Report {
	return Report{
		TransmissionID: txn(id),
		StartedAt:      noon.Add(time.Duration(second) * time.Second),
		Finding:        Unavailable,
		Message:        "eCW is unavailable",
	}
}

// forbidden is a report that eCW forbids a single request.
func forbidden(id string) Report {
	return Report{TransmissionID: txn(id), StartedAt: noon, Finding: Forbids}
}

// answering is a report that eCW works.
func answering(id string) Report {
	return Report{TransmissionID: txn(id), StartedAt: noon, Finding: Answers}
}

// Deliveries that begin together end in any order, and all fail in the outage. The outage must begin with the
// first of them, so that all are released when it is over.
func TestAnOutageBeganWithTheFirstDeliveryThatMetIt(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {1, 2, 3, 0}} {
		s := circuit(Closed)
		for _, second := range order {
			s = afterReport(s, failing(string(rune('A'+second)), second), noon.Add(time.Hour))
		}
		if s.Circuit != Open || !s.FailingSince.Equal(noon) {
			t.Errorf("reports in the order %v: %q since %s, want it open since the first began", order, s.Circuit, s.FailingSince)
		}
	}
}
