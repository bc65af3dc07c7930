package workflows

import (
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/gate"
)

// pendingLimit is how many transmissions one run of a sweep starts: a quarter of the children that Temporal lets a workflow
// have.
const pendingLimit = 500

// PendingInput says what a ProcessPending run starts.
type PendingInput struct {
	PracticeCode string
	// Grace leaves alone what was stored or changed less than this ago.
	Grace time.Duration
	// Wait is how long to wait for the outcome of the first deliveries; 0 does not look.
	Wait time.Duration
	// After is how far earlier runs of the same sweep have come.
	After activities.PendingCursor
	// Request says who asked for the run; a scheduled one has none.
	Request
}

// ProcessPending starts a transmission for every pending observation that has none running. It is the sweep behind the
// API: it finds readings that were stored while Temporal was away, and transmissions whose workflow was lost. Starting
// what runs already does nothing. It takes pendingLimit of them, then another run goes on, so that however many are stuck,
// they hide nobody.
func ProcessPending(ctx workflow.Context, in PendingInput) (activities.PendingResult, error) {
	if in.By != "" {
		workflow.SetCurrentDetails(ctx, "Starts whatever is pending."+in.details())
	}

	page, err := startPending(ctx, in)
	if err != nil {
		return activities.PendingResult{}, err
	}
	if len(page.ObservationIDs) == pendingLimit {
		next := PendingInput{PracticeCode: in.PracticeCode, Grace: in.Grace, After: page.Last, Request: in.Request}
		if in.Wait == 0 {
			return activities.PendingResult{}, workflow.NewContinueAsNewError(ctx, ProcessPending, next)
		}
		if err := goOnWithout(ctx, next); err != nil {
			return activities.PendingResult{}, err
		}
	}
	return awaitOutcomes(ctx, in, page.ObservationIDs)
}

// startPending starts the next of what the database shows as pending.
func startPending(ctx workflow.Context, in PendingInput) (page activities.PendingPage, err error) {
	var do *activities.Pending
	query := activities.PendingQuery{PracticeCode: in.PracticeCode, Grace: in.Grace, After: in.After, Limit: pendingLimit}
	if err := workflow.ExecuteActivity(untilDone(ctx, "find pending observations"), do.FindPending, query).Get(ctx, &page); err != nil {
		return page, err
	}
	if err := repairCircuit(ctx, in.PracticeCode); err != nil {
		return page, err
	}
	return page, startAgain(ctx, in.PracticeCode, page.ObservationIDs)
}

// goOnWithout starts the rest of a sweep that somebody waits for, who gets the outcomes of the first part only.
func goOnWithout(ctx workflow.Context, next PendingInput) error {
	rest := Start{
		ID:       workflow.GetInfo(ctx).WorkflowExecution.ID + "/rest",
		Practice: next.PracticeCode,
		Summary:  "Goes on with a sweep",
	}
	child := rest.child(ctx)
	return workflow.ExecuteChildWorkflow(child, ProcessPending, next).GetChildWorkflowExecution().Get(ctx, nil)
}

// awaitOutcomes waits for the outcomes of the first deliveries, as long as the input says.
func awaitOutcomes(ctx workflow.Context, in PendingInput, ids []uuid.UUID) (activities.PendingResult, error) {
	var do *activities.Pending
	result := activities.PendingResult{Open: len(ids)}
	list := activities.ObservationList{PracticeCode: in.PracticeCode, ObservationIDs: ids}
	for waited, pause := time.Duration(0), time.Second; result.Open > 0 && waited < in.Wait; waited, pause = waited+pause, min(pause*2, in.Wait-waited-pause) {
		if err := workflow.Sleep(ctx, pause); err != nil {
			return result, err
		}
		if err := workflow.ExecuteActivity(untilDone(ctx, "sum up"), do.SumUp, list).Get(ctx, &result); err != nil {
			return result, err
		}
	}
	return result, nil
}

// repairCircuit starts the CircuitBreaker where it should run and may have been lost, and calls whoever comes next in the
// queue, where a call was lost.
func repairCircuit(ctx workflow.Context, practice string) error {
	var do *activities.Circuit
	var state activities.CircuitState
	if err := workflow.ExecuteActivity(untilDone(ctx, "look at the circuit"), do.LookAtCircuit, practice).Get(ctx, &state); err != nil {
		return err
	}
	if state.State == gate.Open || state.State != gate.Closed && state.Held > 0 {
		startCircuitBreaker(ctx, practice)
	}
	return workflow.ExecuteActivity(untilDone(ctx, "call the next in the queue"), do.CallNext, practice).Get(ctx, nil)
}
