package workflows

import (
	"fmt"
	"time"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// model is what a Transmission promises, in plain words and with nothing of its code: it reads what happened, in order,
// and finds the first thing that must not have. It takes moments from the trace, so that chance and jitter may choose
// within what is promised.
type model struct {
	delays []time.Duration
	max    int

	ref        activities.ObservationRef // that the run was started with
	unknown    time.Time                 // when the last send ended whose outcome is unknown
	forgotten  bool                      // the database does not know the transmission, which is not opened anew yet
	lost       time.Time                 // when a worker was found to be lost that may have sent it; zero: none
	counted    int                       // of the allowed attempts
	deliveries int                       // that have an outcome
	refusals   int                       // of our credentials at this reading, after eCW had given a token

	delivering bool
	begun      activities.Attempt // the delivery under way
	early      bool               // it was brought forward
	admitted   bool               // nothing was posted since
	trial      bool
	outcome    *reply    // of the delivery under way, until it is recorded
	last       time.Time // when anything was last done

	atOnce      bool // the delivery under way began with the workflow
	askedAtOnce bool // a person asked for a delivery meanwhile

	waiting   bool
	next      span       // when the next delivery begins, as things stand
	scheduled time.Time  // the moment that the schedule has given it
	asked     bool       // a person wants the next delivery now
	call      *gate.Call // that came during the delivery under way

	free       time.Time // when the schedule's wait is over that follows the last counted attempt
	askedSince bool      // a person asked for a delivery since then

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

// open is the call of Open, which begins a run, or begins again what the database has forgotten.
func (m *model) open(t time.Time, ref activities.ObservationRef, opened activities.Opened) error {
	first := m.delays == nil
	switch {
	case m.end != "":
		return fmt.Errorf("opened after the end (%s)", m.end)
	case m.delivering:
		return fmt.Errorf("opened in the middle of a delivery")
	case first && m.lost.IsZero():
	case !ref.LookUp:
		return fmt.Errorf("opened anew without LookUp: something may have been sent before")
	case first:
		if err := at(m.lost).check("the moment since which the outcome is unknown", ref.UnknownSince); err != nil {
			return err
		}
	case m.forgotten:
		if err := at(m.last).check("the moment since which the outcome is unknown", ref.UnknownSince); err != nil {
			return err
		}
	case !ref.UnknownSince.Equal(m.unknown):
		return fmt.Errorf("opened anew with an unknown outcome of %s, want %s", ref.UnknownSince, m.unknown)
	}
	m.ref, m.unknown, m.forgotten = ref, ref.UnknownSince, false
	m.delays, m.max = opened.RetryDelays, opened.MaxAttempts
	m.counted, m.deliveries = opened.AttemptsMade, opened.DeliveriesMade
	m.outcome, m.call = nil, nil

	m.waiting, m.next, m.scheduled = true, at(latest(t, opened.Due)), opened.Due
	if m.asked { // which is not forgotten
		m.next, m.scheduled = at(t), time.Time{}
	}
	if opened.Due.Before(m.free) { // no run knows more than the database
		m.free = opened.Due
	}
	m.last = t
	return nil
}

// lose is the answer of Deliver that a worker was lost which may have sent it.
func (m *model) lose(t time.Time) { m.lost = t }

// beginAtOnce is the call of Deliver, which opens the transmission, or was called from the queue.
func (m *model) beginAtOnce(t time.Time, ref activities.ObservationRef, opened activities.Opened) error {
	if m.deliveries > 0 || ref.LookUp || m.forgotten {
		return fmt.Errorf("delivered at once, and something may have been sent before")
	}
	if m.delays == nil {
		if err := m.open(t, ref, opened); err != nil {
			return err
		}
		m.atOnce = true
	}
	return m.begin(t, activities.Attempt{Delivery: 1, Number: 1, StartedAt: t})
}

// deliveredAtOnce is what Deliver answers. Whoever asked for a delivery meanwhile has it, unless it was not made.
func (m *model) deliveredAtOnce(t time.Time, got reply) error {
	m.answered(t, got)
	if !got.admission.Waits() {
		m.admitted = false
		m.ended(t, got)
	}
	if m.askedAtOnce && m.waiting {
		m.asked, m.next, m.scheduled = true, at(t), time.Time{}
	}
	m.atOnce, m.askedAtOnce, m.last = false, false, t
	if got.class == "" && got.recorded && m.outcome != nil {
		m.outcome, m.delivering, m.end = nil, false, transmitted
	}
	return nil
}

// begin is the call of Admit.
func (m *model) begin(t time.Time, a activities.Attempt) error {
	switch {
	case m.end != "":
		return fmt.Errorf("a delivery begins after the end (%s)", m.end)
	case m.forgotten:
		return fmt.Errorf("a delivery begins of a transmission that the database does not know")
	case m.outcome != nil:
		return fmt.Errorf("a delivery begins before the outcome of the last is recorded")
	case !m.delivering && !m.cancelled.IsZero():
		return fmt.Errorf("a delivery begins after somebody cancelled")
	}
	if err := m.check(t, a); err != nil {
		return err
	}
	m.call = nil // of an earlier wait
	m.early = a.StartedAt.Before(m.scheduled)
	m.askedSince = m.askedSince || a.Asked
	m.delivering, m.waiting, m.begun, m.last, m.asked, m.admitted = true, false, a, t, false, false
	return nil
}

// check compares a delivery that begins with the one that is to come.
func (m *model) check(t time.Time, a activities.Attempt) error {
	switch {
	case a.Number != m.counted+1:
		return fmt.Errorf("attempt %d begins with %d made", a.Number, m.counted)
	case a.Number > m.max:
		return fmt.Errorf("attempt %d of %d begins", a.Number, m.max)
	case a.Delivery != m.deliveries+1:
		return fmt.Errorf("delivery %d begins after %d", a.Delivery, m.deliveries)
	case a.Asked != m.asked:
		return fmt.Errorf("asked for by a person: %t, want %t", a.Asked, m.asked)
	case !m.waiting:
		return fmt.Errorf("a delivery begins that nothing led to")
	}
	return m.next.check("the delivery", t)
}

// answered is what Admit answers.
func (m *model) answered(t time.Time, got reply) {
	m.trial = got.trial
	switch {
	case got.forgotten == inAdmit:
		m.forget(t)
	case got.admission.Waits():
		m.putOff(t, got.admission)
	default:
		m.admitted = true
	}
}

// authenticate is the call of Authenticate.
func (m *model) authenticate(t time.Time, a activities.Attempt, got reply) error {
	if !m.delivering || !m.admitted || a != m.begun {
		return fmt.Errorf("authenticates for %+v, and %+v is admitted: %t", a, m.begun, m.admitted)
	}
	m.last = t
	if got.failsAuth {
		m.admitted = false
		m.ended(t, got)
	}
	return nil
}

// putOff ends a delivery that could not begin, and is no attempt: it waits in the queue, or goes back to where it was. A
// call that came meanwhile counts: it may have come after the reply.
func (m *model) putOff(t time.Time, a gate.Admission) {
	m.delivering, m.waiting, m.next = false, true, at(t.Add(time.Hour))
	switch {
	case a.Scheduled:
		m.next = at(latest(m.scheduled, t.Add(10*time.Second)))
	case !a.Held: // it was not sent
		m.next = at(t.Add(10 * time.Second))
	}
	if m.call != nil {
		m.called(t, *m.call)
	}
}

// forget is the answer that the database does not know the transmission.
func (m *model) forget(t time.Time) {
	m.asked = m.asked || m.delivering && m.begun.Asked // what was asked for was not done
	m.forgotten, m.delivering, m.waiting, m.admitted, m.outcome, m.last = true, false, false, false, nil, t
}

// post is the call of Post.
func (m *model) post(t time.Time, in activities.PostInput, got reply) error {
	switch {
	case m.end == transmitted:
		return fmt.Errorf("posted after it was transmitted")
	case !m.delivering || !m.admitted:
		return fmt.Errorf("posted without an admission of this delivery")
	case in.Delivery != m.begun.Delivery || in.Asked != m.begun.Asked:
		return fmt.Errorf("posted as %+v in the delivery %+v", in, m.begun)
	case in.LookUp != (m.ref.LookUp || m.deliveries > 0):
		return fmt.Errorf("posted with a look-up: %t, after %d deliveries, in a run that was told %t", in.LookUp, m.deliveries, m.ref.LookUp)
	case !in.UnknownSince.Equal(m.unknown):
		return fmt.Errorf("posted with an unknown outcome of %s, want %s", in.UnknownSince, m.unknown)
	}
	m.admitted, m.last = false, t
	if got.forgotten == inPost {
		m.forget(t)
		return nil
	}
	m.ended(t, got)
	return nil
}

// ended takes what became of a delivery.
func (m *model) ended(t time.Time, got reply) {
	switch {
	case got.heldBack != nil:
		m.putOff(t, *got.heldBack)
	case got.notSent: // it begins again, and is the same for whoever asked for it
		asked := m.begun.Asked
		m.putOff(t, gate.Admission{})
		m.asked = m.asked || asked
	default:
		m.outcome = &got
	}
}

// record is the call of Record.
func (m *model) record(t time.Time, out activities.Outcome, forgotten bool) error {
	switch {
	case m.end != "":
		return fmt.Errorf("an outcome is recorded after the end (%s): %+v", m.end, out)
	case m.forgotten:
		return fmt.Errorf("an outcome is recorded of a transmission that the database does not know: %+v", out)
	case m.outcome == nil:
		return m.recordCancelled(t, out, forgotten)
	}
	got := *m.outcome
	m.outcome, m.delivering, m.call = nil, false, nil
	m.deliveries++
	m.last = t

	counts := m.counts(got)
	if counts {
		m.counted++
	}
	ended := m.ends(got, counts)
	held := !ended && m.isHeld(got)
	if got.class == "permanent_credentials" && !m.refusesAll(got) {
		m.refusals++
	}
	if got.class == string(ecw.ClassUnknown) && !got.lookingUp {
		m.unknown = out.FinishedAt
	}
	switch {
	case out.Delivery != m.deliveries:
		return fmt.Errorf("delivery %d is recorded as %d", m.deliveries, out.Delivery)
	case out.AttemptCount != m.counted || m.counted > m.max:
		return fmt.Errorf("%d attempts are recorded, want %d of %d", out.AttemptCount, m.counted, m.max)
	case (out.Posted != nil) != (got.class == ""):
		return fmt.Errorf("an acknowledgement is recorded: %t", out.Posted != nil)
	case string(out.Failure.Class) != got.class:
		return fmt.Errorf("recorded as %q, want %q", string(out.Failure.Class), got.class)
	case out.Held != held:
		return fmt.Errorf("recorded as held: %t, want %t", out.Held, held)
	case (out.NextRetryAt != nil) != (!ended && !held):
		return fmt.Errorf("the next try is recorded for %v, want one: %t", out.NextRetryAt, !ended && !held)
	}
	if counts {
		if err := m.keepsApart(got); err != nil {
			return err
		}
	}
	switch {
	case forgotten:
		m.forget(t)
	case ended:
		m.end = got.class
		if got.class == "" {
			m.end = transmitted
		}
	case held:
		m.next, m.waiting = at(t.Add(time.Hour)), true
	default:
		return m.waitsUntil(*out.NextRetryAt, out.FinishedAt, got, counts)
	}
	return nil
}

// counts reports whether a delivery that ended used up one of the attempts: attempts come from the schedule only, and are
// not used up by what is no fault of the reading.
func (m *model) counts(got reply) bool {
	switch {
	case got.class == "", got.class == "permanent_data":
		return true
	case got.class == "throttled", got.notVisible:
		return false
	case got.class == "permanent_credentials":
		return !m.refusesAll(got) && m.refusals == 2 // twice before
	case m.early:
		return got.answers()
	case got.unavailable && m.trial:
		return false
	case got.unavailable && got.lookingUp:
		return got.alone
	}
	return true
}

// refusesAll reports whether eCW refuses us at everything, as far as this delivery can say.
func (m *model) refusesAll(got reply) bool { return got.failsAuth || m.trial || got.refusesUs }

// ends reports whether this is the last delivery.
func (m *model) ends(got reply, counts bool) bool {
	switch got.class {
	case "retryable", "unknown":
		return counts && m.counted == m.max
	}
	return counts
}

// isHeld reports whether the transmission waits in the queue after a delivery that was not the last.
func (m *model) isHeld(got reply) bool {
	switch got.class {
	case "permanent_credentials":
		return m.refusesAll(got)
	case "retryable":
		return m.trial && !m.early && got.unavailable
	}
	return false
}

// keepsApart finds a counted attempt that came before the schedule's wait after the last one was over, though no person
// asked and eCW did not answer it.
func (m *model) keepsApart(got reply) error {
	tooEarly := m.begun.StartedAt.Before(m.free) && !m.askedSince && !got.answers()
	if tooEarly {
		return fmt.Errorf("attempt %d counts, and began %s before the schedule's wait was over", m.counted, m.free.Sub(m.begun.StartedAt))
	}
	m.free, m.askedSince = time.Time{}, false
	return nil
}

// waitsUntil checks the recorded moment of the next delivery.
func (m *model) waitsUntil(next, finished time.Time, got reply, counts bool) error {
	first := finished.Add(m.delays[0])
	var want span
	switch {
	case got.class == "throttled":
		want = at(latest(got.at.Add(got.retryIn), finished.Add(time.Second)))
	case got.notVisible:
		want = at(latest(got.at.Add(got.retryIn), m.scheduled))
	case got.class == "permanent_credentials":
		want = jittered(finished, m.delays[m.refusals-1])
	case counts:
		want = jittered(finished, m.delays[m.counted-1])
		m.free = finished.Add(m.delays[m.counted-1])
	case m.early && got.class == "retryable":
		want = at(latest(finished, m.scheduled))
	case m.early:
		want = at(latest(first, m.scheduled))
	default:
		want = at(first)
	}
	m.waiting, m.next = true, at(latest(next, m.last))
	if counts || next.After(m.scheduled) {
		m.scheduled = next
	}
	return want.check("the recorded retry", next)
}

func jittered(t time.Time, delay time.Duration) span {
	return span{t.Add(delay), t.Add(delay + delay/10)}
}

func (m *model) recordCancelled(t time.Time, out activities.Outcome, forgotten bool) error {
	switch {
	case string(out.Failure.Class) != ClassCancelled:
		return fmt.Errorf("an outcome is recorded of no delivery: %+v", out)
	case m.cancelled.IsZero():
		return fmt.Errorf("recorded as cancelled, which nobody did")
	case m.delivering:
		return fmt.Errorf("recorded as cancelled in the middle of a delivery")
	case out.Delivery != 0 || out.AttemptCount != m.counted || out.Posted != nil || out.NextRetryAt != nil || out.Held:
		return fmt.Errorf("the cancellation is recorded as %+v, with %d attempts made", out, m.counted)
	}
	if err := at(latest(m.cancelled, m.last)).check("the end of a cancelled transmission", t); err != nil {
		return err
	}
	if forgotten {
		m.forget(t)
		return nil
	}
	m.end = ClassCancelled
	return nil
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
	case m.forgotten: // it may have ended already
		m.asked = m.asked || taken
	case m.atOnce:
		if !taken {
			return fmt.Errorf("transmit now is refused, and the workflow has just begun")
		}
		m.askedAtOnce = true
	case m.delivering, m.end != "":
		if taken {
			return fmt.Errorf("transmit now is taken in the middle of a delivery, or after the end")
		}
	case !taken:
		return fmt.Errorf("transmit now is refused while the transmission waits")
	case m.waiting:
		m.asked, m.next, m.scheduled = true, at(t), time.Time{}
	}
	return nil
}

// called is a signal "proceed".
func (m *model) called(t time.Time, call gate.Call) {
	switch {
	case m.delivering:
		m.call = &call // what it means depends on what becomes of the delivery
	case m.waiting && !(m.asked && !m.next.from.After(t)): // unless it begins in this moment
		m.call, m.next = nil, at(t.Add(call.Wait))
	}
}

func (m *model) cancel(t time.Time) {
	if m.cancelled.IsZero() {
		m.cancelled = t
	}
}

// continued is a run that ends and says how the next one begins.
func (m *model) continued(next TransmissionInput) error {
	switch {
	case m.end != "":
		return fmt.Errorf("it continues as new after the end (%s)", m.end)
	case m.delivering:
		return fmt.Errorf("it continues as new in the middle of a delivery")
	case next.Cancelled != !m.cancelled.IsZero():
		return fmt.Errorf("the next run is told that it is cancelled: %t, and that was at %s", next.Cancelled, m.cancelled)
	case next.TransmitNow != m.asked:
		return fmt.Errorf("the next run is told that somebody asks: %t, want %t", next.TransmitNow, m.asked)
	case next.Refusals != m.refusals:
		return fmt.Errorf("the next run is told of %d refusals, want %d", next.Refusals, m.refusals)
	}
	return nil
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
