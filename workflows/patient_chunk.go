package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/payload"
)

// ImportChunkInput names the patients of an import that one child takes, and carries how far it has come into its next run.
type ImportChunkInput struct {
	activities.ImportRef
	// First is the number of the chunk's first patient, by which ImportPatients knows it.
	First int32
	// Ordinals are the patients who are not done.
	Ordinals []int32
	// Singly means that each is read by itself: eCW's search does not show them.
	Singly bool `json:",omitempty"`
	// Failed means that a search has failed that might work now.
	Failed bool `json:",omitempty"`
	// Gap is how long the first of them waited before it last asked for eCW, zero: it has not waited yet.
	Gap time.Duration `json:",omitempty"`
	// Forbidden counts how often eCW has forbidden us the first of them.
	Forbidden int `json:",omitempty"`
	// Told means that ImportPatients knows that these patients wait.
	Told bool `json:",omitempty"`
}

// ImportChunk imports some patients, whom it reads with one request. Those that the search does not show, it reads one by
// one, and all of them when eCW cannot search for a list of patients.
func ImportChunk(ctx workflow.Context, in ImportChunkInput) error {
	c := &chunk{in: in}
	for {
		if err := c.next(ctx); err != nil || len(c.in.Ordinals) == 0 {
			return err
		}
		if err := c.mayGoOn(ctx); err != nil {
			return err
		}
	}
}

// chunk is the state of one run of ImportChunk.
type chunk struct {
	do *activities.PatientImport // nil: it only names the methods
	in ImportChunkInput
}

// mayGoOn ends this run where its history is long; its error is the next run.
func (c *chunk) mayGoOn(ctx workflow.Context) error {
	if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
		return workflow.NewContinueAsNewError(ctx, ImportChunk, c.in)
	}
	return nil
}

// next does a step: it searches for all patients that are left, or reads the first of them. An error ends this run.
func (c *chunk) next(ctx workflow.Context) error {
	if c.in.Singly || len(c.in.Ordinals) == 1 {
		return c.one(ctx)
	}
	var found activities.Searched
	search := activities.ImportChunk{ImportRef: c.in.ImportRef, Ordinals: c.in.Ordinals}
	read := reading(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 5 * time.Minute,
		HeartbeatTimeout:    4 * activities.HeartbeatInterval,
		Summary:             fmt.Sprintf("read %d patients from eCW with one request and link them", len(c.in.Ordinals)),
	})
	err := workflow.ExecuteActivity(read, c.do.LinkPatients, search).Get(ctx, &found)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if isOfType(err, payload.TypeUnopened) {
		return pauseFor(ctx, unopenedPause)
	}
	if err != nil { // a fault of ours
		c.in.Singly = true
		return nil
	}
	attendCircuit(ctx, c.in.PracticeCode, found.Recorded)
	c.in.Ordinals = found.Left
	return c.afterSearch(ctx, found)
}

// afterSearch decides about those whom a search has left. While the circuit is not closed, the first of them waits for that,
// and may be the trial; then the rest is searched for. It is the same the first time that eCW fails at the search: a single
// read finds out whether it fails at everything.
func (c *chunk) afterSearch(ctx workflow.Context, found activities.Searched) error {
	switch {
	case len(found.Left) == 0:
		return nil
	case !found.RetryAt.IsZero():
		return pauseFor(ctx, throttledFor(ctx, found.RetryAt))
	case found.Waits:
		return c.one(ctx)
	case found.Failed && !c.in.Failed:
		c.in.Failed = true
		return c.one(ctx)
	}
	c.in.Singly = true
	c.goesOn(ctx)
	return nil
}

// one reads the first of the patients by itself, and records why when that does not work out.
func (c *chunk) one(ctx workflow.Context) error {
	item := activities.ImportItem{ImportRef: c.in.ImportRef, Ordinal: c.in.Ordinals[0]}
	err := c.link(ctx, item)
	if temporal.IsCanceledError(err) || workflow.IsContinueAsNewError(err) {
		return err
	}
	if err != nil {
		failure := activities.ImportFailure{ImportItem: item, Reason: "The import of this patient failed inside Vantrexia: try again"}
		var app *temporal.ApplicationError
		if errors.As(err, &app) && app.HasDetails() {
			failure.Reason = app.Message()
		}
		if err := workflow.ExecuteActivity(untilDone(ctx, "record why not"), c.do.RecordImportError, failure).Get(ctx, nil); err != nil {
			return err
		}
	}
	c.in.Ordinals, c.in.Forbidden = c.in.Ordinals[1:], 0
	c.goesOn(ctx)
	return nil
}

