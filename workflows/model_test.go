package workflows

import (
	"fmt"
	"time"

	"github.com/vantrexia/vantrexia/activities"
)

// model is what a Transmission promises, in plain words and with nothing of its code: it reads what happened, in order,
// and finds the first thing that must not have. It takes moments from the trace, so that chance and jitter may choose
// within what is promised.
type model struct {
	delays []time.Duration
	max    int

	counted    int // of the allowed attempts
	deliveries int // that have an outcome
	refusals   int // of our credentials at this reading, after eCW had given a token

	delivering bool
	begun      activities.Attempt // the delivery under way
	admitted   bool               // nothing was posted since
	trial      bool
	given      time.Time // the place that came with the admission
	outcome    *reply    // of the delivery under way, until it is recorded
	again      time.Time // when it may begin again, if nothing had left
	last       time.Time // when anything was last done

	waiting bool
	due     span
	asked   bool // a person wants the next delivery now
	call    *activities.Call
	place   time.Time

	cancelled time.Time // zero: not
	end       string    // how the transmission must end: transmitted, or the class of its failure
}

// span is when something may happen.
type span struct{ from, to time.Time }

func at(t time.Time) span { return span{t, t} }

// slack is for an activity that takes long: the test environment's clock may go on meanwhile.
const slack = 2 * time.Second

func (s span) check(what string, t time.Time) error {
	if t.Before(s.from) {
		return fmt.Errorf("%s comes %s too early", what, s.from.Sub(t))
	}
	if late := t.Sub(s.to); late > slack {
		return fmt.Errorf("%s comes %s too late", what, late)
	}
	return nil
}

const transmitted = "transmitted"

// begin is the call of Authenticate.
func (m *model) begin(t time.Time, a activities.Attempt) error {
	switch {
	case m.end != "":
		return fmt.Errorf("a delivery begins after the end (%s)", m.end)
	case m.outcome != nil:
		return fmt.Errorf("a delivery begins before the outcome of the last is recorded")
	case !m.delivering && !m.cancelled.IsZero():
		return fmt.Errorf("a delivery begins after somebody cancelled")
	}
	if err := m.check(t, a); err != nil {
		return err
	}
	if !m.delivering {
		m.call = nil // of an earlier wait
	}
	m.delivering, m.waiting, m.begun, m.last, m.asked, m.admitted = true, false, a, t, false, false
	return nil
}

// answered is what Authenticate answers.
func (m *model) answered(t time.Time, got reply) {
	m.trial, m.given = got.trial, got.place
	switch {
	case got.held:
		m.putOff(t, t.Add(time.Hour), time.Time{})
	case got.wait > 0:
		m.putOff(t, t.Add(got.wait), got.place)
	case got.failsAuth:
		m.ended(t, got)
	default:
		m.admitted = true
	}
}

// check compares a delivery that begins with the one that is due.
func (m *model) check(t time.Time, a activities.Attempt) error {
	if m.delivering { // the same one: nothing had left
		if a != m.begun {
			return fmt.Errorf("a delivery of which nothing had left begins again as %+v, was %+v", a, m.begun)
		}
		return at(m.again).check("the delivery that was not sent", t)
	}
	switch {
	case a.Number != m.counted+1:
		return fmt.Errorf("attempt %d begins with %d made", a.Number, m.counted)
	case a.Number > m.max:
		return fmt.Errorf("attempt %d of %d begins", a.Number, m.max)
	case a.Delivery != m.deliveries+1:
		return fmt.Errorf("delivery %d begins after %d", a.Delivery, m.deliveries)
	case a.Asked != m.asked:
		return fmt.Errorf("asked for by a person: %t, want %t", a.Asked, m.asked)
	case !a.Place.Equal(m.place):
		return fmt.Errorf("it has the place %s, want %s", a.Place, m.place)
	case !m.waiting:
		return nil // the first one
	}
	return m.due.check("the delivery", t)
}

// putOff ends a delivery that could not begin. A call that came meanwhile counts: it may have come after the reply.
func (m *model) putOff(t, due time.Time, place time.Time) {
	m.delivering, m.waiting, m.due, m.place = false, true, at(due), place
	if m.call != nil {
		m.called(t, *m.call)
	}
}

// post is the call of Post.
func (m *model) post(t time.Time, in activities.PostInput, got reply) error {
	switch {
	case m.end == transmitted:
		return fmt.Errorf("posted after it was transmitted")
	case !m.delivering || !m.admitted:
		return fmt.Errorf("posted without an admission of this delivery")
	case in.Delivery != m.begun.Delivery:
		return fmt.Errorf("delivery %d is posted in delivery %d", in.Delivery, m.begun.Delivery)
	}
	m.admitted, m.last = false, t
	m.ended(t, got)
	return nil
}

// ended takes what became of a delivery.
func (m *model) ended(t time.Time, got reply) {
	switch {
	case got.notSent && got.retryIn == 0:
		m.again = t.Add(10 * time.Second)
	case got.notSent:
		m.putOff(t, t.Add(max(got.retryIn, time.Second)), m.given)
	default:
		m.outcome = &got
	}
}

