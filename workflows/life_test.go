package workflows

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// life is one transmission in the SDK's test environment, with the model beside it.
type life struct {
	env     *testsuite.TestWorkflowEnvironment // of the present run
	opened  activities.Opened                  // what the database knows
	early   [][]event                          // each time that it starts
	replies []reply
	planned int
	// atOnce is what Deliver meets, call by call; then it does nothing, or it opens the transmission.
	atOnce []reply
	opens  bool
	lost   bool // the first worker was, and Deliver finds nothing of what it may have done
	// forgetsEnd makes the database forget the transmission once when its cancellation is recorded.
	forgetsEnd bool

	status string             // of the transmission in the database
	drawn  map[[2]string]bool // nil, or the changes of status that happened

	mu    sync.Mutex
	now   reply // given to the last Admit
	model model
	story []string
	wrong error // the first thing that must not have happened
}

// live runs the transmission, and whatever it continues as, to the end.
func (l *life) live() error {
	in, now := TransmissionInput{ObservationRef: testRef}, time.Date(2026, 2, 6, 8, 0, 0, 0, time.UTC)
	for {
		l.env = newEnvironment()
		l.env.SetStartTime(now)
		l.env.RegisterActivity(l.Deliver)
		l.env.RegisterActivity(l.Open)
		l.env.RegisterActivity(l.Transform)
		l.env.RegisterActivity(l.Admit)
		l.env.RegisterActivity(l.Authenticate)
		l.env.RegisterActivity(l.Post)
		l.env.RegisterActivity(l.Record)
		l.env.ExecuteWorkflow(Transmission, in)

		var more bool
		var err error
		if in, more, err = l.ended(); !more {
			return err
		}
		now = l.env.Now()
	}
}

// ended judges the end of a run. more is true when it continues as another one, with next.
func (l *life) ended() (next TransmissionInput, more bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wrong != nil {
		return next, false, l.wrong
	}
	if !l.env.IsWorkflowCompleted() {
		return next, false, errors.New("the workflow does not end")
	}
	err = l.env.GetWorkflowError()
	var app *temporal.ApplicationError
	var again *workflow.ContinueAsNewError
	switch {
	case err == nil:
		return next, false, l.model.finish("")
	case errors.As(err, &again):
		l.story = append(l.story, "it continues as new")
		if err := converter.GetDefaultDataConverter().FromPayloads(again.Input, &next); err != nil {
			return next, false, err
		}
		err := l.model.continued(next)
		return next, err == nil, err
	case errors.As(err, &app):
		return next, false, l.model.finish(app.Type())
	}
	return next, false, fmt.Errorf("the workflow ended with %w", err)
}

// tell lets the model judge something that happens now.
func (l *life) tell(what string, judge func(now time.Time) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.env.Now()
	l.story = append(l.story, now.Format("02 15:04:05.000 ")+what)
	if l.wrong == nil {
		l.wrong = judge(now)
	}
}

