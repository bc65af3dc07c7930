package gate

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// txn is the id of a transmission that a letter or a number names.
func txn(name string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)) }

// What every report does in every state of the circuit. The circuits with a trial try transmission 1, whose report it is
// when trial is set; else the report comes from transmission 9, which began before.
func TestStep(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		circuit string
		trial   bool
		finding Finding
		want    string
		reason  string // of a circuit that was open for an outage
	}{
		{Closed, false, Nothing, Closed, ""},
		{Closed, false, Answers, Closed, ""},
		{Closed, false, Unavailable, Closed, ""}, // one alone
		{Closed, false, Forbids, Closed, ""},     // one alone
		{Closed, false, Refuses, Open, ReasonCredentials},

		{Open, false, Nothing, Open, ReasonUnavailable},
		{Open, false, Answers, Open, ReasonUnavailable},
		{Open, false, Unavailable, Open, ReasonUnavailable},
		{Open, false, Forbids, Open, ReasonUnavailable},
		{Open, false, Refuses, Open, ReasonCredentials}, // graver than an outage

		{HalfOpen, false, Nothing, HalfOpen, ReasonUnavailable},
		{HalfOpen, false, Answers, HalfOpen, ReasonUnavailable},
		{HalfOpen, false, Unavailable, HalfOpen, ReasonUnavailable},
		{HalfOpen, false, Forbids, HalfOpen, ReasonUnavailable},
		{HalfOpen, false, Refuses, HalfOpen, ReasonCredentials},

		{HalfOpen, true, Nothing, Open, ReasonUnavailable}, // it decided nothing
		{HalfOpen, true, NotAsked, Open, ReasonUnavailable},
		{HalfOpen, false, NotAsked, HalfOpen, ReasonUnavailable},
		{Open, false, NotAsked, Open, ReasonUnavailable},
		{Closed, false, NotAsked, Closed, ""},
		{HalfOpen, true, Answers, Closed, ""},
		{HalfOpen, true, Unavailable, Open, ReasonUnavailable},
		{HalfOpen, true, Forbids, Open, ReasonCredentials},
		{HalfOpen, true, Refuses, Open, ReasonCredentials},
	} {
		before := circuit(test.circuit)
		report := Report{TransmissionID: txn("9"), StartedAt: noon.Add(time.Minute), Finding: test.finding, Message: "new"}
		name := test.circuit + ", another's report"
		if test.trial {
			report.TransmissionID, name = txn("1"), test.circuit+", the trial's report"
		}
		got := step(before, report, noon.Add(2*time.Minute))
		if got.Circuit != test.want || got.Reason != test.reason {
			t.Errorf("%s %s: the circuit is %q for %q, want %q for %q", name, test.finding, got.Circuit, got.Reason, test.want, test.reason)
		}
		checkSound(t, name, got)
		if wantTrial := before.Trial; got.Circuit == HalfOpen && got.Trial != wantTrial || got.Circuit != HalfOpen && got.Trial != nil {
			t.Errorf("%s %s: the trial is %v", name, test.finding, got.Trial)
		}
		if before.Circuit != Closed && got.Circuit != Closed && (!got.FailingSince.Equal(noon) || !got.OpenedAt.Equal(noon)) {
			t.Errorf("%s %s: the outage began at %s and opened the circuit at %s, want it to last",
				name, test.finding, got.FailingSince, got.OpenedAt)
		}
		newer := test.finding == Refuses || test.trial && (test.finding == Unavailable || test.finding == Forbids)
		if got.Circuit != Closed && (got.Message == "new") != newer {
			t.Errorf("%s %s: the message is %q", name, test.finding, got.Message)
		}
	}
}

var noon = time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC)

// circuit is a sound one in the given state.
func circuit(state string) db.Gate {
	s := db.Gate{PracticeCode: "FFHEDD", Circuit: state, Failing: []uuid.UUID{}}
	if state == Closed {
		return s
	}
	since, opened, trial := noon, noon, txn("1")
	s.Reason, s.Message, s.FailingSince, s.OpenedAt = ReasonUnavailable, "old", &since, &opened
	if state == HalfOpen {
		s.Trial = &trial
	}
	return s
}

// checkSound holds a circuit against what its table demands.
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
			s = step(s, r, noon.Add(time.Hour))
			checkSound(t, name, s)
		}
		if (s.Circuit == Open) != test.opens {
			t.Errorf("%s: the circuit is %q", name, s.Circuit)
		}
	}
}

// failing is a report of an outage by a delivery that began so many seconds after noon.
func failing(id string, second int) Report {
	return Report{
		TransmissionID: txn(id),
		StartedAt:      noon.Add(time.Duration(second) * time.Second),
		Finding:        Unavailable,
		Message:        "eCW is unavailable",
	}
}

// forbidden is a report that eCW forbids one request.
func forbidden(id string) Report {
	return Report{TransmissionID: txn(id), StartedAt: noon, Finding: Forbids}
}

// answering is a report that eCW works.
func answering(id string) Report {
	return Report{TransmissionID: txn(id), StartedAt: noon, Finding: Answers}
}

// Deliveries that begin together end in any order, and all of them met the outage: each is let go when it is over.
func TestAnOutageBeganWithTheFirstDeliveryThatMetIt(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {1, 2, 3, 0}} {
		s := circuit(Closed)
		for _, second := range order {
			s = step(s, failing(string(rune('A'+second)), second), noon.Add(time.Hour))
		}
		if s.Circuit != Open || !s.FailingSince.Equal(noon) {
			t.Errorf("reports in the order %v: %q since %s, want it open since the first began", order, s.Circuit, s.FailingSince)
		}
	}
}
