package workflows

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
)

// life is one transmission in the SDK's test environment, with the model beside it.
type life struct {
	env     *testsuite.TestWorkflowEnvironment
	opened  activities.Opened
	early   []event
	replies []reply
	planned int

	mu    sync.Mutex
	now   reply // given to the last Authenticate
	model model
	story []string
	wrong error // the first thing that must not have happened
}

func newLife(opened activities.Opened) *life {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	l := &life{env: suite.NewTestWorkflowEnvironment(), opened: opened}
	l.model = model{delays: opened.RetryDelays, max: opened.MaxAttempts, counted: opened.AttemptsMade, deliveries: opened.DeliveriesMade}
	l.env.SetTestTimeout(30 * time.Second)
	l.env.RegisterActivity(l.Open)
	l.env.RegisterActivity(l.Transform)
	l.env.RegisterActivity(l.Authenticate)
	l.env.RegisterActivity(l.Post)
	l.env.RegisterActivity(l.Record)
	return l
}

func (l *life) live() error {
	l.env.ExecuteWorkflow(Transmission, testRef)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wrong != nil {
		return l.wrong
	}
	if !l.env.IsWorkflowCompleted() {
		return errors.New("the workflow does not end")
	}
	err := l.env.GetWorkflowError()
	var app *temporal.ApplicationError
	if err != nil && !errors.As(err, &app) {
		return fmt.Errorf("the workflow ended with %w", err)
	}
	if err != nil {
		return l.model.finish(app.Type())
	}
	return l.model.finish("")
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

func (l *life) Open(context.Context, activities.ObservationRef) (activities.Opened, error) {
	return l.opened, nil
}

func (l *life) Transform(context.Context, activities.ObservationRef) (time.Time, error) {
	l.happen(l.early)
	return l.env.Now(), nil
}

func (l *life) Authenticate(_ context.Context, a activities.Attempt) (activities.Admission, error) {
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
	l.tell(fmt.Sprintf("Authenticate delivery %d, attempt %d, place %s, asked %t", a.Delivery, a.Number, a.Place.Format(time.TimeOnly), a.Asked),
		func(t time.Time) error { return l.model.begin(t, a) })
	l.happen(got.during[0])
	l.tell("  "+got.String(), func(t time.Time) error { l.model.answered(t, got); return nil })
	switch {
	case got.held:
		return activities.Admission{Held: true, Reason: "unavailable"}, nil
	case got.failsAuth:
		return activities.Admission{}, got.failure()
	}
	return activities.Admission{Wait: got.wait, Place: got.place, Trial: got.trial}, nil
}

func (l *life) Post(_ context.Context, in activities.PostInput) (activities.Posted, error) {
	l.mu.Lock()
	l.now.at = l.env.Now()
	got := l.now
	l.mu.Unlock()
	l.happen(got.during[1])
	l.tell(fmt.Sprintf("Post delivery %d", in.Delivery), func(t time.Time) error { return l.model.post(t, in, got) })
	return activities.Posted{ECWObservationID: "obs-fhir-98765", HTTPStatus: 201}, got.failure()
}

func (l *life) Record(_ context.Context, out activities.Outcome) (activities.Recorded, error) {
	l.tell(fmt.Sprintf("Record delivery %d, %d attempts, class %q, next %v, held %t", out.Delivery, out.AttemptCount, out.Class, out.NextRetryAt, out.Held),
		func(t time.Time) error { return l.model.record(t, out) })
	l.happen(l.now.during[2])
	return activities.Recorded{}, nil
}

func (a reply) String() string {
	where := "Post"
	if a.failsAuth {
		where = "Authenticate"
	}
	switch {
	case a.held:
		return "held"
	case a.wait > 0:
		return fmt.Sprintf("turn %s comes in %s", a.place.Format(time.TimeOnly), a.wait)
	}
	return fmt.Sprintf("admitted: trial %t, place %s; %s meets class %q, unavailable %t, worker lost %t, not sent %t, goes on in %s",
		a.trial, a.place.Format(time.TimeOnly), where, a.class, a.unavailable, a.lost, a.notSent, a.retryIn)
}

// failure is the error that the real activities give for such an reply.
func (a reply) failure() error {
	f := activities.Failure{Code: "code", Message: "what went wrong", Unavailable: a.unavailable}
	if a.failsAuth {
		f.Place, f.Trial = a.place, a.trial
	}
	if a.retryIn > 0 {
		f.RetryAt = a.at.Add(a.retryIn)
	}
	switch {
	case a.lost:
		return temporal.NewApplicationError("boom", "PanicError")
	case a.notSent && a.retryIn == 0:
		return temporal.NewNonRetryableApplicationError("database away", activities.TypeNotSent, nil)
	case a.notSent:
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
		l.env.UpdateWorkflow(UpdateTransmitNow, "", &asking{l, told})
		return
	case cancelEvent:
		l.tell(e.kind, func(t time.Time) error { l.model.cancel(t); return nil })
		l.env.SignalWorkflow(SignalCancel, nil)
	case cancelRequestEvent:
		l.tell(e.kind, func(t time.Time) error { l.model.cancel(t); return nil })
		l.env.CancelWorkflow()
	case callEvent:
		var call activities.Call
		if e.comesIn > 0 {
			call.ComesAt = l.env.Now().Add(e.comesIn)
			call.Place = call.ComesAt.Truncate(time.Minute).UTC()
		}
		l.tell(fmt.Sprintf("%s, turn comes in %s", e.kind, e.comesIn), func(t time.Time) error { l.model.called(t, call); return nil })
		l.env.SignalWorkflow(SignalProceed, call)
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
