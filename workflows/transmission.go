// Package workflows holds deterministic code only: what happens in which order, and when. Everything that touches the
// outside world is an activity.
package workflows

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/payload"
)

// The updates that a Transmission takes while it runs; both take a Request and answer with a TransmissionState. They are
// refused with the error type ErrInProgress while a delivery is under way.
const (
	// UpdateTransmitNow delivers a waiting transmission now, ahead of its schedule.
	UpdateTransmitNow = "transmit now"
	// UpdateTransform makes the FHIR resource anew, for the next delivery.
	UpdateTransform = "transform"
)

// SignalCancel ends a transmission for good: it is recorded as failed, with the class ClassCancelled. A delivery that is
// under way is finished first, and counts when it succeeds. Its argument is a Request.
const SignalCancel = "cancel"

// SignalProceed tells a waiting transmission that it may go, or tries it as the trial of the circuit; its argument is a
// gate.Call.
const SignalProceed = "proceed"

// ErrInProgress is the type of the error that refuses an update while a delivery is under way.
const ErrInProgress = "in_progress"

// ClassCancelled is the error class of a transmission that a person cancelled.
const ClassCancelled = "cancelled"

// TransmissionWorkflowID is the id of the one workflow that may carry an observation at a time.
func TransmissionWorkflowID(observationID uuid.UUID) string {
	return "transmission/" + observationID.String()
}

// TransmissionState answers an update, and is the result of a finished workflow.
type TransmissionState struct {
	TransmissionID string
	TransformedAt  time.Time
}

// Request says who asks a workflow for something. The Temporal Web UI sends none.
type Request struct {
	// By is the subject of the caller, an id.
	By string `json:",omitempty"`
}

// details is a paragraph for the Temporal Web UI; "" when nobody said who asks.
func (r Request) details() string {
	if r.By == "" {
		return ""
	}
	return fmt.Sprintf("\n\nAsked for by `%s`.", r.By)
}

type phase int

const (
	starting phase = iota
	delivering
	waiting
	finished
)

// transmission is the state of one run of the workflow.
type transmission struct {
	do          *activities.Transmission // nil: it only names the methods, the worker holds the real one
	ref         activities.ObservationRef
	first       bool // nothing was ever sent for the observation, nor done step by step
	opened      activities.Opened
	transformed time.Time
	phase       phase
	delivery    int // counts every delivery begun
	attempt     int // counts those that used up one of the allowed attempts

	due           time.Time // that the schedule has given the next delivery; in the past when that is late
	authenticated bool      // in this delivery
	refusals      int       // counts how often eCW refused us at this reading while it took others

	called      *gate.Call
	transmitNow bool
	asked       bool // a person wants the delivery that is under way, or begins again because nothing of it was sent
	cancelled   bool
	wanted      Request // who asked for a delivery last, or cancelled
}

// TransmissionInput names the observation, and holds what an earlier run of the same workflow hands on.
type TransmissionInput struct {
	activities.ObservationRef
	// Refusals counts how often eCW refused us at this reading while it took others.
	Refusals int `json:",omitempty"`
	// TransmitNow means that a person wants the next delivery now.
	TransmitNow bool `json:",omitempty"`
	// Cancelled means that a person has ended the transmission, which is not recorded yet.
	Cancelled bool `json:",omitempty"`
	// Request says who asked for the delivery, or cancelled.
	Request
}

// errAgain ends a run that continues as a new one.
var errAgain = errors.New("it continues as new")

