package workflows

import (
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// delivered is what judge looks at: one delivery that has ended, and where its transmission stands.
type delivered struct {
	transmissionID uuid.UUID
	retryDelays    []time.Duration
	maxAttempts    int

	attempts      int       // of the allowed ones, used up before this delivery
	refusals      int       // of our credentials at this reading alone, before this delivery
	due           time.Time // when the schedule wanted the delivery to begin
	early         bool      // it began before that moment
	trial         bool      // it was to decide whether the circuit closes
	authenticated bool      // eCW gave it an access token
	finishedAt    time.Time
}

// ruling is what follows from a delivery: what is recorded of it, and where the transmission stands then.
type ruling struct {
	activities.Verdict
	refusals int
	due      time.Time
	unknown  bool // something may have been sent just now, with an unknown outcome
}

// judge says what an answer of eCW, or the lack of one, means for the transmission and for the circuit. No other place
// decides that. failure is nil when eCW acknowledged the reading.
func judge(d delivered, failure *activities.Failure) ruling {
	r := ruling{refusals: d.refusals, due: d.due}
	if failure == nil {
		r.Status, r.AttemptCount, r.Finding = db.StatusTransmitted, d.attempts+1, gate.Answers
		return r
	}

	f := *failure
	r.unknown = f.Class == ecw.ClassUnknown && !f.LookingUp
	counts := r.schedule(d, f)
	r.AttemptCount = d.attempts
	if counts {
		r.AttemptCount++
	}
	r.Status = statusAfter(r.Verdict, f)
	r.Finding = finding(r.Verdict, f)
	if r.Held {
		r.HeldFor = heldFor(f)
	}
	if r.NextRetryAt != nil && r.NextRetryAt.After(r.due) {
		r.due = *r.NextRetryAt // the database holds this moment, and the gate sends an early delivery back to it
	}
	return r
}

// schedule decides when the next delivery may start, and reports whether this one was an attempt: attempts come from the
// schedule only, and are not used up by what is no fault of the reading.
func (r *ruling) schedule(d delivered, f activities.Failure) (counts bool) {
	unavailable := f.Finding == gate.Unavailable
	switch {
	case f.Class == ecw.ClassPermanentData:
		return true

	case f.Class == ecw.ClassPermanentCredentials:
		return r.scheduleRefused(d, f)

	case f.Class == ecw.ClassThrottled:
		r.retryAt(later(d.finishedAt.Add(throttlePause), f.RetryAt))
		return false

	case f.Code == activities.CodeNotVisibleYet:
		r.retryAt(later(d.due, f.RetryAt))
		return false

	case d.early && (f.Class == ecw.ClassUnknown || unavailable):
		r.retryAt(later(d.due, resendAt(d, f)))
		return false

	case d.trial && unavailable && f.Class != ecw.ClassUnknown:
		r.Held = true // it was let through to see whether the outage is over
		return false

	case d.trial && unavailable, f.LookingUp && unavailable && !f.Alone:
		r.retryAt(d.finishedAt.Add(d.retryDelays[0]))
		return false
	}

	delay, ok := retryDelay(d.retryDelays, d.transmissionID, d.attempts+1, d.maxAttempts)
	if ok {
		r.retryAt(d.finishedAt.Add(delay))
		r.due = *r.NextRetryAt
	}
	return true
}

// scheduleRefused holds the transmission while eCW refuses us at everything. Where eCW gave us a token and forbids this
// reading with it, the schedule's first waits tell whether that is the reading's fault; if eCW forbids others too, the
// circuit opens meanwhile.
func (r *ruling) scheduleRefused(d delivered, f activities.Failure) (counts bool) {
	if !d.authenticated || d.trial || f.Finding == gate.Refuses {
		r.Held = true
		return false
	}

	r.refusals++
	delay, ok := retryDelay(d.retryDelays, d.transmissionID, r.refusals, maxRefusals)
	if !ok {
		return true
	}
	r.retryAt(d.finishedAt.Add(delay))
	return false
}

func (r *ruling) retryAt(at time.Time) { r.NextRetryAt = &at }

// resendAt is when the reading may be sent again that this delivery may have sent.
func resendAt(d delivered, f activities.Failure) time.Time {
	if f.Class != ecw.ClassUnknown {
		return d.finishedAt
	}
	return d.finishedAt.Add(d.retryDelays[0])
}

// statusAfter is the status of a transmission after a delivery that eCW did not acknowledge: a retry that is eCW's wish, and
// not the reading's fault, is pending.
func statusAfter(v activities.Verdict, f activities.Failure) string {
	switch {
	case v.Held, f.Class == ecw.ClassThrottled:
		return db.StatusPending
	case f.Class == ecw.ClassPermanentCredentials && !v.Final():
		return db.StatusPending
	default:
		return db.StatusFailed
	}
}

// finding is what the failure of a delivery says about eCW itself.
func finding(v activities.Verdict, f activities.Failure) gate.Finding {
	switch {
	case f.Finding == gate.Forbids && v.Final():
		return gate.Nothing // eCW takes other readings: it forbids this one only
	case f.Finding == gate.Nothing && f.HTTPStatus == 0 && v.Final():
		return gate.NotAsked
	default:
		return f.Finding
	}
}

// heldFor is the reason for which a transmission is held after a failure.
func heldFor(f activities.Failure) string {
	if f.Class == ecw.ClassPermanentCredentials {
		return gate.ReasonCredentials
	}
	return gate.ReasonUnavailable
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
