package workflows

import (
	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/db"
)

// TaskQueue is where the workers of a practice take its work from.
func TaskQueue(practice string) string { return "transmissions/" + practice }

// Start says how a workflow is started: under which id, on which queue, and what it is called in the Temporal Web UI. API,
// workers and other workflows all start workflows by it.
type Start struct {
	ID       string
	Practice string
	// Summary is the line that the Temporal Web UI shows.
	Summary string
	// Once refuses to start what ever ran under the id, as long as Temporal keeps its history; otherwise only one that still
	// runs is in the way.
	Once bool
	// Attributes are the search attributes that are known already.
	Attributes temporal.SearchAttributes
	// Eager has the worker of the same process, if it has one, begin at once, without asking Temporal for work.
	Eager bool
}

// TransmissionStart starts the one workflow that may carry an observation at a time.
func TransmissionStart(practice string, observationID uuid.UUID) Start {
	return Start{
		ID:       TransmissionWorkflowID(observationID),
		Practice: practice,
		Summary:  "Carries one reading into the EHR",
	}
}

// FirstTransmissionStart is TransmissionStart for a reading that was stored just now.
func FirstTransmissionStart(practice string, o db.Observation) Start {
	start := TransmissionStart(practice, o.ID)
	start.Once = true
	start.Eager = true
	start.Attributes = temporal.NewSearchAttributes(append(carries(o.ID, o.PatientID, o.ObservationType),
		attrTransmissionStatus.ValueSet(db.StatusPending),
		attrAttemptCount.ValueSet(0))...)
	return start
}

// BatchStart starts the workflow that starts the transmissions of a batch.
func BatchStart(practice string, request uuid.UUID) Start {
	return Start{
		ID:       "start-transmissions/" + request.String(),
		Practice: practice,
		Summary:  "Starts the transmissions of a batch",
	}
}

// SweepStart starts a sweep that a person asked for, beside the scheduled ones.
func SweepStart(practice string, request uuid.UUID) Start {
	return Start{
		ID:       "process-pending/" + request.String(),
		Practice: practice,
		Summary:  "Starts whatever is pending",
	}
}

// ImportStart starts an import, which runs once.
func ImportStart(practice string, importID uuid.UUID) Start {
	return Start{
		ID:       ImportPatientsWorkflowID(importID),
		Practice: practice,
		Summary:  "Imports patients from eCW",
		Once:     true,
	}
}

// CircuitBreakerStart starts the one workflow that looks after a practice's open circuit.
func CircuitBreakerStart(practice string) Start {
	return Start{
		ID:       CircuitBreakerWorkflowID(practice),
		Practice: practice,
		Summary:  "Tries eCW now and then while it is unavailable or refuses us",
	}
}

// Options are the options of a client. One that runs already is used, unless it may run once only.
func (s Start) Options() client.StartWorkflowOptions {
	options := client.StartWorkflowOptions{
		ID:                       s.ID,
		TaskQueue:                TaskQueue(s.Practice),
		StaticSummary:            s.Summary,
		WorkflowIDReusePolicy:    s.reuse(),
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		TypedSearchAttributes:    s.Attributes,
		EnableEagerStart:         s.Eager,
	}
	if s.Once {
		options.WorkflowIDConflictPolicy = enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL
		options.WorkflowExecutionErrorWhenAlreadyStarted = true
	}
	return options
}

// child is a context for starting it from another workflow, which it outlives.
func (s Start) child(ctx workflow.Context) workflow.Context {
	return workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            s.ID,
		TaskQueue:             TaskQueue(s.Practice),
		StaticSummary:         s.Summary,
		WorkflowIDReusePolicy: s.reuse(),
		TypedSearchAttributes: s.Attributes,
		ParentClosePolicy:     enums.PARENT_CLOSE_POLICY_ABANDON,
	})
}

func (s Start) reuse() enums.WorkflowIdReusePolicy {
	if s.Once {
		return enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	}
	return enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
}