// link waits as long as it takes for what is no fault of this patient: while the circuit is not closed, eCW does not answer
// anything, its limit is used up, or the worker lacks the key. An error is the patient's own, or ends this run.
func (c *chunk) link(ctx workflow.Context, item activities.ImportItem) error {
	for {
		item.Forbidden = c.in.Forbidden
		var linked activities.Linked
		read := reading(ctx, workflow.ActivityOptions{StartToCloseTimeout: 3 * time.Minute, Summary: "read the patient from eCW and link it"})
		err := workflow.ExecuteActivity(read, c.do.LinkPatient, item).Get(ctx, &linked)
		if err == nil {
			attendCircuit(ctx, c.in.PracticeCode, linked.Recorded)
		}
		if err == nil && !linked.Waits {
			return nil
		}
		wait, err := c.judge(ctx, linked, err)
		if err != nil {
			return err
		}
		if err := pauseFor(ctx, wait); err != nil {
			return err
		}
		if err := c.mayGoOn(ctx); err != nil {
			return err
		}
	}
}

// reading suits an activity that reads patients from eCW, and may run twice.
func reading(ctx workflow.Context, options workflow.ActivityOptions) workflow.Context {
	options.RetryPolicy = &temporal.RetryPolicy{InitialInterval: 2 * time.Second, BackoffCoefficient: 3, MaximumAttempts: importAttempts}
	return workflow.WithActivityOptions(ctx, options)
}

func pauseFor(ctx workflow.Context, wait time.Duration) error {
	return workflow.NewTimerWithOptions(ctx, wait, workflow.TimerOptions{Summary: "until eCW may be asked again"}).Get(ctx, nil)
}

// throttledFor is how long eCW's limit, or ours, holds back a request until the given moment.
func throttledFor(ctx workflow.Context, until time.Time) time.Duration {
	return max(until.Sub(workflow.Now(ctx)), throttlePause)
}

// judge says how long to wait before eCW is asked for the patient again, or returns the error that is the patient's own.
func (c *chunk) judge(ctx workflow.Context, linked activities.Linked, err error) (wait time.Duration, own error) {
	if err == nil {
		if linked.Forbidden {
			c.in.Forbidden++
		}
		return c.waitForECW(ctx, linked), nil
	}
	f := activities.Describe(err)
	switch {
	case isOfType(err, payload.TypeUnopened):
		return unopenedPause, nil
	case f.Class == ecw.ClassThrottled:
		return throttledFor(ctx, f.RetryAt), nil
	case f.Finding != gate.Unavailable:
		return 0, err
	}
	var answers bool
	ask := workflow.ExecuteActivity(untilAuthenticated(ctx, "ask whether eCW answers at all"), c.do.ECWAnswers, c.in.ImportRef)
	if cut := ask.Get(ctx, &answers); cut != nil {
		return 0, cut
	}
	if answers { // and fails at this patient only
		return 0, err
	}
	return c.waitForECW(ctx, activities.Linked{Reason: gate.ReasonUnavailable}), nil
}

// waitForECW is the wait before the circuit is asked again. The circuit breaker, which ends where it finds nobody to try, has
// to come first: then the next patient to ask is the trial. One that was the trial lets the others be it.
func (c *chunk) waitForECW(ctx workflow.Context, linked activities.Linked) time.Duration {
	wait := trialCheck
	if !linked.Trying {
		c.in.Gap = min(max(firstTrialAfter, 2*c.in.Gap), longestTrialGap)
		wait += c.in.Gap
	}
	if linked.Trial {
		wait += firstTrialAfter
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("### Waiting for eCW\n\n%s It is asked again about **%s**.",
		whyWaiting(linked.Reason), workflow.Now(ctx).Add(wait).Format(timeForm)))
	c.tell(ctx, linked.Reason)
	return wait
}

// tell lets ImportPatients show that these patients wait, once.
func (c *chunk) tell(ctx workflow.Context, reason string) {
	if !c.in.Told {
		c.in.Told = true
		c.signal(ctx, importWait{Chunk: c.in.First, Patients: len(c.in.Ordinals), Reason: reason})
	}
}

// goesOn takes back what tell has said. The last patient's end says it anyway.
func (c *chunk) goesOn(ctx workflow.Context) {
	c.in.Gap = 0
	if c.in.Told && len(c.in.Ordinals) > 0 {
		c.in.Told = false
		workflow.SetCurrentDetails(ctx, "")
		c.signal(ctx, importWait{Chunk: c.in.First})
	}
}

// signal tells ImportPatients, which may have ended meanwhile.
func (c *chunk) signal(ctx workflow.Context, wait importWait) {
	if parent := workflow.GetInfo(ctx).ParentWorkflowExecution; parent != nil {
		_ = workflow.SignalExternalWorkflow(ctx, parent.ID, "", signalWaits, wait).Get(ctx, nil)
	}
}

// importAttempts is how often a patient is asked for while eCW fails at it or the database is in trouble: about two minutes.
const importAttempts = 5
