package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
)

const (
	// pruneBatch is how many rows one statement of a prune deletes. A thousand take milliseconds, so nobody
	// waits for the locks.
	pruneBatch = 1000
	// pruneBatches is how many statements one run of a prune makes before it continues as new, so that its
	// history stays small however much is deleted.
	pruneBatches = 500
)

// PruneInput names the practice, and holds how far earlier runs of the same prune have come.
type PruneInput struct {
	PracticeCode string
	// Tables is the plan; nil: there is none yet. Those before At are done.
	Tables []activities.PrunedTable `json:",omitempty"`
	At     int                      `json:",omitempty"`
	After  activities.PruneCursor   `json:",omitzero"`
}

// Prune deletes what the settings say is kept no longer, in small batches, and returns how much that was. A
// schedule starts it daily.
func Prune(ctx workflow.Context, in PruneInput) ([]activities.PrunedTable, error) {
	p := pruning{in: in}
	if err := p.plan(ctx); err != nil {
		return nil, err
	}
	for batches := 0; p.in.At < len(p.in.Tables); batches++ {
		if batches == pruneBatches {
			return nil, workflow.NewContinueAsNewError(ctx, Prune, p.in)
		}
		if err := p.next(ctx); err != nil {
			return nil, err
		}
	}
	return p.report(ctx)
}

// pruning is the state of one run of Prune.
type pruning struct {
	do *activities.Prune // nil: it only names the methods
	in PruneInput
}

// plan is made once, so that all runs of a prune, however long they take, go by the same moments.
func (p *pruning) plan(ctx workflow.Context) error {
	if p.in.Tables != nil {
		return nil
	}
	ask := workflow.ExecuteActivity(untilDone(ctx, "what to prune"), p.do.PlanPrune, p.in.PracticeCode)
	return ask.Get(ctx, &p.in.Tables)
}

// next deletes a batch of the table that is pruned now.
func (p *pruning) next(ctx workflow.Context) error {
	table := &p.in.Tables[p.in.At]
	p.show(ctx)
	batch := activities.PruneBatch{
		PracticeCode: p.in.PracticeCode,
		Table:        table.Table,
		Before:       table.Before,
		Limit:        pruneBatch,
		After:        p.in.After,
	}
	var done activities.BatchPruned
	if err := workflow.ExecuteActivity(untilDone(ctx, "prune "+table.Table), p.do.PruneNext, batch).Get(ctx, &done); err != nil {
		return err
	}

	table.Deleted += done.Deleted
	p.in.After = done.Last
	if !done.More {
		p.in.At++
		p.in.After = activities.PruneCursor{}
	}
	return nil
}

func (p *pruning) report(ctx workflow.Context) ([]activities.PrunedTable, error) {
	var tables []activities.PrunedTable
	done := activities.PruneDone{PracticeCode: p.in.PracticeCode, Tables: p.in.Tables}
	if err := workflow.ExecuteActivity(untilDone(ctx, "sum up"), p.do.ReportPrune, done).Get(ctx, &tables); err != nil {
		return nil, err
	}
	p.in.Tables = tables
	p.show(ctx)
	return tables, nil
}

// show says to people how far it has come.
func (p *pruning) show(ctx workflow.Context) {
	details := "### Deletes old data\n"
	if p.in.At == len(p.in.Tables) {
		details = "### Has deleted old data\n"
	}
	for _, table := range p.in.Tables {
		details += fmt.Sprintf("\n- `%s` before %s: **%d** deleted", table.Table, table.Before.Format(timeForm), table.Deleted)
		if !table.OldestKept.IsZero() {
			details += ", the oldest that is kept is of " + table.OldestKept.Format(timeForm)
		}
	}
	workflow.SetCurrentDetails(ctx, details)
}
