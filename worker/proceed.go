package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/workflows"
)

// Proceed returns the function that tells a transmission's workflow, if it has one, to go on.
func Proceed(c client.Client) func(context.Context, uuid.UUID, activities.Call) (reached bool, err error) {
	return func(ctx context.Context, observationID uuid.UUID, call activities.Call) (bool, error) {
		err := c.SignalWorkflow(ctx, workflows.TransmissionWorkflowID(observationID), "", workflows.SignalProceed, call)
		var gone *serviceerror.NotFound
		switch {
		case errors.As(err, &gone):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("signal transmission: %w", err)
		}
		return true, nil
	}
}
