package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/types/known/durationpb"
)

// naive is what a first day with Temporal writes: a workflow of three activities, with Temporal's own retries. There is no
// record of the attempts, no limit, no look-up before a repetition: a reading may stand in the chart twice.
type naive struct {
	*stack
	embedded bool
}

func newNaive(s *stack) system { return &naive{s, false} }

func newNaiveDev(s *stack) system { return &naive{s, true} }

func (n *naive) Start(ctx context.Context) error {
	if err := n.startBase(ctx); err != nil {
		return err
	}
	if err := n.startTemporal(ctx, n.embedded); err != nil {
		return err
	}
	if err := n.ensureNamespace(ctx); err != nil {
		return err
	}
	n.workflowID = "reading/%s"
	return n.startRole(ctx, "naive")
}

// ensureNamespace makes the namespace, which takes the server some seconds to know.
func (n *naive) ensureNamespace(ctx context.Context) error {
	namespaces, err := client.NewNamespaceClient(client.Options{HostPort: n.temporal, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer namespaces.Close()
	var exists *serviceerror.NamespaceAlreadyExists
	err = namespaces.Register(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace:                        n.namespace,
		WorkflowExecutionRetentionPeriod: durationpb.New(72 * time.Hour),
	})
	if err != nil && !errors.As(err, &exists) {
		return err
	}

	c, err := client.DialContext(ctx, client.Options{HostPort: n.temporal, Namespace: n.namespace, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		_, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{})
		if err == nil {
			return nil
		}
		if paused := pause(ctx, 100*time.Millisecond); paused != nil {
			return err
		}
	}
}

const naiveQueue = "readings"

// naiveActivities are the three.
type naiveActivities struct {
	pool *pgxpool.Pool
	ehr  *poster
}

func (a *naiveActivities) Transform(ctx context.Context, id string) (json.RawMessage, error) {
	d, err := loadReading(ctx, a.pool, id)
	if err != nil {
		return nil, err
	}
	return transform(d)
}

func (a *naiveActivities) Authenticate(ctx context.Context) error {
	_, err := a.ehr.authenticate(ctx)
	return err
}

func (a *naiveActivities) Post(ctx context.Context, id string, resource json.RawMessage) error {
	ecwID, err := a.ehr.post(ctx, resource)
	if err != nil {
		return err
	}
	_, err = a.pool.Exec(ctx, updateReading, id, ecwID)
	return err
}

// naiveWorkflow delivers a reading.
func naiveWorkflow(ctx workflow.Context, id string) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 30 * time.Second})
	var a *naiveActivities
	var resource json.RawMessage
	if err := workflow.ExecuteActivity(ctx, a.Transform, id).Get(ctx, &resource); err != nil {
		return err
	}
	if err := workflow.ExecuteActivity(ctx, a.Authenticate).Get(ctx, nil); err != nil {
		return err
	}
	return workflow.ExecuteActivity(ctx, a.Post, id, resource).Get(ctx, nil)
}

// runNaive is the process's main function: intake and worker in one, as `vantrexia serve` is.
func runNaive(ctx context.Context, cfg roleConfig) error {
	pool, err := openPool(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	ehr, err := newPoster(cfg.EHR, cfg.KeyFile)
	if err != nil {
		return err
	}
	temporal, err := client.DialContext(ctx, client.Options{HostPort: cfg.Temporal, Namespace: cfg.Namespace})
	if err != nil {
		return err
	}
	defer temporal.Close()

	w := worker.New(temporal, naiveQueue, worker.Options{})
	w.RegisterWorkflow(naiveWorkflow)
	w.RegisterActivity(&naiveActivities{pool: pool, ehr: ehr})
	if err := w.Start(); err != nil {
		return err
	}
	defer w.Stop()

	return serveIntake(ctx, cfg.Address, func(ctx context.Context, d delivery) error {
		if _, err := pool.Exec(ctx, insertReading, d.row("pending", nil)...); err != nil {
			return err
		}
		options := client.StartWorkflowOptions{ID: "reading/" + d.Reading.ID, TaskQueue: naiveQueue}
		_, err := temporal.ExecuteWorkflow(ctx, options, naiveWorkflow, d.Reading.ID)
		return err
	})
}
