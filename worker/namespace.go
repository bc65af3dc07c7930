package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Retention is how long a namespace that EnsureNamespace made keeps the history of a workflow that has ended, unless it is
// told otherwise. The record of what was delivered is in the database and does not depend on it.
const Retention = 30 * 24 * time.Hour

// EnsureNamespace creates the namespace when the server does not have it, and reports whether it did. It has the namespace
// keep histories for the given time; 0 leaves an existing namespace as it is. On Temporal Cloud only an administrator creates
// and changes namespaces; what the server says then is the error.
func EnsureNamespace(ctx context.Context, c client.Client, namespace string, retention time.Duration) (created bool, err error) {
	existing, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err == nil {
		return false, changeRetention(ctx, c, existing, retention)
	}
	var missing *serviceerror.NamespaceNotFound
	if !errors.As(err, &missing) {
		return false, err
	}
	_, err = c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace:                        namespace,
		WorkflowExecutionRetentionPeriod: durationpb.New(cmp.Or(retention, Retention)),
		Description:                      "Vantrexia's transmissions and imports",
	})
	var exists *serviceerror.NamespaceAlreadyExists
	if errors.As(err, &exists) { // another migrate was faster
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create the namespace: %w", err)
	}
	return true, awaitNamespace(ctx, c, namespace)
}

func changeRetention(
	ctx context.Context, c client.Client, existing *workflowservice.DescribeNamespaceResponse, retention time.Duration,
) error {
	if retention == 0 || existing.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration() == retention {
		return nil
	}
	_, err := c.WorkflowService().UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
		Namespace: existing.GetNamespaceInfo().GetName(),
		Config:    &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(retention)},
	})
	if err != nil {
		return fmt.Errorf("change how long histories are kept; where only an administrator may, leave RETAIN_HISTORIES out: %w", err)
	}
	return nil
}

// awaitNamespace asks until the server's services have noticed the new namespace: they look every few seconds.
func awaitNamespace(ctx context.Context, c client.Client, namespace string) error {
	for {
		_, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
		var missing *serviceerror.NamespaceNotFound
		if !errors.As(err, &missing) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the new namespace is not there yet: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
