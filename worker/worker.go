// Package worker runs the workflows and activities: it registers them on their task queue, says how many at a time, and
// keeps the schedules.
package worker

import (
	"context"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/workflows"
)

// Activities is everything that the workflows ask for.
type Activities struct {
	Transmission  *activities.Transmission
	Pending       *activities.Pending
	PatientImport *activities.PatientImport
	Circuit       *activities.Circuit
	Prune         *activities.Prune
}

// Worker takes the work of a practice.
type Worker struct {
	worker.Worker
	drain  time.Duration
	failed chan error
}

// New makes a worker for everything of a practice. drain is how long it may take, when it stops, to finish what it holds.
func New(c client.Client, practice string, do Activities, drain time.Duration) *Worker {
	failed := make(chan error, 1)
	w := worker.New(c, workflows.TaskQueue(practice), worker.Options{
		WorkerStopTimeout: drain + ReportTime,
		// The SDK's second is too short for a machine that is busy with something else.
		DeadlockDetectionTimeout: 5 * time.Second,
		Interceptors:             []interceptor.WorkerInterceptor{&discreet{}, &drainer{after: drain}, &guard{practice: practice}},
		OnFatalError:             func(err error) { failed <- err },
	})
	w.RegisterWorkflow(workflows.Transmission)
	w.RegisterWorkflow(workflows.StartTransmissions)
	w.RegisterWorkflow(workflows.ProcessPending)
	w.RegisterWorkflow(workflows.CircuitBreaker)
	w.RegisterWorkflow(workflows.ImportPatients)
	w.RegisterWorkflow(workflows.ImportChunk)
	w.RegisterWorkflow(workflows.RefreshPatients)
	w.RegisterWorkflow(workflows.Prune)
	w.RegisterActivity(do.Transmission)
	w.RegisterActivity(do.Pending)
	w.RegisterActivity(do.PatientImport)
	w.RegisterActivity(do.Circuit)
	w.RegisterActivity(do.Prune)
	return &Worker{Worker: w, drain: drain, failed: failed}
}

// Run works until ctx ends, then takes nothing new and finishes what it holds. It returns at the latest drain + ReportTime
// after that, and with an error when Temporal does not let it start or go on. started is called when it takes work.
func (w *Worker) Run(ctx context.Context, started func()) error {
	if err := w.Start(); err != nil {
		return err
	}
	started()
	select {
	case err := <-w.failed: // the SDK has stopped the worker
		return err
	case <-ctx.Done():
	}
	stopped := make(chan struct{})
	go func() {
		w.Stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(w.drain + ReportTime): // Temporal is away too; it notices that the worker is gone
	}
	return nil
}
