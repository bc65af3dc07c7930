package workflows

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
)

// prune stands in for the activities of Prune, with a database that holds so many full batches of old rows in
// each of two tables. The real activities run in the tests of package worker.
type prune struct {
	env     *testsuite.TestWorkflowEnvironment
	full    int
	planned int
	batches []activities.PruneBatch
}

var pruneBefore = time.Date(2024, 2, 6, 9, 0, 0, 0, time.UTC)

func newPrune(full int) *prune {
	p := &prune{env: newEnvironment(), full: full}
	p.env.RegisterActivity(p.PlanPrune)
	p.env.RegisterActivity(p.PruneNext)
	p.env.RegisterActivity(p.ReportPrune)
	return p
}

func (p *prune) PlanPrune(context.Context, string) ([]activities.PrunedTable, error) {
	p.planned++
	return []activities.PrunedTable{{Table: "first", Before: pruneBefore}, {Table: "second", Before: pruneBefore}}, nil
}

func (p *prune) PruneNext(_ context.Context, b activities.PruneBatch) (activities.BatchPruned, error) {
	p.batches = append(p.batches, b)
	last := b.After
	last.Delivery++
	if int(last.Delivery) > p.full {
		return activities.BatchPruned{Deleted: 3, Last: last}, nil
	}
	return activities.BatchPruned{Deleted: b.Limit, More: true, Last: last}, nil
}

func (p *prune) ReportPrune(_ context.Context, done activities.PruneDone) ([]activities.PrunedTable, error) {
	return done.Tables, nil
}

// However much there is, each run takes a bounded number of small batches, and the next run goes on where it
// ended.
func TestAPruneGoesOnToTheEnd(t *testing.T) {
	t.Parallel()
	const full = pruneBatches - 1 // with the last, which is not full, a run's worth for each table
	in, planned, runs := &PruneInput{PracticeCode: "FFHEDD"}, 0, 0
	var batches []activities.PruneBatch
	var result []activities.PrunedTable
	for in != nil {
		runs++
		p := newPrune(full)
		p.env.ExecuteWorkflow(Prune, *in)
		in = continuedAs(t, p.env)
		planned += p.planned
		batches = append(batches, p.batches...)
		if len(p.batches) > pruneBatches || runs > 3 {
			t.Fatalf("run %d takes %d batches", runs, len(p.batches))
		}
		if in == nil {
			if err := p.env.GetWorkflowResult(&result); err != nil {
				t.Fatal(err)
			}
		}
	}

	if planned != 1 || runs != 2 || len(batches) != 2*(full+1) {
		t.Errorf("%d runs plan %d times, and take %d batches", runs, planned, len(batches))
	}
	for i, batch := range batches {
		want := activities.PruneBatch{
			PracticeCode: "FFHEDD",
			Table:        []string{"first", "second"}[i/(full+1)],
			Before:       pruneBefore,
			Limit:        1000,
			After:        activities.PruneCursor{Delivery: int32(i % (full + 1))},
		}
		if batch != want {
			t.Fatalf("batch %d is %+v, want %+v", i, batch, want)
		}
	}
	want := []activities.PrunedTable{
		{Table: "first", Before: pruneBefore, Deleted: full*1000 + 3},
		{Table: "second", Before: pruneBefore, Deleted: full*1000 + 3},
	}
	if !slices.Equal(result, want) {
		t.Errorf("the result is %+v, want %+v", result, want)
	}
}

// continuedAs is what a run continues as; nil when it has ended well.
func continuedAs(t *testing.T, env *testsuite.TestWorkflowEnvironment) *PruneInput {
	t.Helper()
	err := env.GetWorkflowError()
	if err == nil {
		return nil
	}
	var again *workflow.ContinueAsNewError
	if !errors.As(err, &again) {
		t.Fatal(err)
	}
	var next PruneInput
	if err := converter.GetDefaultDataConverter().FromPayloads(again.Input, &next); err != nil {
		t.Fatal(err)
	}
	return &next
}
