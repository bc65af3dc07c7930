package workflows

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vantrexia/vantrexia/activities"
)

// Whatever eCW, our limit, the circuit and people do, and whenever: a transmission keeps its promises, which model spells
// out. Each run makes 100 random lives for each way to begin, more with -rapid.checks; a failure prints a short life that
// shows it, and the -rapid.seed that finds it again.
func TestATransmissionKeepsItsPromises(t *testing.T) {
	t.Parallel()
	for name, opened := range map[string]activities.Opened{
		"a new one":             {},
		"taken over":            {AttemptsMade: 2, DeliveriesMade: 4},
		"one attempt left":      {AttemptsMade: 5, DeliveriesMade: 5},
		"with a short schedule": {MaxAttempts: 3, RetryDelays: []time.Duration{time.Minute, 2 * time.Minute}},
	} {
		if opened.MaxAttempts == 0 {
			opened.MaxAttempts, opened.RetryDelays = 6, documentedDelays
		}
		opened.TransmissionID = "TXN-2026-08830"
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				l := newLife(opened)
				l.early = rapid.SliceOfN(eventGen(false), 0, 1).Draw(t, "while it starts")
				often := rapid.SampledFrom(outcomes).Draw(t, "often")
				reply := rapid.Custom(func(t *rapid.T) reply { return drawReply(t, often) })
				l.replies = rapid.SliceOfN(reply, 0, 14).Draw(t, "replies")
				if err := l.live(); err != nil {
					t.Fatalf("%v, at the end of:\n%s", err, strings.Join(l.story, "\n"))
				}
			})
		})
	}
}

// reply is what one call of Authenticate meets, and the Post that follows it.
type reply struct {
	held      bool
	wait      time.Duration
	place     time.Time
	trial     bool
	failsAuth bool // else it is Post that meets the rest

	class       string // "": delivered
	unavailable bool
	notSent     bool
	lost        bool          // the worker
	retryIn     time.Duration // until eCW, or our own limit, lets the next request through
	at          time.Time     // set when it is given

	during [3][]event // while Authenticate, Post and Record run
	later  []event
}

// event is something that happens to a transmission from outside.
type event struct {
	kind    string
	after   time.Duration
	comesIn time.Duration // of a call
}

const (
	askEvent           = "transmit now"
	callEvent          = "proceed"
	cancelEvent        = "cancel"
	cancelRequestEvent = "request to cancel"
)

// outcomes are what may become of a delivery that is admitted, or of one that is no attempt in the end.
var outcomes = []string{
	"delivered", "retryable", "unknown", "lost", "throttled", "permanent_credentials", "permanent_data", "not sent", "limited",
}

// drawReply draws one that often meets the same outcome: some promises are about many of a kind.
func drawReply(t *rapid.T, often string) (a reply) {
	switch rapid.SampledFrom([]string{"admitted", "admitted", "admitted", "admitted", "trial", "held", "queued"}).Draw(t, "admission") {
	case "held":
		a.held = true
	case "queued":
		a.wait = time.Second + minutes(t, "turn comes in", 60)
		a.place = places(t)
	case "trial":
		a.trial = true
		fallthrough
	default:
		a.place = places(t)
		drawOutcome(t, &a, often)
	}
	for i := range a.during {
		a.during[i] = rapid.SliceOfN(eventGen(false), 0, 1).Draw(t, []string{"in Authenticate", "in Post", "in Record"}[i])
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
	case "not sent":
		a.notSent = true
		return
	}
	a.failsAuth = rapid.Bool().Draw(t, "in Authenticate")
	switch outcome {
	case "limited":
		a.notSent, a.retryIn = true, time.Millisecond+minutes(t, "goes on in", 2)
	case "throttled":
		a.class, a.retryIn = outcome, minutes(t, "goes on in", 2)
	case "retryable", "unknown":
		a.class, a.unavailable = outcome, rapid.Bool().Draw(t, "unavailable")
	default:
		a.class = outcome
	}
}

// minutes draws a time that is due at, unlike that of an event, see later.
func minutes(t *rapid.T, label string, to int) time.Duration {
	return time.Duration(rapid.IntRange(0, to).Draw(t, label)) * time.Minute
}

func places(t *rapid.T) time.Time {
	if n := rapid.IntRange(0, 3).Draw(t, "place"); n > 0 {
		return time.Date(2026, 2, 6, n, 0, 0, 0, time.UTC)
	}
	return time.Time{}
}

func eventGen(later bool) *rapid.Generator[event] {
	return rapid.Custom(func(t *rapid.T) (e event) {
		e.kind = rapid.SampledFrom([]string{askEvent, askEvent, askEvent, callEvent, callEvent, callEvent, callEvent, cancelEvent, cancelRequestEvent}).Draw(t, "event")
		if e.kind == callEvent && rapid.Bool().Draw(t, "has a turn") {
			e.comesIn = minutes(t, "comes in", 40)
		}
		if later {
			e.after = minutes(t, "after", rapid.SampledFrom([]int{8, 80, 800}).Draw(t, "within"))
		}
		return e
	})
}
