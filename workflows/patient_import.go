package workflows

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// importBatch is how many patients one run of ImportPatients takes before it continues as new: its history stays small
// however many there are.
const importBatch = 200

// ImportPatientsInput names the import, whose items stand in the database.
type ImportPatientsInput struct {
	activities.ImportRef
	// After is the number of the last item that earlier runs took.
	After int
}

// ImportPatientsWorkflowID is the id of the workflow of an import.
func ImportPatientsWorkflowID(importID uuid.UUID) string {
	return "import/" + importID.String()
}

// ImportPatients imports patients from eCW: one child workflow each, some at a time. A patient that cannot be imported is
// recorded with the reason and never stops the others. When a person cancels the import, its result says so of each
// patient that was not done by then.
func ImportPatients(ctx workflow.Context, in ImportPatientsInput) error {
	last, more, err := importNext(ctx, in)
	if err == nil && more {
		return workflow.NewContinueAsNewError(ctx, ImportPatients, ImportPatientsInput{ImportRef: in.ImportRef, After: last})
	}
	var do *activities.PatientImport
	settled, _ := workflow.NewDisconnectedContext(ctx)
	if closeErr := workflow.ExecuteActivity(untilDone(settled, "close the import"), do.FinishImport, in.ImportRef).Get(settled, nil); closeErr != nil {
		return closeErr
	}
	return err
}

// importNext imports the next patients and returns the number of the last one, and whether there may be more. An error
// means that the workflow was cancelled.
func importNext(ctx workflow.Context, in ImportPatientsInput) (last int, more bool, err error) {
	var do *activities.PatientImport
	var batch activities.ImportBatch
	query := activities.ImportBatchQuery{ImportRef: in.ImportRef, After: in.After, Limit: importBatch}
	err = workflow.ExecuteActivity(untilDone(ctx, "next patients"), do.NextImportItems, query).Get(ctx, &batch)
	if err != nil || len(batch.Ordinals) == 0 {
		return 0, false, err
	}
	last = int(batch.Ordinals[len(batch.Ordinals)-1])
	i := &importing{
		ref:     in.ImportRef,
		batch:   batch,
		doing:   fmt.Sprintf("Importing patients **%d to %d** of the request, %d at a time.", batch.Ordinals[0], last, batch.Parallel),
		waiting: map[int32]bool{},
	}
	return last, len(batch.Ordinals) == importBatch, i.each(ctx)
}

// importing is a batch of patients that are being imported.
type importing struct {
	ref     activities.ImportRef
	batch   activities.ImportBatch
	doing   string         // for people to see
	waiting map[int32]bool // the items that wait for eCW
	reason  string         // why the last of them does
}

// signalWaits tells ImportPatients that a child waits for eCW; its argument is an importWait.
const signalWaits = "waits"

// importWait is an item that waits for eCW, and why.
type importWait struct {
	Ordinal int32
	Reason  string
}

// each runs a child for each item, at most batch.Parallel at a time, and returns when all have ended.
func (i *importing) each(ctx workflow.Context) error {
	i.show(ctx)
	i.takeWaits(ctx)
	slots := workflow.NewSemaphore(ctx, int64(max(1, i.batch.Parallel)))
	group := workflow.NewWaitGroup(ctx)
	for _, ordinal := range i.batch.Ordinals {
		if slots.Acquire(ctx, 1) != nil {
			break // cancelled
		}
		group.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer group.Done()
			defer slots.Release(1)
			i.one(ctx, ordinal)
		})
	}
	group.Wait(ctx)
	return ctx.Err()
}

// one returns when the child of an item has ended. One that a person ended leaves its item open: FinishImport says so in the
// result.
func (i *importing) one(ctx workflow.Context, ordinal int32) {
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            fmt.Sprintf("%s/%d", ImportPatientsWorkflowID(i.ref.ImportID), ordinal),
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	})
	in := ImportPatientInput{ImportItem: activities.ImportItem{ImportRef: i.ref, Ordinal: ordinal}}
	_ = workflow.ExecuteChildWorkflow(child, ImportPatient, in).Get(ctx, nil)
	if i.waiting[ordinal] {
		delete(i.waiting, ordinal)
		i.show(ctx)
	}
}

func (i *importing) takeWaits(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var wait importWait
			workflow.GetSignalChannel(ctx, signalWaits).Receive(ctx, &wait)
			i.waiting[wait.Ordinal], i.reason = true, wait.Reason
			i.show(ctx)
		}
	})
}

func (i *importing) show(ctx workflow.Context) {
	details := i.doing
	if n := len(i.waiting); n > 0 {
		details = fmt.Sprintf("### Waiting for eCW: %d patients\n\n%s They go on by themselves.\n\n%s", n, whyWaiting(i.reason), i.doing)
	}
	workflow.SetCurrentDetails(ctx, details)
}

// whyWaiting says to people what an import waits for.
func whyWaiting(reason string) string {
	if reason == gate.ReasonCredentials {
		return "eCW refuses our credentials, which a person has to correct."
	}
	return "eCW is unavailable."
}

// ImportPatientInput names one patient of an import, and carries how far its wait has come into the next run.
type ImportPatientInput struct {
	activities.ImportItem
	// Gap is how long it waited before it last asked for eCW, zero: it has not waited yet.
	Gap time.Duration `json:",omitempty"`
	// Told means that ImportPatients knows that this patient waits.
	Told bool `json:",omitempty"`
}