// Deliver does nothing where the database knows of an earlier delivery.
func (l *life) Deliver(_ context.Context, in activities.DeliverInput) (out activities.FirstDelivery, err error) {
	l.mu.Lock()
	ref, opened := in.ObservationRef, l.opened
	fresh := !ref.LookUp && opened.AttemptsMade == 0 && opened.DeliveriesMade == 0
	if fresh && l.lost && l.model.delays == nil {
		l.mu.Unlock()
		l.tell("Deliver finds nothing", func(t time.Time) error { l.model.lose(t); return nil })
		out.MayBeSent = true
		return out, nil
	}
	if !fresh || len(l.atOnce) == 0 || l.wrong != nil {
		opens := fresh && l.opens && l.model.delays == nil
		l.mu.Unlock()
		if opens {
			l.tell("Deliver opens it", func(t time.Time) error { return l.model.open(t, ref, opened) })
			out.Opened, out.TransformedAt = opened, l.env.Now()
		}
		return out, nil
	}
	got := l.atOnce[0]
	got.at = l.env.Now()
	l.now, l.atOnce = got, l.atOnce[1:]
	l.mu.Unlock()

	l.tell(fmt.Sprintf("Deliver at once, look up %t", ref.LookUp), func(t time.Time) error { return l.model.beginAtOnce(t, ref, opened) })
	l.happen(got.during[0])
	l.later(got.later)
	l.tell(fmt.Sprintf("  %s, recorded %t", got, got.recorded), func(t time.Time) error { return l.model.deliveredAtOnce(t, got) })

	out = activities.FirstDelivery{Opened: opened, TransformedAt: got.at, StartedAt: got.at, Admission: got.admission}
	out.Admission.Trial = got.trial
	switch failed := got.failure(); {
	case got.admission.Waits():
		if got.admission.Held {
			l.becomes(db.StatusPending)
		}
		return out, nil
	case failed == nil:
		out.Posted = &activities.Posted{ECWObservationID: "obs-fhir-98765", HTTPStatus: 201}
		out.Recorded = got.recorded
	default:
		f := activities.Describe(failed)
		out.Failure = &f
		out.NotSent = got.notSent || got.heldBack != nil
	}
	if got.heldBack != nil {
		out.Admission = *got.heldBack
		return out, nil
	}
	out.Authenticated = !got.failsAuth
	l.becomes(db.StatusProcessing)
	l.keep(func(o *activities.Opened) { o.DeliveriesMade = 1 })
	if out.Recorded {
		l.becomes(db.StatusTransmitted)
	}
	return out, nil
}

func (l *life) Open(_ context.Context, ref activities.ObservationRef) (activities.Opened, error) {
	l.mu.Lock()
	opened := l.opened
	l.mu.Unlock()
	l.tell(fmt.Sprintf("Open, look up %t, unknown since %s: %d attempts in %d deliveries, due %s",
		ref.LookUp, ref.UnknownSince.Format(time.TimeOnly), opened.AttemptsMade, opened.DeliveriesMade, opened.Due.Format("02 15:04:05.000")),
		func(t time.Time) error { return l.model.open(t, ref, opened) })
	return opened, nil
}

func (l *life) Transform(context.Context, activities.ObservationRef) (time.Time, error) {
	l.mu.Lock()
	var early []event
	if len(l.early) > 0 {
		early, l.early = l.early[0], l.early[1:]
	}
	l.mu.Unlock()
	l.happen(early)
	return l.env.Now(), nil
}

func (l *life) Admit(_ context.Context, a activities.Attempt) (activities.Admission, error) {
	l.mu.Lock()
	l.now = reply{}
	if len(l.replies) > 0 {
		l.now, l.replies = l.replies[0], l.replies[1:]
	}
	if l.wrong != nil { // enough is known: let it end
		l.now = reply{failsAuth: true, class: "permanent_data"}
	}
	l.now.at = l.env.Now()
	got := l.now
	l.mu.Unlock()
	l.later(got.later)
	l.tell(fmt.Sprintf("Admit delivery %d, attempt %d, asked %t", a.Delivery, a.Number, a.Asked),
		func(t time.Time) error { return l.model.begin(t, a) })
	l.happen(got.during[0])
	l.tell("  "+got.String(), func(t time.Time) error { l.model.answered(t, got); return nil })
	switch {
	case got.forgotten == inAdmit:
		return activities.Admission{}, l.forget(got)
	case got.admission.Waits():
		if got.admission.Held {
			l.becomes(db.StatusPending)
			l.keep(func(o *activities.Opened) { o.Due = time.Time{} })
		}
		return got.admission, nil
	}
	l.becomes(db.StatusProcessing)
	l.keep(func(o *activities.Opened) { o.Due, o.DeliveriesMade = time.Time{}, a.Delivery })
	return activities.Admission{Trial: got.trial}, nil
}

