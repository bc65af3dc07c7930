// Package worker runs the workflows and activities: it registers them on their task queue and says how many at a time.
package worker

import (
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/workflows"
)

// stopTimeout lets a delivery that has begun end before the process does: one request to eCW takes 30 s at most.
const stopTimeout = 40 * time.Second

// New makes a worker for everything on the transmissions queue. The caller starts and stops it.
func New(c client.Client, transmission *activities.Transmission) worker.Worker {
	w := worker.New(c, workflows.TransmissionTaskQueue, worker.Options{WorkerStopTimeout: stopTimeout})
	w.RegisterWorkflow(workflows.Transmission)
	w.RegisterActivity(transmission)
	return w
}
