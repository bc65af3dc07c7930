package worker

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/workflows"
)

// Call returns the function that tells a transmission's workflow to go on, and starts it anew where it was lost.
func Call(c client.Client) func(ctx context.Context, practice string, observationID uuid.UUID, call gate.Call) error {
	return func(ctx context.Context, practice string, observationID uuid.UUID, call gate.Call) error {
		id := workflows.TransmissionWorkflowID(observationID)
		options := client.StartWorkflowOptions{
			ID: id, TaskQueue: workflows.TaskQueue(practice), WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			StaticSummary: workflows.TransmissionSummary,
		}
		ref := activities.ObservationRef{PracticeCode: practice, ObservationID: observationID, Unasked: true, LookUp: true}
		_, err := c.SignalWithStartWorkflow(ctx, id, workflows.SignalProceed, call, options, workflows.Transmission, workflows.TransmissionInput{ObservationRef: ref})
		if err != nil {
			return fmt.Errorf("signal transmission: %w", err)
		}
		return nil
	}
}
