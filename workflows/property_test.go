package workflows

import (
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/gate"
)

// Whatever eCW, our limits, the circuit, the database and people do, and whenever: a transmission keeps its promises, which
// model spells out. Each run makes 100 random lives for each way to begin, more with -rapid.checks; a failure prints a
// short life that shows it, and the -rapid.seed that finds it again.
func TestATransmissionKeepsItsPromises(t *testing.T) {
	t.Parallel()
	for name, opened := range map[string]activities.Opened{
		"a new one":              {},
		"taken over":             {AttemptsMade: 2, DeliveriesMade: 4, Due: time.Date(2026, 2, 6, 8, 20, 30, 0, time.UTC)},
		"one attempt left":       {AttemptsMade: 5, DeliveriesMade: 5},
		"with a short schedule":  {MaxAttempts: 3, RetryDelays: []time.Duration{time.Minute, 2 * time.Minute}},
		"with waits that shrink": {MaxAttempts: 4, RetryDelays: []time.Duration{40 * time.Minute, 5 * time.Minute, time.Minute}},
	} {
		if opened.MaxAttempts == 0 {
			opened.MaxAttempts, opened.RetryDelays = 6, documentedDelays
		}
		opened.TransmissionID, opened.Number = testTransmission, "TXN-2026-08830"
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				l := drawLife(t, opened)
				if err := l.live(); err != nil {
					t.Fatalf("%v, at the end of:\n%s", err, strings.Join(l.story, "\n"))
				}
			})
		})
	}
}

func drawLife(t *rapid.T, opened activities.Opened) *life {
	l := &life{opened: opened}
	l.early = rapid.SliceOfN(rapid.SliceOfN(eventGen(false), 0, 1), 0, 3).Draw(t, "each time it starts")
	atOnce := rapid.Custom(func(t *rapid.T) reply { return drawReply(t, "delivered") }).Filter(reply.happensAtOnce)
	l.atOnce = rapid.SliceOfN(atOnce, 0, 3).Draw(t, "at once")
	l.opens = rapid.Bool().Draw(t, "opens at once")
	l.lost = rapid.IntRange(0, 3).Draw(t, "the first worker is lost") == 3
	l.forgetsEnd = rapid.Bool().Draw(t, "forgets the end")
	often := rapid.SampledFrom(outcomes).Draw(t, "often")
	reply := rapid.Custom(func(t *rapid.T) reply { return drawReply(t, often) })
	l.replies = rapid.SliceOfN(reply, 0, 14).Draw(t, "replies")
	return l
}

