package workflows

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/payload"
)

// world stands in for the activities: it answers deliveries from a list, the last answer again and again, and keeps
// what it was told. The real activities run in the tests of package worker.
type world struct {
	env       *testsuite.TestWorkflowEnvironment
	opened    activities.Opened
	transform []error
	auth      []error
	post      []error
	record    []error

	beforeRecord func() // if not nil, happens while Record runs

	mu       sync.Mutex
	admit    []activities.Admission
	recorded activities.Recorded
	refs     []activities.ObservationRef // that were opened
	asked    []activities.Attempt        // that asked for admission
	attempts []activities.Attempt        // that were admitted
	posts    []activities.PostInput
	outcomes []activities.Outcome
}

var testRef = activities.ObservationRef{PracticeCode: "FFHEDD", ObservationID: uuid.MustParse("d4e5f6a7-b8c9-0123-defa-234567890123")}

var testTransmission = uuid.MustParse("019c3210-7a5b-7c44-9d1e-5f60718293a4")

func newWorld(t *testing.T) *world {
	w := &world{env: newEnvironment()}
	w.opened = activities.Opened{TransmissionID: testTransmission, Number: "TXN-2026-08830", MaxAttempts: 6, RetryDelays: documentedDelays}
	w.env.RegisterActivity(w.Open)
	w.env.RegisterActivity(w.Transform)
	w.env.RegisterActivity(w.Admit)
	w.env.RegisterActivity(w.Authenticate)
	w.env.RegisterActivity(w.Post)
	w.env.RegisterActivity(w.Record)
	return w
}

func (w *world) run(t *testing.T) (TransmissionState, error) {
	t.Helper()
	w.env.ExecuteWorkflow(Transmission, TransmissionInput{ObservationRef: testRef})
	if !w.env.IsWorkflowCompleted() {
		t.Fatal("the workflow has not ended")
	}
	if err := w.env.GetWorkflowError(); err != nil {
		return TransmissionState{}, err
	}
	var state TransmissionState
	if err := w.env.GetWorkflowResult(&state); err != nil {
		t.Fatal(err)
	}
	return state, nil
}

func (w *world) Open(_ context.Context, ref activities.ObservationRef) (activities.Opened, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refs = append(w.refs, ref)
	return w.opened, nil
}

func (w *world) Transform(context.Context, activities.ObservationRef) (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.env.Now(), take(&w.transform)
}

func (w *world) Admit(_ context.Context, a activities.Attempt) (activities.Admission, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	admission := take(&w.admit)
	w.asked = append(w.asked, a)
	if !admission.Waits() {
		w.attempts = append(w.attempts, a)
	}
	return admission, nil
}

func (w *world) Authenticate(context.Context, activities.Attempt) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return take(&w.auth)
}

func (w *world) Post(_ context.Context, in activities.PostInput) (activities.Posted, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.posts = append(w.posts, in)
	return activities.Posted{ECWObservationID: "obs-fhir-98765", HTTPStatus: 201}, take(&w.post)
}

func (w *world) Record(_ context.Context, out activities.Outcome) (activities.Recorded, error) {
	if w.beforeRecord != nil {
		happened := make(chan struct{})
		w.env.RegisterDelayedCallback(func() {
			w.beforeRecord()
			w.env.RegisterDelayedCallback(func() { close(happened) }, 0) // when the workflow has met it
		}, 0)
		<-happened
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes = append(w.outcomes, out)
	return w.recorded, take(&w.record)
}

// take returns the next answer; the last one stays.
func take[T any](answers *[]T) (next T) {
	if len(*answers) == 0 {
		return next
	}
	next = (*answers)[0]
	if len(*answers) > 1 {
		*answers = (*answers)[1:]
	}
	return next
}

// refusal is a failure as the real activities return it, of a type that is its class, or another one.
func refusal(class ecw.Class, f activities.Failure) error {
	f.Class = class
	return temporal.NewApplicationErrorWithOptions(f.Message, string(class), temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{f}})
}

var eCWTimeout = refusal(ecw.ClassUnknown, activities.Failure{Code: "timeout", Message: "eCW connection timeout after 30s"})

func TestTransmissionIsDeliveredAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	state, err := w.run(t)
	if err != nil || state.TransmissionID != "TXN-2026-08830" {
		t.Fatalf("ended with %+v, %v", state, err)
	}
	if len(w.posts) != 1 || len(w.outcomes) != 1 {
		t.Fatalf("%d deliveries with %d outcomes, want one each", len(w.posts), len(w.outcomes))
	}
	got := w.outcomes[0]
	if got.Posted == nil || got.Posted.ECWObservationID != "obs-fhir-98765" || got.AttemptCount != 1 || got.NextRetryAt != nil {
		t.Errorf("recorded %+v", got)
	}
}

func TestTransmissionFollowsTheWholeSchedule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{eCWTimeout}
	_, err := w.run(t)

	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != string(ecw.ClassUnknown) {
		t.Errorf("ended with %v, want an error of the type %s", err, ecw.ClassUnknown)
	}
	if len(w.attempts) != 6 {
		t.Fatalf("%d deliveries, want six", len(w.attempts))
	}
	for i, delay := range documentedDelays {
		before, after := w.outcomes[i], w.attempts[i+1]
		waited := after.StartedAt.Sub(before.FinishedAt)
		if waited < delay || waited > delay+delay/10+time.Second {
			t.Errorf("retry %d came after %s, want %s to %s", i+1, waited, delay, delay+delay/10)
		}
		if after.StartedAt.Before(*before.NextRetryAt) {
			t.Errorf("retry %d came at %s, before the recorded %s", i+1, after.StartedAt, before.NextRetryAt)
		}
		if before.AttemptCount != i+1 || after.Number != i+2 {
			t.Errorf("retry %d is number %d after %d", i+1, after.Number, before.AttemptCount)
		}
	}
	if last := w.outcomes[5]; last.NextRetryAt != nil || last.AttemptCount != 6 || string(last.Failure.Class) != "unknown" {
		t.Errorf("the sixth failure was recorded as %+v, want it final", last)
	}
}

func TestTransmissionStopsAtOnceWhenAPersonMustAct(t *testing.T) {
	t.Parallel()
	for _, class := range []ecw.Class{ecw.ClassPermanentData} {
		for name, set := range map[string]func(*world, error){
			"Authenticate": func(w *world, err error) { w.auth = []error{err} },
			"Post":         func(w *world, err error) { w.post = []error{err} },
		} {
			t.Run(name+" "+string(class), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				set(w, refusal(class, activities.Failure{Code: "207", HTTPStatus: 422, Message: "Patient not found in eCW"}))
				_, err := w.run(t)
				var app *temporal.ApplicationError
				if !errors.As(err, &app) || app.Type() != string(class) {
					t.Errorf("ended with %v", err)
				}
				if len(w.outcomes) != 1 || w.outcomes[0].NextRetryAt != nil || w.outcomes[0].Failure.HTTPStatus != 422 {
					t.Errorf("recorded %+v, want one final failure", w.outcomes)
				}
			})
		}
	}
}

func TestThrottlingCostsNoAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	topOfMinute := w.env.Now().Truncate(time.Minute).Add(time.Minute)
	throttled := refusal(ecw.ClassThrottled, activities.Failure{Code: "429", HTTPStatus: 429, RetryAt: topOfMinute})
	w.post = []error{throttled, throttled, nil}
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	var numbers, deliveries []int
	for _, a := range w.attempts {
		numbers, deliveries = append(numbers, a.Number), append(deliveries, a.Delivery)
	}
	if !slices.Equal(numbers, []int{1, 1, 1}) || !slices.Equal(deliveries, []int{1, 2, 3}) {
		t.Errorf("attempts %v in deliveries %v, want attempt 1 three times", numbers, deliveries)
	}
	if w.attempts[1].StartedAt.Before(topOfMinute) {
		t.Errorf("sent again at %s, before %s", w.attempts[1].StartedAt, topOfMinute)
	}
	if w.attempts[2].StartedAt.Sub(w.attempts[1].StartedAt) < throttlePause {
		t.Error("a moment that has passed is no reason to send again without a pause")
	}
}

func TestLostWorkerMeansUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{temporal.NewApplicationError("boom", "PanicError"), nil}
	if _, err := w.run(t); err != nil {
		t.Fatal(err)
	}
	if got := w.outcomes[0]; string(got.Failure.Class) != string(ecw.ClassUnknown) || got.Failure.Code != "worker_lost" {
		t.Errorf("recorded %+v", got)
	}
	if len(w.posts) != 2 || w.posts[1].Delivery != 2 {
		t.Errorf("posted %+v: Temporal must not repeat Post on its own", w.posts)
	}
}

