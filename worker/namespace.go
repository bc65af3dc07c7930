package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Retention is how long a namespace that EnsureNamespace made keeps the history of a workflow that has ended. The record of
// what was delivered is in the database and does not depend on it.
const Retention = 30 * 24 * time.Hour

// EnsureNamespace creates the namespace when the server does not have it, and reports whether it did. A namespace that exists
// is left as it is. On Temporal Cloud only an administrator creates namespaces; what the server says then is the error.
func EnsureNamespace(ctx context.Context, c client.Client, namespace string) (created bool, err error) {
	_, err = c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	var missing *serviceerror.NamespaceNotFound
	if err == nil || !errors.As(err, &missing) {
		return false, err
	}
	_, err = c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(Retention), Description: "Vantrexia's transmissions and imports",
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