// TestTheGlossaryDrawsEveryTransition: the diagram of a transmission's states shows what happens in random lives, and nothing
// that does not.
func TestTheGlossaryDrawsEveryTransition(t *testing.T) {
	t.Parallel()
	opened := activities.Opened{
		TransmissionID: testTransmission,
		Number:         "TXN-2026-08830",
		MaxAttempts:    6,
		RetryDelays:    documentedDelays,
	}
	happened := map[[2]string]bool{}
	for seed := range 300 {
		l := rapid.Custom(func(t *rapid.T) *life { return drawLife(t, opened) }).Example(seed)
		l.drawn = happened
		if err := l.live(); err != nil {
			t.Fatal(err)
		}
	}

	glossary, err := os.ReadFile("../docs/glossary.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[[2]string]bool{}
	for _, edge := range regexp.MustCompile(`(?m)^    (\w+) --> (\w+)$`).FindAllSubmatch(glossary, -1) {
		drawn[[2]string{string(edge[1]), string(edge[2])}] = true
	}
	if !maps.Equal(drawn, happened) {
		t.Errorf("the glossary draws %v\nbut these happen: %v", drawn, happened)
	}
}

// reply is what one call of Admit meets, and the Authenticate, the Post and the Record that follow it.
type reply struct {
	admission gate.Admission // how it waits; zero: it may begin
	trial     bool
	failsAuth bool // else it is Post that meets the rest

	class       string // "": delivered
	unavailable bool
	lookingUp   bool
	alone       bool
	refusesUs   bool
	notVisible  bool
	notSent     bool
	heldBack    *gate.Admission
	lost        bool          // the worker
	retryIn     time.Duration // until eCW lets the next request through, or what was sent is visible
	at          time.Time     // set when it is given

	recorded bool // by Deliver, if it is delivered

	forgotten  string // in which activity the database does not know the transmission
	forgetsAll bool   // the database knows nothing of the reading's past any more

	during [3][]event // while Admit, Post and Record run
	later  []event
}

// happensAtOnce reports whether the first delivery can meet it within the workflow's first task: nothing was sent before it.
func (a reply) happensAtOnce() bool {
	return !a.lookingUp && !a.notVisible && a.forgotten != inAdmit && a.forgotten != inPost
}

const (
	inAdmit  = "Admit"
	inPost   = "Post"
	inRecord = "Record"
)

// event is something that happens to a transmission from outside.
type event struct {
	kind  string
	after time.Duration
	wait  time.Duration // of a call
}

const (
	askEvent           = "transmit now"
	callEvent          = "proceed"
	cancelEvent        = "cancel"
	cancelRequestEvent = "request to cancel"
	longHistoryEvent   = "the history is long"
)

// outcomes are what may become of a delivery that is admitted, or of one that is no attempt in the end.
var outcomes = []string{
	"delivered", "retryable", "unknown", "lost", "throttled", "permanent_credentials", "permanent_data", "not sent", "held back",
	"looking up", "not visible yet",
}

// drawReply draws one that often meets the same outcome: some promises are about many of a kind.
func drawReply(t *rapid.T, often string) (a reply) {
	admissions := []string{"admitted", "admitted", "admitted", "admitted", "trial", "trial", "held", "scheduled"}
	switch rapid.SampledFrom(admissions).Draw(t, "admission") {
	case "held":
		a.admission.Held = true
	case "scheduled":
		a.admission.Scheduled = true
	case "trial":
		a.trial = true
		fallthrough
	default:
		drawOutcome(t, &a, often)
	}
	if rapid.IntRange(0, 14).Draw(t, "forgets") == 14 {
		a.forgotten = rapid.SampledFrom([]string{inAdmit, inPost, inRecord}).Draw(t, "forgotten")
		a.forgetsAll = rapid.Bool().Draw(t, "all")
	}
	a.recorded = a.class == "" && a.forgotten == "" && rapid.Bool().Draw(t, "recorded")
	for i := range a.during {
		a.during[i] = rapid.SliceOfN(eventGen(false), 0, 1).Draw(t, []string{"in Admit", "in Post", "in Record"}[i])
	}
	a.later = rapid.SliceOfN(eventGen(true), 0, 2).Draw(t, "later")
	return a
}

func drawOutcome(t *rapid.T, a *reply, often string) {
	outcome := often
	if rapid.IntRange(0, 2).Draw(t, "as often") == 0 {
		outcome = rapid.SampledFrom(outcomes).Draw(t, "outcome")
	}
	switch outcome {
	case "delivered":
		return
	case "lost":
		a.lost, a.class = true, "unknown"
		return
	case "looking up":
		a.lookingUp, a.class = true, rapid.SampledFrom([]string{"retryable", "unknown"}).Draw(t, "class")
		a.unavailable = rapid.IntRange(0, 3).Draw(t, "unavailable") > 0
		a.alone = a.unavailable && rapid.Bool().Draw(t, "alone")
		return
	case "not visible yet":
		a.notVisible, a.lookingUp, a.class, a.retryIn = true, true, "unknown", time.Millisecond+minutes(t, "visible in", 20)
		return
	}
	a.failsAuth = rapid.Bool().Draw(t, "in Authenticate")
	switch outcome {
	case "not sent":
		a.notSent = true
	case "held back":
		held := rapid.Bool().Draw(t, "held")
		a.heldBack = &gate.Admission{Held: held, Scheduled: !held}
	case "throttled":
		a.class, a.retryIn = outcome, minutes(t, "goes on in", 2)
	case "retryable", "unknown":
		a.class, a.unavailable = outcome, rapid.Bool().Draw(t, "unavailable")
	case "permanent_credentials":
		a.class, a.refusesUs = outcome, rapid.Bool().Draw(t, "refuses us")
	default:
		a.class = outcome
	}
}

// minutes draws a time that is due at, unlike that of an event, see later.
func minutes(t *rapid.T, label string, to int) time.Duration {
	return time.Duration(rapid.IntRange(0, to).Draw(t, label)) * time.Minute
}

func eventGen(later bool) *rapid.Generator[event] {
	kinds := []string{
		callEvent, callEvent, callEvent, callEvent, callEvent, callEvent, askEvent, askEvent, askEvent,
		cancelEvent, cancelRequestEvent, longHistoryEvent,
	}
	return rapid.Custom(func(t *rapid.T) (e event) {
		e.kind = rapid.SampledFrom(kinds).Draw(t, "event")
		if e.kind == callEvent && rapid.Bool().Draw(t, "waits") {
			e.wait = minutes(t, "goes in", 40)
		}
		if later {
			e.after = minutes(t, "after", rapid.SampledFrom([]int{8, 80, 800}).Draw(t, "within"))
		}
		return e
	})
}