// record is the call of Record.
func (m *model) record(t time.Time, out activities.Outcome) error {
	switch {
	case m.end != "":
		return fmt.Errorf("an outcome is recorded after the end (%s): %+v", m.end, out)
	case m.outcome == nil:
		return m.recordCancelled(t, out)
	}
	got := *m.outcome
	m.outcome, m.delivering, m.place, m.call = nil, false, time.Time{}, nil
	m.deliveries++
	m.last = t
	next, held := m.follows(out.FinishedAt, got)
	switch {
	case out.Delivery != m.deliveries:
		return fmt.Errorf("delivery %d is recorded as %d", m.deliveries, out.Delivery)
	case out.AttemptCount != m.counted || m.counted > m.max:
		return fmt.Errorf("%d attempts are recorded, want %d of %d", out.AttemptCount, m.counted, m.max)
	case (out.Posted != nil) != (got.class == ""):
		return fmt.Errorf("an acknowledgement is recorded: %t", out.Posted != nil)
	case out.Class != got.class:
		return fmt.Errorf("recorded as %q, want %q", out.Class, got.class)
	case out.Held != held:
		return fmt.Errorf("recorded as held: %t, want %t", out.Held, held)
	case (out.NextRetryAt != nil) != (next != nil && !held):
		return fmt.Errorf("the next try is recorded for %v, want one: %t", out.NextRetryAt, next != nil && !held)
	case out.NextRetryAt != nil:
		if err := next.check("the recorded retry", *out.NextRetryAt); err != nil {
			return err
		}
		m.due = at(*out.NextRetryAt)
		m.waiting = true
	case held:
		m.due, m.waiting = *next, true
	}
	return nil
}

// follows says when the next delivery comes after an outcome, and counts the attempt if it was one. A nil span is the end.
func (m *model) follows(t time.Time, got reply) (next *span, held bool) {
	hold := span{t.Add(time.Hour), t.Add(time.Hour)}
	switch got.class {
	case "":
		m.counted++
		m.end = transmitted
		return nil, false
	case "throttled":
		until := at(latest(got.at.Add(got.retryIn), t.Add(time.Second)))
		return &until, false
	case "permanent_credentials":
		if got.failsAuth || m.trial {
			return &hold, true
		}
		if m.refusals++; m.refusals < 3 {
			delay := m.delays[m.refusals-1]
			return &span{t.Add(delay), t.Add(delay + delay/10)}, false
		}
	case "retryable", "unknown":
		if m.trial && got.unavailable {
			return &hold, true
		}
		if m.counted++; m.counted < m.max {
			delay := m.delays[m.counted-1]
			return &span{t.Add(delay), t.Add(delay + delay/10)}, false
		}
		m.end = got.class
		return nil, false
	}
	m.counted++
	m.end = got.class
	return nil, false
}

func (m *model) recordCancelled(t time.Time, out activities.Outcome) error {
	switch {
	case out.Class != ClassCancelled:
		return fmt.Errorf("an outcome is recorded of no delivery: %+v", out)
	case m.cancelled.IsZero():
		return fmt.Errorf("recorded as cancelled, which nobody did")
	case m.delivering:
		return fmt.Errorf("recorded as cancelled in the middle of a delivery")
	case out.Delivery != 0 || out.AttemptCount != m.counted || out.Posted != nil || out.NextRetryAt != nil || out.Held:
		return fmt.Errorf("the cancellation is recorded as %+v, with %d attempts made", out, m.counted)
	}
	m.end = ClassCancelled
	return at(latest(m.cancelled, m.last)).check("the end of a cancelled transmission", t)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ask is an update "transmit now", which the workflow took or refused.
func (m *model) ask(t time.Time, taken bool) error {
	switch {
	case m.delivering, m.end != "":
		if taken {
			return fmt.Errorf("transmit now is taken in the middle of a delivery, or after the end")
		}
	case !taken:
		return fmt.Errorf("transmit now is refused while the transmission waits")
	case m.waiting:
		m.asked, m.due = true, at(t)
	}
	return nil
}

// called is a signal "proceed".
func (m *model) called(t time.Time, call activities.Call) {
	switch {
	case m.delivering:
		m.call = &call // what it means depends on what becomes of the delivery
	case m.waiting && !m.asked:
		m.call, m.place = nil, call.Place
		m.due = at(latest(t, call.ComesAt))
	}
}

func (m *model) cancel(t time.Time) {
	if m.cancelled.IsZero() {
		m.cancelled = t
	}
}

// finish is the end of the workflow, with the type of its error.
func (m *model) finish(class string) error {
	want := m.end
	if want == transmitted {
		want = ""
	}
	if m.end == "" || class != want {
		return fmt.Errorf("the workflow ended with %q, want %q", class, m.end)
	}
	return nil
}
