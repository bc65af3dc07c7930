package workflows

import (
	"errors"
	"time"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/gate"
)

// pendingLimit is how many transmissions one sweep starts: half of the children that Temporal lets a workflow have.
const pendingLimit = 1000

// TransmissionSummary is the line that the Temporal Web UI shows for a transmission.
const TransmissionSummary = "Carries one reading into the EHR"

// PendingInput says what a ProcessPending run starts.
type PendingInput struct {
	PracticeCode string
	// ObservationIDs names what to start; empty means whatever the database shows as pending.
	ObservationIDs []uuid.UUID
	// Grace leaves alone what was stored or changed less than this ago.
	Grace time.Duration
	// Wait is how long to wait for the outcome of the first deliveries; 0 does not look.
	Wait time.Duration
}

// ProcessPending starts a transmission for every pending observation that has none running. It is the sweep behind the
// API: it finds readings that were stored while Temporal was away, and transmissions whose workflow was lost. Starting
// what runs already does nothing.
func ProcessPending(ctx workflow.Context, in PendingInput) (activities.PendingResult, error) {
	var do *activities.Pending
	ids := in.ObservationIDs
	if len(ids) == 0 {
		query := activities.PendingQuery{PracticeCode: in.PracticeCode, Grace: in.Grace, Limit: pendingLimit}
		if err := workflow.ExecuteActivity(untilDone(ctx, "find pending observations"), do.FindPending, query).Get(ctx, &ids); err != nil {
			return activities.PendingResult{}, err
		}
		if err := repairCircuit(ctx, in.PracticeCode); err != nil {
			return activities.PendingResult{}, err
		}
	}
	if err := startTransmissions(ctx, in.PracticeCode, ids, len(in.ObservationIDs) > 0); err != nil {
		return activities.PendingResult{}, err
	}
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

// startTransmissions starts a workflow for each observation; they go on when this one ends.
func startTransmissions(ctx workflow.Context, practice string, ids []uuid.UUID, fresh bool) error {
	children := make([]workflow.Future, len(ids))
	for i, id := range ids {
		children[i] = startTransmission(ctx, activities.ObservationRef{PracticeCode: practice, ObservationID: id, Unasked: true, LookUp: !fresh})
	}
	for i, child := range children {
		err := child.Get(ctx, nil)
		var known *temporal.ChildWorkflowExecutionAlreadyStartedError
		if errors.As(err, &known) && fresh { // it runs, or it did before a database was restored that has forgotten the reading
			ref := activities.ObservationRef{PracticeCode: practice, ObservationID: ids[i], Unasked: true, LookUp: true}
			err = startTransmission(ctx, ref).Get(ctx, nil)
		}
		if err != nil && !errors.As(err, &known) {
			return err
		}
	}
	return nil
}

// startTransmission starts one, and only if there never was one when nothing of it can have been sent before.
func startTransmission(ctx workflow.Context, ref activities.ObservationRef) workflow.Future {
	reuse := enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
	if !ref.LookUp {
		reuse = enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	}
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            TransmissionWorkflowID(ref.ObservationID),
		TaskQueue:             TaskQueue(ref.PracticeCode),
		ParentClosePolicy:     enums.PARENT_CLOSE_POLICY_ABANDON,
		WorkflowIDReusePolicy: reuse,
		StaticSummary:         TransmissionSummary,
	})
	return workflow.ExecuteChildWorkflow(child, Transmission, TransmissionInput{ObservationRef: ref}).GetChildWorkflowExecution()
}
