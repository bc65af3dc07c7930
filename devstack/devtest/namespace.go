package devtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

// dynamicConfig lets the server notice new search attributes at once; it looks every two seconds by default.
func (s *Stack) dynamicConfig() map[string]any {
	values := map[string]any{"system.namespaceCacheRefreshInterval": "50ms"}
	maps.Copy(values, s.DynamicConfig)
	return values
}

// register creates the namespace and returns when workflows with the search attributes can be started in it.
func register(ctx context.Context, address, namespace string, attributes map[string]string) error {
	options := client.Options{HostPort: address, Namespace: namespace}
	namespaces, err := client.NewNamespaceClient(options)
	if err != nil {
		return fmt.Errorf("namespace: %w", err)
	}
	defer namespaces.Close()

	err = namespaces.Register(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace:                        namespace,
		WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	if err != nil {
		return fmt.Errorf("register namespace: %w", err)
	}
	if len(attributes) == 0 {
		return nil
	}

	c, err := client.DialContext(ctx, options)
	if err != nil {
		return fmt.Errorf("namespace: %w", err)
	}
	defer c.Close()

	types := map[string]enumspb.IndexedValueType{}
	for name, kind := range attributes {
		if types[name], err = enumspb.IndexedValueTypeFromString(kind); err != nil {
			return fmt.Errorf("search attribute %s: %w", name, err)
		}
	}

	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: namespace, SearchAttributes: types,
	})
	if err != nil {
		return fmt.Errorf("add search attributes: %w", err)
	}

	for name := range types {
		if err := awaitAttribute(ctx, c, name); err != nil {
			return fmt.Errorf("search attribute %s: %w", name, err)
		}
	}

	return nil
}

// awaitAttribute waits until the server knows the attribute.
func awaitAttribute(ctx context.Context, c client.Client, name string) error {
	for {
		_, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: name + " IS NULL"})
		var unknown *serviceerror.InvalidArgument
		if !errors.As(err, &unknown) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
