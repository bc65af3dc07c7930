package workflows

import (
	"errors"
	"slices"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
)

// Batch names the observations that a caller has just stored.
type Batch struct {
	PracticeCode   string
	ObservationIDs []uuid.UUID
}

// StartTransmissions starts the transmission of each observation of a batch, so that a caller need not wait for a thousand
// starts. The sweep starts those that it does not come to.
func StartTransmissions(ctx workflow.Context, batch Batch) error {
	known, err := startEach(ctx, batch.PracticeCode, batch.ObservationIDs, true)
	if err != nil {
		return err
	}
	// They run, or they did before a database was restored that has forgotten the readings: something may have been sent.
	return startAgain(ctx, batch.PracticeCode, known)
}

// startAgain starts transmissions of which something may have been sent before. It leaves those alone that run.
func startAgain(ctx workflow.Context, practice string, ids []uuid.UUID) error {
	_, err := startEach(ctx, practice, ids, false)
	return err
}

// startedTogether is how many transmissions are started before their starts are awaited: a workflow that makes more commands at
// once is taken for stuck on a busy machine.
const startedTogether = 100

// startEach starts the transmissions, which go on when this workflow ends, and returns those that it could not start because
// they run already, or ever ran if they are to start once.
func startEach(ctx workflow.Context, practice string, ids []uuid.UUID, once bool) (known []uuid.UUID, err error) {
	for some := range slices.Chunk(ids, startedTogether) {
		children := make([]workflow.Future, len(some))
		for i, id := range some {
			children[i] = startTransmission(ctx, practice, id, once)
		}

		for i, child := range children {
			err := child.Get(ctx, nil)
			var started *temporal.ChildWorkflowExecutionAlreadyStartedError
			switch {
			case errors.As(err, &started):
				known = append(known, some[i])
			case err != nil:
				return known, err
			}
		}
	}
	return known, nil
}

func startTransmission(ctx workflow.Context, practice string, id uuid.UUID, once bool) workflow.Future {
	start := TransmissionStart(practice, id)
	start.Once = once
	in := TransmissionInput{ObservationRef: activities.ObservationRef{
		PracticeCode:  practice,
		ObservationID: id,
		Unasked:       true,
		LookUp:        !once,
	}}
	return workflow.ExecuteChildWorkflow(start.child(ctx), Transmission, in).GetChildWorkflowExecution()
}
