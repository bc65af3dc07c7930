package workflows

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// importBatch is how many patients one run of ImportPatients takes before it continues as new: its history stays small
// however many there are.
const importBatch = 1000

// ImportPatientsInput names the import, whose items stand in the database.
type ImportPatientsInput struct {
	activities.ImportRef
	// After is the number of the last item that earlier runs took.
	After int
	// Chunk is how many patients a child takes, as the first run has found.
	Chunk int `json:",omitempty"`
	// Request says who asked for the import; the daily refresh has none.
	Request
}

// ImportPatientsWorkflowID is the id of the workflow of an import.
func ImportPatientsWorkflowID(importID uuid.UUID) string {
	return "import/" + importID.String()
}

// ImportPatients imports patients from eCW: one child workflow for each chunk of them, some at a time. A patient that cannot
// be imported is recorded with the reason and never stops the others. When a person cancels the import, its result says so
// of each patient that was not done by then.
func ImportPatients(ctx workflow.Context, in ImportPatientsInput) error {
	next, more, err := importNext(ctx, in)
	if err == nil && more {
		return workflow.NewContinueAsNewError(ctx, ImportPatients, next)
	}
	var do *activities.PatientImport
	settled, _ := workflow.NewDisconnectedContext(ctx)
	if closeErr := workflow.ExecuteActivity(untilDone(settled, "close the import"), do.FinishImport, in.ImportRef).Get(settled, nil); closeErr != nil {
		return closeErr
	}
	return err
}

// importNext imports the next patients and returns the input of the next run, and whether there may be more. An error
// means that the workflow was cancelled.
func importNext(ctx workflow.Context, in ImportPatientsInput) (next ImportPatientsInput, more bool, err error) {
	var do *activities.PatientImport
	var batch activities.ImportBatch
	query := activities.ImportBatchQuery{ImportRef: in.ImportRef, After: in.After, Limit: importBatch}
	err = workflow.ExecuteActivity(untilDone(ctx, "next patients"), do.NextImportItems, query).Get(ctx, &batch)
	if err != nil || len(batch.Ordinals) == 0 {
		return in, false, err
	}
	next = in
	next.After = int(batch.Ordinals[len(batch.Ordinals)-1])
	if in.Chunk == 0 {
		next.Chunk = chunkSize(batch.Open, batch.Parallel)
	}
	i := &importing{
		ref:     in.ImportRef,
		wanted:  in.Request,
		batch:   batch,
		chunk:   next.Chunk,
		waiting: map[int32]int{},
	}
	return next, len(batch.Ordinals) == importBatch, i.each(ctx)
}

// chunkSize is how many patients a child takes, who are read with one request: as many as leave each of those that run at a
// time something to do, and no more than a request may ask for.
func chunkSize(patients, parallel int) int {
	parallel = max(1, parallel)
	return min(max(1, (patients+parallel-1)/parallel), ecw.MaxPatientList)
}

// importing is a batch of patients that are being imported.
type importing struct {
	ref     activities.ImportRef
	wanted  Request // who asked for the import
	batch   activities.ImportBatch
	chunk   int           // how many patients a child takes
	waiting map[int32]int // how many patients wait for eCW, by the first of their chunk
	waiters int           // how many these are
	reason  string        // why the last of them do
}

// signalWaits tells ImportPatients that the patients of a child wait for eCW, or do not any more; its argument is an
// importWait.
const signalWaits = "waits"

// importWait says how many patients of a chunk wait for eCW, and why. The chunk is known by its first patient.
type importWait struct {
	Chunk    int32
	Patients int    `json:",omitempty"`
	Reason   string `json:",omitempty"`
}

// each runs a child for each chunk, at most batch.Parallel at a time, and returns when all have ended.
func (i *importing) each(ctx workflow.Context) error {
	i.show(ctx)
	i.takeWaits(ctx)
	slots := workflow.NewSemaphore(ctx, int64(max(1, i.batch.Parallel)))
	group := workflow.NewWaitGroup(ctx)
	for ordinals := range slices.Chunk(i.batch.Ordinals, i.chunk) {
		if slots.Acquire(ctx, 1) != nil {
			break // cancelled
		}
		group.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer group.Done()
			defer slots.Release(1)
			i.one(ctx, ordinals)
		})
	}
	group.Wait(ctx)
	return ctx.Err()
}

// one returns when the child of a chunk has ended. One that a person ended leaves its items open: FinishImport says so in
// the result.
func (i *importing) one(ctx workflow.Context, ordinals []int32) {
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            ImportPatientsWorkflowID(i.ref.ImportID) + "/" + chunkName(ordinals),
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	})
	in := ImportChunkInput{ImportRef: i.ref, First: ordinals[0], Ordinals: ordinals}
	_ = workflow.ExecuteChildWorkflow(child, ImportChunk, in).Get(ctx, nil)
	i.wait(ctx, importWait{Chunk: ordinals[0]})
}

// chunkName is how people find the child of a chunk: "7", or "1-100".
func chunkName(ordinals []int32) string {
	first, last := ordinals[0], ordinals[len(ordinals)-1]
	if first == last {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func (i *importing) takeWaits(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var wait importWait
			workflow.GetSignalChannel(ctx, signalWaits).Receive(ctx, &wait)
			i.wait(ctx, wait)
		}
	})
}

// wait takes note of a chunk that waits, or does not any more.
func (i *importing) wait(ctx workflow.Context, w importWait) {
	if w.Patients == i.waiting[w.Chunk] {
		return
	}
	i.waiters += w.Patients - i.waiting[w.Chunk]
	i.waiting[w.Chunk] = w.Patients
	if w.Patients > 0 {
		i.reason = w.Reason
	}
	i.show(ctx)
}

func (i *importing) show(ctx workflow.Context) {
	ordinals := i.batch.Ordinals
	chunks := fmt.Sprintf("%d at a time", i.batch.Parallel)
	if i.chunk > 1 {
		chunks = fmt.Sprintf("%d chunks of %d at a time", i.batch.Parallel, i.chunk)
	}
	details := fmt.Sprintf("Importing patients **%d to %d** of the request, %s.", ordinals[0], ordinals[len(ordinals)-1], chunks)
	if i.waiters > 0 {
		details = fmt.Sprintf("### Waiting for eCW: %d patients\n\n%s They go on by themselves.\n\n%s", i.waiters, whyWaiting(i.reason), details)
	}
	workflow.SetCurrentDetails(ctx, details+i.wanted.details())
}

// whyWaiting says to people what an import waits for.
func whyWaiting(reason string) string {
	if reason == gate.ReasonCredentials {
		return "eCW refuses our credentials, which a person has to correct."
	}
	return "eCW is unavailable."
}

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
