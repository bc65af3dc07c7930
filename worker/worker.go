// Package worker runs the workflows and activities: it registers them on their task queue, says how many at a time, and
// keeps the schedules.
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

// Activities is everything that the workflows ask for.
type Activities struct {
	Transmission  *activities.Transmission
	Pending       *activities.Pending
	PatientImport *activities.PatientImport
}

// New makes a worker for everything on the transmissions queue. The caller starts and stops it.
func New(c client.Client, do Activities) worker.Worker {
	w := worker.New(c, workflows.TransmissionTaskQueue, worker.Options{WorkerStopTimeout: stopTimeout})
	w.RegisterWorkflow(workflows.Transmission)
	w.RegisterWorkflow(workflows.ProcessPending)
	w.RegisterWorkflow(workflows.ImportPatients)
	w.RegisterWorkflow(workflows.ImportPatient)
	w.RegisterWorkflow(workflows.RefreshPatients)
	w.RegisterActivity(do.Transmission)
	w.RegisterActivity(do.Pending)
	w.RegisterActivity(do.PatientImport)
	return w
}
