package workflows

import (
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

func (t *transmission) takeUpdates(ctx workflow.Context) error {
	err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateTransmitNow, t.onTransmitNow, workflow.UpdateHandlerOptions{
		Validator: t.refuseWhileDelivering, Description: "Deliver now instead of waiting for the next retry.",
	})
	if err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, UpdateTransform, t.onTransform, workflow.UpdateHandlerOptions{
		Validator: t.refuseWhileDelivering, Description: "Make the FHIR resource again from the reading and the patient.",
	})
}

func (t *transmission) refuseWhileDelivering(workflow.Context) error {
	if t.phase == delivering || t.phase == finished {
		return temporal.NewNonRetryableApplicationError("a delivery is in progress: wait for its outcome", ErrInProgress, nil)
	}
	return nil
}

// onTransmitNow ends the wait. A transmission that is only starting delivers at once anyway.
func (t *transmission) onTransmitNow(ctx workflow.Context) (TransmissionState, error) {
	if t.phase == waiting {
		t.transmitNow = true
		return t.state(), nil
	}
	return t.whenOpened(ctx)
}

func (t *transmission) onTransform(ctx workflow.Context) (TransmissionState, error) {
	if t.phase == starting {
		return t.whenOpened(ctx)
	}
	err := t.transform(ctx)
	return t.state(), err
}

// whenOpened answers after the first Transform, which names the transmission or refuses the reading.
func (t *transmission) whenOpened(ctx workflow.Context) (TransmissionState, error) {
	err := workflow.Await(ctx, func() bool { return t.phase != starting || t.opened.Delivered })
	if err == nil && t.opened.TransmissionID == "" {
		err = temporal.NewNonRetryableApplicationError("the reading makes no valid Observation", "permanent_data", nil)
	}
	return t.state(), err
}
