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
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Importing patients **%d to %d** of the request, %d at a time.", batch.Ordinals[0], last, batch.Parallel))
	return last, len(batch.Ordinals) == importBatch, importEach(ctx, in.ImportRef, batch)
}

// importEach runs a child for each item, at most batch.Parallel at a time, and returns when all have ended.
func importEach(ctx workflow.Context, ref activities.ImportRef, batch activities.ImportBatch) error {
	slots := workflow.NewSemaphore(ctx, int64(max(1, batch.Parallel)))
	group := workflow.NewWaitGroup(ctx)
	for _, ordinal := range batch.Ordinals {
		if slots.Acquire(ctx, 1) != nil {
			break // cancelled
		}
		group.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer group.Done()
			defer slots.Release(1)
			item := activities.ImportItem{ImportRef: ref, Ordinal: ordinal}
			child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
				WorkflowID:            fmt.Sprintf("%s/%d", ImportPatientsWorkflowID(ref.ImportID), ordinal),
				WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			})
			// A child that a person ended leaves its item open: FinishImport says so in the result.
			_ = workflow.ExecuteChildWorkflow(child, ImportPatient, item).Get(ctx, nil)
		})
	}
	group.Wait(ctx)
	return ctx.Err()
}

// ImportPatient imports one patient, and records why when that does not work out.
func ImportPatient(ctx workflow.Context, item activities.ImportItem) error {
	err := linkPatient(ctx, item)
	if err == nil || temporal.IsCanceledError(err) {
		return err
	}
	failure := activities.ImportFailure{ImportItem: item, Reason: "The import of this patient failed inside Vantrexia: try again"}
	var app *temporal.ApplicationError
	if errors.As(err, &app) && app.HasDetails() {
		failure.Reason = app.Message()
	}
	var do *activities.PatientImport
	return workflow.ExecuteActivity(untilDone(ctx, "record why not"), do.RecordImportError, failure).Get(ctx, nil)
}

// linkPatient waits while eCW's limit is used up, which is no fault of this patient.
func linkPatient(ctx workflow.Context, item activities.ImportItem) error {
	var do *activities.PatientImport
	link := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 3 * time.Minute,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 2 * time.Second, BackoffCoefficient: 3, MaximumAttempts: importAttempts},
		Summary:             "read the patient from eCW and link it",
	})
	for {
		err := workflow.ExecuteActivity(link, do.LinkPatient, item).Get(ctx, nil)
		if err == nil {
			return nil
		}
		class, f := describe(err)
		if class != string(ecw.ClassThrottled) {
			return err
		}
		if err := workflow.Sleep(ctx, max(f.RetryAt.Sub(workflow.Now(ctx)), throttlePause)); err != nil {
			return err
		}
	}
}

// importAttempts is how often a patient is asked for while eCW or the database is in trouble: about two minutes.
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
