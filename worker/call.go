package worker

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/workflows"
)

// Call returns the function that tells a transmission's workflow to go on, and starts it anew where it was lost.
func Call(c client.Client) func(ctx context.Context, practice string, observationID uuid.UUID, call gate.Call) error {
	return func(ctx context.Context, practice string, observationID uuid.UUID, call gate.Call) error {
		options := workflows.TransmissionStart(practice, observationID).Options()
		in := workflows.TransmissionInput{ObservationRef: activities.ObservationRef{
			PracticeCode:  practice,
			ObservationID: observationID,
			Unasked:       true,
			LookUp:        true,
		}}
		_, err := c.SignalWithStartWorkflow(ctx, options.ID, workflows.SignalProceed, call, options, workflows.Transmission, in)
		if err != nil {
			return fmt.Errorf("signal transmission: %w", err)
		}
		return nil
	}
}

// startedTogether is how many transmissions one workflow is asked to start.
const startedTogether = 1_000

// Start returns the function that starts the transmissions of many observations.
func Start(c client.Client) func(ctx context.Context, practice string, observationIDs []uuid.UUID) error {
	return func(ctx context.Context, practice string, observationIDs []uuid.UUID) error {
		for ids := range slices.Chunk(observationIDs, startedTogether) {
			options := workflows.BatchStart(practice, uuid.New()).Options()
			batch := workflows.Batch{PracticeCode: practice, ObservationIDs: ids}
			if _, err := c.ExecuteWorkflow(ctx, options, workflows.StartTransmissions, batch); err != nil {
				return fmt.Errorf("start transmissions: %w", err)
			}
		}
		return nil
	}
}