// ImportPatient imports one patient, and records why when that does not work out.
func ImportPatient(ctx workflow.Context, in ImportPatientInput) error {
	p := &patientImport{in: in}
	err := p.link(ctx)
	if err == nil || temporal.IsCanceledError(err) || workflow.IsContinueAsNewError(err) {
		return err
	}
	failure := activities.ImportFailure{ImportItem: in.ImportItem, Reason: "The import of this patient failed inside Vantrexia: try again"}
	var app *temporal.ApplicationError
	if errors.As(err, &app) && app.HasDetails() {
		failure.Reason = app.Message()
	}
	return workflow.ExecuteActivity(untilDone(ctx, "record why not"), p.do.RecordImportError, failure).Get(ctx, nil)
}

// patientImport is the state of one run of ImportPatient.
type patientImport struct {
	do *activities.PatientImport // nil: it only names the methods
	in ImportPatientInput
}

// link waits as long as it takes for what is no fault of this patient: while the circuit is not closed, eCW does not answer
// anything, or its limit is used up. An error is the patient's own, or ends this run.
func (p *patientImport) link(ctx workflow.Context) error {
	read := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 3 * time.Minute,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 2 * time.Second, BackoffCoefficient: 3, MaximumAttempts: importAttempts},
		Summary:             "read the patient from eCW and link it",
	})
	for {
		var linked activities.Linked
		err := workflow.ExecuteActivity(read, p.do.LinkPatient, p.in.ImportItem).Get(ctx, &linked)
		if err == nil {
			attendCircuit(ctx, p.in.PracticeCode, linked.Recorded)
		}
		if err == nil && !linked.Waits {
			return nil
		}
		wait, err := p.judge(ctx, linked, err)
		if err != nil {
			return err
		}
		timer := workflow.TimerOptions{Summary: "until eCW may be asked again"}
		if err := workflow.NewTimerWithOptions(ctx, wait, timer).Get(ctx, nil); err != nil {
			return err
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return workflow.NewContinueAsNewError(ctx, ImportPatient, p.in)
		}
	}
}

// judge says how long to wait before eCW is asked for the patient again, or returns the error that is the patient's own.
func (p *patientImport) judge(ctx workflow.Context, linked activities.Linked, err error) (wait time.Duration, own error) {
	if err == nil {
		if linked.Forbidden {
			p.in.Forbidden++
		}
		return p.waitForECW(ctx, linked), nil
	}
	f := activities.Describe(err)
	switch {
	case f.Class == ecw.ClassThrottled:
		return max(f.RetryAt.Sub(workflow.Now(ctx)), throttlePause), nil
	case f.Finding != gate.Unavailable:
		return 0, err
	}
	var answers bool
	ask := workflow.ExecuteActivity(untilAuthenticated(ctx, "ask whether eCW answers at all"), p.do.ECWAnswers, p.in.ImportRef)
	if cut := ask.Get(ctx, &answers); cut != nil {
		return 0, cut
	}
	if answers { // and fails at this patient only
		return 0, err
	}
	return p.waitForECW(ctx, activities.Linked{Reason: gate.ReasonUnavailable}), nil
}

// waitForECW is the wait before the circuit is asked again. The circuit breaker, which ends where it finds nobody to try, has
// to come first: then the next patient to ask is the trial. One that was the trial lets the others be it.
func (p *patientImport) waitForECW(ctx workflow.Context, linked activities.Linked) time.Duration {
	wait := trialCheck
	if !linked.Trying {
		p.in.Gap = min(max(firstTrialAfter, 2*p.in.Gap), longestTrialGap)
		wait += p.in.Gap
	}
	if linked.Trial {
		wait += firstTrialAfter
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("### Waiting for eCW\n\n%s It is asked again about **%s**.",
		whyWaiting(linked.Reason), workflow.Now(ctx).Add(wait).Format(timeForm)))
	p.tell(ctx, linked.Reason)
	return wait
}

// tell lets ImportPatients show that this patient waits, once. It may have ended meanwhile.
func (p *patientImport) tell(ctx workflow.Context, reason string) {
	parent := workflow.GetInfo(ctx).ParentWorkflowExecution
	if p.in.Told || parent == nil {
		return
	}
	p.in.Told = true
	_ = workflow.SignalExternalWorkflow(ctx, parent.ID, "", signalWaits, importWait{Ordinal: p.in.Ordinal, Reason: reason}).Get(ctx, nil)
}

// importAttempts is how often a patient is asked for while eCW fails at it or the database is in trouble: about two minutes.
const importAttempts = 5

// RefreshPatients reads the demographics of every linked patient again. A schedule starts it daily.
func RefreshPatients(ctx workflow.Context, practice string) error {
	var do *activities.PatientImport
	var ref activities.ImportRef
	if err := workflow.ExecuteActivity(untilDone(ctx, "list the linked patients"), do.OpenRefresh, practice).Get(ctx, &ref); err != nil {
		return err
	}
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: ImportPatientsWorkflowID(ref.ImportID)})
	return workflow.ExecuteChildWorkflow(child, ImportPatients, ImportPatientsInput{ImportRef: ref}).Get(ctx, nil)
}