// Transmission carries one observation into the EHR: Transform, then Admit, Authenticate and Post until eCW acknowledges it,
// with the schedule's waits in between. It fails when a person has to act, with the error class as the error's type.
func Transmission(ctx workflow.Context, in TransmissionInput) (TransmissionState, error) {
	t := &transmission{
		ref:         in.ObservationRef,
		first:       !in.LookUp,
		refusals:    in.Refusals,
		transmitNow: in.TransmitNow,
		cancelled:   in.Cancelled,
		wanted:      in.Request,
	}
	if err := t.takeUpdates(ctx); err != nil {
		return TransmissionState{}, err
	}
	t.takeSignals(ctx)
	err := t.run(ctx)
	t.phase = finished
	settled, _ := workflow.NewDisconnectedContext(ctx)
	// A goroutine of takeSignals that has just been given a signal has not run yet; this one runs after it.
	noted := false
	workflow.Go(settled, func(workflow.Context) { noted = true })
	if awaitErr := workflow.Await(settled, func() bool { return noted && workflow.AllHandlersFinished(settled) }); err == nil {
		err = awaitErr
	}
	t.drain(ctx)
	if errors.Is(err, errAgain) {
		err = t.again(ctx)
	}
	return t.state(), err
}

func (t *transmission) state() TransmissionState {
	return TransmissionState{TransmissionID: t.opened.Number, TransformedAt: t.transformed}
}

// run does everything but the waits in a context of its own: work that has begun is finished and recorded even when the
// workflow is cancelled meanwhile.
func (t *transmission) run(ctx workflow.Context) error {
	work, _ := workflow.NewDisconnectedContext(ctx)
	if wasReset(ctx) {
		t.ref.LookUp = true
	}
	err := t.carry(ctx, work)
	if isForgotten(err) { // the next run opens what the database does know
		t.ref.UnknownSince = workflow.Now(ctx)
		return errAgain
	}
	return err
}

// isForgotten reports whether an activity found that the database does not know the transmission.
func isForgotten(err error) bool { return isOfType(err, activities.TypeForgotten) }

func isOfType(err error, typ string) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.Type() == typ
}

// wasReset reports whether a person has reset the workflow: what it did after that point is not in its history any more.
func wasReset(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	return info.OriginalRunID != "" && info.OriginalRunID != info.WorkflowExecution.RunID
}

// again starts another run that opens the transmission anew: what it waits for stands in the database, and what people want
// of it is handed on. Something may have been sent by now.
func (t *transmission) again(ctx workflow.Context) error {
	next := TransmissionInput{
		ObservationRef: t.ref,
		Refusals:       t.refusals,
		TransmitNow:    t.transmitNow || t.asked,
		Cancelled:      t.cancelled || ctx.Err() != nil,
		Request:        t.wanted,
	}
	next.LookUp = true
	if next.TransmitNow {
		next.Unasked = false
	}
	return workflow.NewContinueAsNewError(ctx, Transmission, next)
}