func (l *life) Authenticate(_ context.Context, a activities.Attempt) error {
	l.mu.Lock()
	l.now.at = l.env.Now()
	got := l.now
	l.mu.Unlock()
	l.tell(fmt.Sprintf("Authenticate delivery %d", a.Delivery), func(t time.Time) error { return l.model.authenticate(t, a, got) })
	if got.heldBack != nil {
		l.keep(func(o *activities.Opened) { o.DeliveriesMade = a.Delivery - 1 })
	}
	if got.failsAuth {
		return got.failure()
	}
	return nil
}

func (l *life) Post(_ context.Context, in activities.PostInput) (activities.Posted, error) {
	l.mu.Lock()
	l.now.at = l.env.Now()
	got := l.now
	l.mu.Unlock()
	l.happen(got.during[1])
	l.tell(fmt.Sprintf("Post delivery %d, look up %t, unknown since %s", in.Delivery, in.LookUp, in.UnknownSince.Format(time.TimeOnly)),
		func(t time.Time) error { return l.model.post(t, in, got) })
	if got.forgotten == inPost {
		return activities.Posted{}, l.forget(got)
	}
	return activities.Posted{ECWObservationID: "obs-fhir-98765", HTTPStatus: 201}, got.failure()
}

func (l *life) Record(_ context.Context, out activities.Outcome) (activities.Recorded, error) {
	l.mu.Lock()
	got := l.now
	l.now.forgotten = "" // once is enough
	forgotten := got.forgotten == inRecord
	if out.Delivery == 0 {
		forgotten, l.forgetsEnd = l.forgetsEnd, false
	}
	forgotten = forgotten && l.wrong == nil
	l.mu.Unlock()
	what := fmt.Sprintf("Record delivery %d, %d attempts, class %q, held %t", out.Delivery, out.AttemptCount, string(out.Failure.Class), out.Held)
	if out.NextRetryAt != nil {
		what += out.NextRetryAt.Format(", next 02 15:04:05.000")
	}
	if forgotten {
		what += ": forgotten"
	}
	l.tell(what, func(t time.Time) error { return l.model.record(t, out, forgotten) })
	l.happen(got.during[2])
	if forgotten {
		return activities.Recorded{}, l.forget(got)
	}
	l.becomes(out.Status)
	l.keep(func(o *activities.Opened) {
		o.AttemptsMade, o.Due = out.AttemptCount, time.Time{}
		if out.Delivery > 0 {
			o.DeliveriesMade = out.Delivery
		}
		if out.NextRetryAt != nil {
			o.Due = *out.NextRetryAt
		}
	})
	return activities.Recorded{}, nil
}

// becomes is a change of the transmission's status in the database.
func (l *life) becomes(status string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status == "" {
		l.status = db.StatusPending
	}
	if l.drawn != nil && l.status != status {
		l.drawn[[2]string{l.status, status}] = true
	}
	l.status = status
}

// keep changes what the database knows of the transmission.
func (l *life) keep(change func(*activities.Opened)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.opened)
}

// forget is the error of a database that does not know the transmission. It may know an older state of it.
func (l *life) forget(got reply) error {
	if got.forgetsAll {
		l.keep(func(o *activities.Opened) { o.AttemptsMade, o.DeliveriesMade, o.Due = 0, 0, time.Time{} })
	}
	return temporal.NewNonRetryableApplicationError("not in the database", activities.TypeForgotten, nil)
}

func (a reply) String() string {
	switch {
	case a.admission.Held:
		return "held"
	case a.admission.Scheduled:
		return "back to its moment in the schedule"
	case a.forgotten == inAdmit:
		return "forgotten"
	}
	where := "Post"
	if a.failsAuth {
		where = "Authenticate"
	}
	story := fmt.Sprintf("admitted, trial %t; %s meets class %q", a.trial, where, a.class)
	for word, is := range map[string]bool{
		"unavailable": a.unavailable, "looking up": a.lookingUp, "alone": a.alone, "refuses us": a.refusesUs, "not visible yet": a.notVisible,
		"worker lost": a.lost, "not sent": a.notSent, "held back": a.heldBack != nil, "forgotten": a.forgotten == inPost,
	} {
		if is {
			story += ", " + word
		}
	}
	return fmt.Sprintf("%s, goes on in %s", story, a.retryIn)
}

