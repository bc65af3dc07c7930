package workflows

import (
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
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

// takeSignals notes the signals; the wait ends by them.
func (t *transmission) takeSignals(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			workflow.GetSignalChannel(ctx, SignalCancel).Receive(ctx, &t.wanted)
			t.cancelled = true
		}
	})
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var call gate.Call
			workflow.GetSignalChannel(ctx, SignalProceed).Receive(ctx, &call)
			t.called = &call
		}
	})
}

// drain takes the signals that nobody waits for any more, of which the SDK would warn.
func (t *transmission) drain(ctx workflow.Context) {
	for workflow.GetSignalChannel(ctx, SignalCancel).ReceiveAsync(&t.wanted) {
		t.cancelled = true
	}
	for workflow.GetSignalChannel(ctx, SignalProceed).ReceiveAsync(nil) {
	}
}

func (t *transmission) refuseWhileDelivering(workflow.Context, Request) error {
	if t.phase == delivering || t.phase == finished {
		return inProgress()
	}
	return nil
}

func inProgress() error {
	return temporal.NewNonRetryableApplicationError("a delivery is in progress: wait for its outcome", ErrInProgress, nil)
}

// onTransmitNow ends the wait.
func (t *transmission) onTransmitNow(ctx workflow.Context, req Request) (TransmissionState, error) {
	t.transmitNow, t.wanted = true, req
	if t.phase == waiting {
		return t.state(), nil
	}
	return t.whenOpened(ctx)
}

func (t *transmission) onTransform(ctx workflow.Context, _ Request) (TransmissionState, error) {
	if t.phase == starting {
		return t.whenOpened(ctx)
	}
	err := t.transform(ctx)
	return t.state(), err
}

// whenOpened answers after the first Transform, which names the transmission or refuses the reading.
func (t *transmission) whenOpened(ctx workflow.Context) (TransmissionState, error) {
	err := workflow.Await(ctx, func() bool { return t.phase != starting })
	switch {
	case err != nil:
	case t.opened.LeftAlone: // this run is a sweep's and about to end; the next request starts one of its own
		err = inProgress()
	case t.transformed.IsZero() && !t.opened.Delivered:
		err = temporal.NewNonRetryableApplicationError("The reading makes no valid Observation: see the transmission's error", string(ecw.ClassPermanentData), nil)
	}
	return t.state(), err
}