func (t *transmission) carry(ctx, work workflow.Context) error {
	next, done, err := t.begin(ctx, work)
	if err != nil || done {
		return err
	}
	for {
		if next != nil {
			t.wait(ctx, *next)
		}
		if t.cancelled || ctx.Err() != nil {
			return t.cancel(work)
		}
		next, err = t.deliver(work)
		if err != nil || next == nil {
			return err
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() { // eCW can throttle for days, and the database be away
			return errAgain
		}
	}
}

// begin makes the first delivery, or opens the transmission for the deliveries to come. It returns what to wait for before the
// next delivery, or that nothing is left to do.
func (t *transmission) begin(ctx, work workflow.Context) (next *pause, done bool, err error) {
	if t.first && !isCancelled(ctx) {
		next, begun, err := t.deliverAtOnce(work)
		if err != nil || begun {
			return next, next == nil, err
		}
	}
	t.first = false
	if t.opened.TransmissionID != uuid.Nil {
		return nil, false, nil
	}

	if err := t.open(work); err != nil || t.opened.Delivered || t.opened.LeftAlone {
		return nil, true, err
	}
	if err := t.transform(work); err != nil {
		return nil, true, t.refuse(work, err)
	}
	if t.called != nil || t.due.After(workflow.Now(ctx)) { // what another run, or a lost one, waited for
		t.phase = waiting
		next = &pause{until: t.due, summary: "until its next delivery is due"}
	}
	return next, false, nil
}

// isCancelled reports whether a person cancelled the transmission before it began.
func isCancelled(ctx workflow.Context) bool {
	return ctx.Err() != nil || workflow.GetSignalChannel(ctx, SignalCancel).Len() > 0
}

// deliverAtOnce makes the first delivery within one workflow task. begun is false when it could not: then it goes step by step.
func (t *transmission) deliverAtOnce(ctx workflow.Context) (next *pause, begun bool, err error) {
	var first activities.FirstDelivery
	in := activities.DeliverInput{ObservationRef: t.ref, At: workflow.Now(ctx), Again: t.phase == starting && wasGivenOut(ctx)}
	err = workflow.ExecuteLocalActivity(inThisTask(ctx, "attempt 1"), t.do.Deliver, in).Get(ctx, &first)
	if first.MayBeSent {
		t.ref.LookUp, t.ref.UnknownSince = true, workflow.Now(ctx)
	}
	if err != nil || first.Opened.TransmissionID == uuid.Nil { // step by step, the fault shows
		t.first = false
		return nil, false, nil
	}

	t.opened, t.transformed = first.Opened, first.TransformedAt
	if !first.Begun() {
		t.first = false
		return nil, false, nil
	}
	t.phase, t.delivery, t.attempt = delivering, 1, 1
	switch {
	case first.Admission.Waits():
		next, err = t.putOff(ctx, first.Admission)
		return next, true, err
	case first.NotSent:
		t.first = false
		next, err = t.beginAgain(ctx)
		return next, true, err
	}

	t.authenticated = first.Authenticated
	t.transmitNow = false // who wanted it now has it
	next, err = t.conclude(ctx, conclusion{
		startedAt: first.StartedAt,
		trial:     first.Admission.Trial,
		posted:    first.Posted,
		failure:   first.Failure,
		recorded:  first.Recorded,
	})
	return next, true, err
}

// wasGivenOut reports whether this is not the first time that a worker begins the workflow. It is for a local activity only:
// the answer is another one in a replay.
func wasGivenOut(ctx workflow.Context) bool {
	const begun = 3 // events: the workflow has started, its first task is scheduled and has started
	return workflow.IsReplaying(ctx) || workflow.GetInfo(ctx).GetCurrentHistoryLength() > begun
}

func (t *transmission) open(ctx workflow.Context) error {
	err := workflow.ExecuteActivity(untilDone(ctx, "open the transmission"), t.do.Open, t.ref).Get(ctx, &t.opened)
	if err != nil {
		return err
	}
	t.delivery, t.attempt, t.due = t.opened.DeliveriesMade, t.opened.AttemptsMade, t.opened.Due
	return t.showOpened(ctx)
}

// transform makes the resource to deliver, at first and whenever an update asks for it.
func (t *transmission) transform(ctx workflow.Context) error {
	return workflow.ExecuteActivity(untilDone(ctx, "make the FHIR resource"), t.do.Transform, t.ref).Get(ctx, &t.transformed)
}

// refuse ends the transmission of a reading that makes no valid Observation.
func (t *transmission) refuse(ctx workflow.Context, cause error) error {
	out := t.ended(ctx, activities.Describe(cause))
	if err := t.record(ctx, out); err != nil {
		return err
	}
	return t.permanent(out)
}

// outcome is what is recorded of something that ends now.
func (t *transmission) outcome(ctx workflow.Context) activities.Outcome {
	return activities.Outcome{ObservationRef: t.ref, TransmissionID: t.opened.TransmissionID, FinishedAt: workflow.Now(ctx)}
}

// ended is the outcome of a transmission that ends with no delivery under way.
func (t *transmission) ended(ctx workflow.Context, failure activities.Failure) activities.Outcome {
	out := t.outcome(ctx)
	out.Failure = failure
	out.Verdict = activities.Verdict{Status: db.StatusFailed, AttemptCount: t.attempt, Finding: gate.NotAsked}
	return out
}

// deliver makes one delivery and records its outcome. It returns what to wait for before the next one; nil when eCW has
// the observation. Its error ends the transmission.
func (t *transmission) deliver(ctx workflow.Context) (*pause, error) {
	if t.transmitNow {
		t.asked, t.due = true, time.Time{} // the schedule goes on from here
	}
	t.phase, t.transmitNow, t.called = delivering, false, nil
	if t.first && t.delivery == 0 && !t.asked {
		next, begun, err := t.deliverAtOnce(ctx)
		if err != nil || begun {
			return next, err
		}
	}

	early := t.due.After(workflow.Now(ctx))
	t.delivery++
	t.attempt++
	if err := t.showDelivering(ctx); err != nil {
		return nil, err
	}

	startedAt := workflow.Now(ctx)
	posted, admission, err := t.send(ctx)
	switch {
	case isForgotten(err):
		return nil, err
	case admission.Waits():
		return t.putOff(ctx, admission)
	case isOfType(err, activities.TypeNotSent), isOfType(err, payload.TypeUnopened):
		return t.beginAgain(ctx)
	}

	c := conclusion{startedAt: startedAt, early: early, trial: admission.Trial}
	if err == nil {
		c.posted = &posted
	} else {
		f := activities.Describe(err)
		c.failure = &f
	}
	return t.conclude(ctx, c)
}

// conclusion is how a delivery has ended.
type conclusion struct {
	startedAt time.Time
	early     bool // it began before the moment that the schedule had given it
	trial     bool // it was to decide whether the circuit closes
	posted    *activities.Posted
	failure   *activities.Failure // when it was not posted
	recorded  bool                // the outcome stands in the database already
}

// conclude records the outcome of a delivery. It returns what to wait for before the next one; nil when eCW has the
// observation. Its error ends the transmission.
func (t *transmission) conclude(ctx workflow.Context, c conclusion) (*pause, error) {
	t.asked = false
	t.called = nil // a call that came meanwhile meant this delivery
	out := t.outcome(ctx)
	out.Delivery, out.StartedAt, out.Posted = t.delivery, c.startedAt, c.posted
	if c.failure != nil {
		out.Failure = *c.failure
	}
	out.Verdict = t.apply(judge(t.standing(out, c.early, c.trial), c.failure), out)
	if out.NextRetryAt != nil || out.Held {
		t.phase = waiting // from here on "transmit now" has something to shorten
	}

	if c.recorded {
		return nil, t.showOutcome(ctx, out)
	}
	if err := t.record(ctx, out); err != nil || out.Posted != nil {
		return nil, err
	}
	switch {
	case out.Held:
		return t.held(ctx), nil
	case out.NextRetryAt == nil:
		return nil, t.permanent(out)
	}
	return &pause{until: *out.NextRetryAt, summary: t.retrySummary(out)}, nil
}

// send asks the gate, authenticates and posts. Nothing was sent when the admission is to wait.
func (t *transmission) send(ctx workflow.Context) (posted activities.Posted, admission activities.Admission, err error) {
	try := fmt.Sprintf("attempt %d of %d", t.attempt, t.opened.MaxAttempts)
	attempt := activities.Attempt{
		ObservationRef: t.ref,
		TransmissionID: t.opened.TransmissionID,
		Delivery:       t.delivery,
		Number:         t.attempt,
		StartedAt:      workflow.Now(ctx),
		Asked:          t.asked,
	}
	err = workflow.ExecuteActivity(untilDone(ctx, try), t.do.Admit, attempt).Get(ctx, &admission)
	if err != nil || admission.Waits() {
		return posted, admission, err
	}
	err = workflow.ExecuteActivity(untilAuthenticated(ctx, try), t.do.Authenticate, attempt).Get(ctx, nil)
	if t.authenticated = err == nil; t.authenticated {
		err = workflow.ExecuteActivity(once(ctx, try), t.do.Post, t.post(ctx)).Get(ctx, &posted)
	}
	if isOfType(err, activities.TypeNotSent) {
		if f := activities.Describe(err); f.HeldBack != nil { // our own limits held it back
			admission = *f.HeldBack
		}
	}
	return posted, admission, err
}

func (t *transmission) post(ctx workflow.Context) activities.PostInput {
	in := activities.PostInput{
		ObservationRef: t.ref,
		TransmissionID: t.opened.TransmissionID,
		Delivery:       t.delivery,
		At:             workflow.Now(ctx),
		Asked:          t.asked,
	}
	in.LookUp = in.LookUp || t.opened.DeliveriesMade > 0 || t.delivery > 1
	return in
}

// beginAgain takes a delivery back of which nothing left for eCW: it begins again in a moment, as the same one.
func (t *transmission) beginAgain(ctx workflow.Context) (*pause, error) {
	t.takeBack()
	until := workflow.Now(ctx).Add(notSentPause)
	next := &pause{until: until, summary: "until the delivery begins again, of which nothing was sent"}
	return next, t.showScheduled(ctx, db.StatusPending, until)
}

// takeBack makes a delivery no attempt that was never sent.
func (t *transmission) takeBack() {
	t.delivery--
	t.attempt--
	t.phase = waiting
}

// putOff takes a delivery back that could not begin.
func (t *transmission) putOff(ctx workflow.Context, a activities.Admission) (*pause, error) {
	t.takeBack()
	t.asked = false // the queue knows
	if a.Held {
		return t.held(ctx), t.showHeld(ctx, a.Reason)
	}
	until := t.due
	if soonest := workflow.Now(ctx).Add(notSentPause); until.Before(soonest) { // the database's clock is behind ours
		until = soonest
	}
	return &pause{until: until, summary: "until its next delivery is due"}, t.showScheduled(ctx, db.StatusFailed, until)
}

// standing is where the transmission stands when a delivery has ended. early means that the delivery began before the moment
// that the schedule had given it, trial that it was to decide whether the circuit closes.
func (t *transmission) standing(out activities.Outcome, early, trial bool) delivered {
	return delivered{
		transmissionID: t.opened.TransmissionID,
		retryDelays:    t.opened.RetryDelays,
		maxAttempts:    t.opened.MaxAttempts,
		attempts:       t.attempt - 1,
		refusals:       t.refusals,
		due:            t.due,
		early:          early,
		trial:          trial,
		authenticated:  t.authenticated,
		finishedAt:     out.FinishedAt,
	}
}

// apply takes over where a ruling leaves the transmission.
func (t *transmission) apply(r ruling, out activities.Outcome) activities.Verdict {
	t.attempt, t.refusals, t.due = r.AttemptCount, r.refusals, r.due
	if r.unknown {
		t.ref.UnknownSince = out.FinishedAt
	}
	return r.Verdict
}

// cancel records that a person ended the transmission. The attempts made stay as they were recorded.
func (t *transmission) cancel(ctx workflow.Context) error {
	t.phase = finished
	who := "a person"
	if t.wanted.By != "" {
		who = t.wanted.By
	}
	out := t.ended(ctx, activities.Failure{Class: ClassCancelled, Code: ClassCancelled, Message: "Cancelled by " + who})
	if err := t.record(ctx, out); err != nil {
		return err
	}
	return t.permanent(out)
}

func (t *transmission) record(ctx workflow.Context, out activities.Outcome) error {
	var recorded activities.Recorded
	if err := workflow.ExecuteActivity(untilDone(ctx, "record the outcome"), t.do.Record, out).Get(ctx, &recorded); err != nil {
		return err
	}
	attendCircuit(ctx, t.ref.PracticeCode, recorded)
	return t.showOutcome(ctx, out)
}

func (t *transmission) permanent(out activities.Outcome) error {
	message := t.opened.Number + " failed permanently: " + out.Failure.Message
	return temporal.NewNonRetryableApplicationError(message, string(out.Failure.Class), nil)
}
