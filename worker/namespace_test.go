package worker_test

import (
	"slices"
	"testing"

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
		if created := must(worker.EnsureNamespace(t.Context(), c, fresh))(t); created != want {
			t.Errorf("call %d: created %t, want %t", i+1, created, want)
		}
	}
	got := must(c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: fresh}))(t)
	if kept := got.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); kept != worker.Retention {
		t.Errorf("the namespace keeps histories for %s, want %s", kept, worker.Retention)
	}
	added := must(worker.RegisterSearchAttributes(t.Context(), c, fresh))(t)
	if !slices.Contains(added, "TransmissionStatus") {
		t.Errorf("search attributes added at once: %v", added)
	}
	if created := must(worker.EnsureNamespace(t.Context(), c, existing))(t); created {
		t.Error("a namespace that existed is said to be created")
	}
}
