package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"

	enums "go.temporal.io/api/enums/v1"

	"github.com/vantrexia/vantrexia/workflows"
)

// RegisterSearchAttributes adds the search attributes that the namespace lacks. It returns their names; none when all
// were there. On Temporal Cloud, where only an administrator may add them, CheckSearchAttributes says which are missing.
func RegisterSearchAttributes(ctx context.Context, c client.Client, namespace string) ([]string, error) {
	missing, err := missingSearchAttributes(ctx, c, namespace)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	types := map[string]enums.IndexedValueType{}
	for _, name := range missing {
		types[name] = workflows.SearchAttributes()[name]
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: types})
	if err != nil {
		return nil, fmt.Errorf("register search attributes: %w", err)
	}
	return missing, nil
}

// CheckSearchAttributes fails when the namespace lacks one: a workflow that sets it would stand still.
func CheckSearchAttributes(ctx context.Context, c client.Client, namespace string) error {
	missing, err := missingSearchAttributes(ctx, c, namespace)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("the namespace %q lacks the search attributes %s: run `vantrexia migrate`", namespace, strings.Join(missing, ", "))
	}
	return nil
}

func missingSearchAttributes(ctx context.Context, c client.Client, namespace string) ([]string, error) {
	known, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("list search attributes: %w", err)
	}
	var missing []string
	for name := range workflows.SearchAttributes() {
		if _, ok := known.GetCustomAttributes()[name]; !ok {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return missing, nil
}