// answers reports whether eCW answered, whatever it said.
func (a reply) answers() bool {
	return a.class != string(ecw.ClassUnknown) && !a.unavailable
}

// failure is the error that the real activities give for such a reply.
func (a reply) failure() error {
	f := activities.Failure{
		Code:      "code",
		Message:   "what went wrong",
		LookingUp: a.lookingUp,
		Alone:     a.alone,
		HeldBack:  a.heldBack,
	}
	switch {
	case a.refusesUs:
		f.Finding = gate.Refuses
	case a.unavailable:
		f.Finding = gate.Unavailable
	case a.class == string(ecw.ClassPermanentCredentials):
		f.Finding = gate.Forbids
	}
	if a.notVisible {
		f.Code = activities.CodeNotVisibleYet
	}
	if a.retryIn > 0 {
		f.RetryAt = a.at.Add(a.retryIn)
	}
	switch {
	case a.lost:
		return temporal.NewApplicationError("boom", "PanicError")
	case a.notSent:
		return temporal.NewNonRetryableApplicationError("database away", activities.TypeNotSent, nil)
	case a.heldBack != nil:
		return refusal(activities.TypeNotSent, f)
	case a.class != "":
		return refusal(ecw.Class(a.class), f)
	}
	return nil
}

// later lets events happen at seconds of their own, so that it is certain whether they or what is due comes first. The
// environment's clock stands still while activities run, unless they take longer than it is until the next event.
func (l *life) later(events []event) {
	for _, e := range events {
		l.planned++
		own := time.Second + time.Duration(l.planned*l.planned*l.planned*7919%48611)*time.Millisecond
		l.env.RegisterDelayedCallback(func() { l.do(e, nil) }, e.after+own)
	}
}

// happen lets events happen while an activity runs, and returns when the workflow has met them.
func (l *life) happen(events []event) {
	for _, e := range events {
		met := make(chan struct{})
		l.env.RegisterDelayedCallback(func() { l.do(e, func() { close(met) }) }, 0)
		<-met
	}
}

// do lets an event happen, and calls met, if not nil, when the workflow has been told.
func (l *life) do(e event, met func()) {
	told := func() {
		if met != nil {
			met()
		}
	}
	switch e.kind {
	case askEvent:
		l.env.UpdateWorkflow(UpdateTransmitNow, "", &asking{l, told}, Request{})
		return
	case cancelEvent:
		l.tell(e.kind, func(t time.Time) error { l.model.cancel(t); return nil })
		l.env.SignalWorkflow(SignalCancel, nil)
	case cancelRequestEvent:
		l.tell(e.kind, func(t time.Time) error { l.model.cancel(t); return nil })
		l.env.CancelWorkflow()
	case callEvent:
		call := gate.Call{Wait: e.wait}
		l.tell(fmt.Sprintf("%s, in %s", e.kind, e.wait), func(t time.Time) error { l.model.called(t, call); return nil })
		l.env.SignalWorkflow(SignalProceed, call)
	case longHistoryEvent:
		l.tell(e.kind, func(time.Time) error { return nil })
		l.env.SetContinueAsNewSuggested(true)
	}
	l.env.RegisterDelayedCallback(told, 0) // after the signal
}

// asking is an update "transmit now" on its way.
type asking struct {
	l    *life
	told func()
}

func (a *asking) Accept() {
	a.l.tell(askEvent, func(t time.Time) error { return a.l.model.ask(t, true) })
	a.told()
}

func (a *asking) Reject(error) {
	a.l.tell(askEvent+", refused", func(t time.Time) error { return a.l.model.ask(t, false) })
	a.told()
}

func (a *asking) Complete(any, error) {}