func TestDeliveryThatNeverLeftIsNoAttempt(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"the database was away":        temporal.NewNonRetryableApplicationError("database away", activities.TypeNotSent, nil),
		"the worker could not read it": temporal.NewApplicationError("the key is missing", payload.TypeUnopened),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.post = []error{err, nil}
			if _, err := w.run(t); err != nil {
				t.Fatal(err)
			}
			if len(w.outcomes) != 1 || w.outcomes[0].AttemptCount != 1 || w.attempts[1].Delivery != 1 {
				t.Errorf("recorded %+v", w.outcomes)
			}
			if waited := w.posts[1].At.Sub(w.posts[0].At); waited < notSentPause {
				t.Errorf("begins again after %s, want %s", waited, notSentPause)
			}
		})
	}
}

func TestNewWorkflowTakesOverWhereTheLostOneStood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opened.AttemptsMade, w.opened.DeliveriesMade = 4, 7
	w.post = []error{eCWTimeout}
	if _, err := w.run(t); err == nil {
		t.Fatal("delivered, want the schedule to run out")
	}
	if len(w.attempts) != 2 || w.attempts[0].Number != 5 || w.attempts[0].Delivery != 8 {
		t.Errorf("attempts %+v, want number 5 and 6", w.attempts)
	}
}

func TestWhatNeedsNoDeliveryIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*activities.Opened){
		"delivered":       func(o *activities.Opened) { o.Delivered = true },
		"failed for good": func(o *activities.Opened) { o.LeftAlone = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			set(&w.opened)
			if _, err := w.run(t); err != nil || len(w.attempts) != 0 || len(w.outcomes) != 0 {
				t.Errorf("ended with %v after %d attempts", err, len(w.attempts))
			}
		})
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	t.Parallel()
	for name, cancel := range map[string]func(*testsuite.TestWorkflowEnvironment){
		"by the signal":                func(env *testsuite.TestWorkflowEnvironment) { env.SignalWorkflow(SignalCancel, nil) },
		"by Temporal's cancel request": (*testsuite.TestWorkflowEnvironment).CancelWorkflow,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.post = []error{eCWTimeout}
			w.env.RegisterDelayedCallback(func() { cancel(w.env) }, 10*time.Minute)
			_, err := w.run(t)
			var app *temporal.ApplicationError
			if !errors.As(err, &app) || app.Type() != ClassCancelled {
				t.Errorf("ended with %v, want the class %s", err, ClassCancelled)
			}
			last := w.outcomes[len(w.outcomes)-1]
			if string(last.Failure.Class) != ClassCancelled || last.NextRetryAt != nil || last.AttemptCount != 2 {
				t.Errorf("recorded %+v", last)
			}
		})
	}
}

func TestReadingThatCannotBeTransformedIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.transform = []error{refusal(ecw.ClassPermanentData, activities.Failure{Code: "invalid_reading", Message: "check values.systolic"})}
	_, err := w.run(t)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != string(ecw.ClassPermanentData) || len(w.attempts) != 0 {
		t.Errorf("ended with %v after %d attempts", err, len(w.attempts))
	}
	if len(w.outcomes) != 1 || w.outcomes[0].NextRetryAt != nil || w.outcomes[0].Failure.Code != "invalid_reading" {
		t.Errorf("recorded %+v", w.outcomes)
	}
}

func TestCancelBeforeTheFirstDelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env.RegisterDelayedCallback(w.env.CancelWorkflow, 0)
	_, err := w.run(t)
	var app *temporal.ApplicationError
	if !errors.As(err, &app) || app.Type() != ClassCancelled || len(w.posts) != 0 {
		t.Errorf("ended with %v after %d deliveries", err, len(w.posts))
	}
	if len(w.outcomes) != 1 || w.outcomes[0].Delivery != 0 {
		t.Errorf("recorded %+v, want the end of the transmission and no attempt", w.outcomes)
	}
}

func TestLongHistoryContinuesAsNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post = []error{eCWTimeout}
	w.env.SetContinueAsNewSuggested(true)
	_, err := w.run(t)
	if !workflow.IsContinueAsNewError(err) || len(w.posts) != 1 {
		t.Errorf("ended with %v after %d deliveries, want it to continue as new after one", err, len(w.posts))
	}
}
