package worker_test

import (
	"slices"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/worker"
)

func TestEnsureNamespaceCreatesOneOnce(t *testing.T) {
	t.Parallel()
	address, existing := stack.Temporal(t)
	fresh := existing + "_fresh"
	c := must(client.DialContext(t.Context(), client.Options{HostPort: address, Namespace: fresh}))(t)
	t.Cleanup(c.Close)
	for i, want := range []bool{true, false} {
		if created := must(worker.EnsureNamespace(t.Context(), c, fresh, 0))(t); created != want {
			t.Errorf("call %d: created %t, want %t", i+1, created, want)
		}
	}
	if kept := retention(t, c, fresh); kept != worker.Retention {
		t.Errorf("the namespace keeps histories for %s, want %s", kept, worker.Retention)
	}
	added := must(worker.RegisterSearchAttributes(t.Context(), c, fresh))(t)
	if !slices.Contains(added, "TransmissionStatus") {
		t.Errorf("search attributes added at once: %v", added)
	}
	if created := must(worker.EnsureNamespace(t.Context(), c, existing, 0))(t); created {
		t.Error("a namespace that existed is said to be created")
	}
}

func retention(t *testing.T, c client.Client, namespace string) time.Duration {
	t.Helper()
	got := must(c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: namespace}))(t)
	return got.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
}

// The time for which histories are kept follows the setting. Without one, an existing namespace stays as it is.
func TestEnsureNamespaceKeepsHistoriesForAsLongAsIsSet(t *testing.T) {
	t.Parallel()
	address, existing := stack.Temporal(t)
	fresh := existing + "_kept"
	c := must(client.DialContext(t.Context(), client.Options{HostPort: address, Namespace: fresh}))(t)
	t.Cleanup(c.Close)
	const day = 24 * time.Hour
	for _, step := range []struct{ set, want time.Duration }{
		{90 * day, 90 * day}, // when it is created
		{0, 90 * day},
		{7 * day, 7 * day},
		{7 * day, 7 * day},
	} {
		must(worker.EnsureNamespace(t.Context(), c, fresh, step.set))(t)
		if kept := retention(t, c, fresh); kept != step.want {
			t.Errorf("with %s set, the namespace keeps histories for %s, want %s", step.set, kept, step.want)
		}
	}
}
