package activities

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// Prune holds the activities of the Prune workflow.
type Prune struct {
	Store *db.Store
	Keep  Keep
	// Logger writes what was deleted.
	Logger *slog.Logger
}

// Keep says how long data is kept; 0 is for ever.
type Keep struct {
	IdempotencyKeys time.Duration
	// Imports are kept for that long after they have finished.
	Imports time.Duration
	// Attempts are kept for that long after they began, and as long as eCW has not acknowledged the reading.
	Attempts time.Duration
	// Readings are kept for that long after eCW has acknowledged them, with everything that belongs to them.
	Readings time.Duration
	// Audit is how long a month of the audit trail is kept; the database keeps it for six years, whatever this says.
	Audit time.Duration
}

// The tables that are pruned.
const (
	tableIdempotencyKeys = "idempotency_keys"
	tableImportItems     = "patient_import_items"
	tableImports         = "patient_imports"
	tableAttempts        = "transmission_attempts"
	tableReadings        = "observations"
	tableSessions        = "sessions"
	tableSignInFailures  = "sign_in_failures"
	tableAudit           = "audit_events" // goes by months
)

// What nobody needs to set.
const (
	// keepSessions is for looking into a stolen token. After that the token is unknown, which refuses it too.
	keepSessions = 30 * 24 * time.Hour
	// keepSignInFailures is longer than any lock. Failures before a day without one count no more.
	keepSignInFailures = 24 * time.Hour
)

// PrunedTable is a table that is pruned, and how far that has come.
type PrunedTable struct {
	Table string
	// Before is the moment from which on rows are kept.
	Before time.Time
	// Deleted counts rows, and the months of the audit trail.
	Deleted int
	// OldestKept is the time of the oldest row that is left; zero when none is.
	OldestKept time.Time `json:",omitzero"`
}

// PlanPrune lists the tables to prune, in their order. What is kept for ever is left out. It also makes room in the audit
// trail for the months to come.
func (a *Prune) PlanPrune(ctx context.Context, _ string) ([]PrunedTable, error) {
	if _, err := a.Store.AddAuditMonths(ctx, audit.MonthsAhead); err != nil {
		return nil, fmt.Errorf("make room in the audit trail: %w", err)
	}
	var plan []PrunedTable
	now := time.Now().UTC().Truncate(time.Second)
	for _, table := range []struct {
		name string
		keep time.Duration
	}{
		{tableIdempotencyKeys, a.Keep.IdempotencyKeys},
		{tableImportItems, a.Keep.Imports},
		{tableImports, a.Keep.Imports},
		{tableAttempts, a.Keep.Attempts},
		{tableReadings, a.Keep.Readings},
		{tableSessions, keepSessions},
		{tableSignInFailures, keepSignInFailures},
		{tableAudit, a.Keep.Audit},
	} {
		if table.keep > 0 {
			plan = append(plan, PrunedTable{Table: table.name, Before: now.Add(-table.keep)})
		}
	}
	return plan, nil
}

// PruneBatch says what to delete next.
type PruneBatch struct {
	PracticeCode string
	Table        string
	Before       time.Time
	Limit        int
	// After is how far earlier batches have come in the table; the zero value begins with the oldest row.
	After PruneCursor `json:",omitzero"`
}

// PruneCursor is a place in the list of attempts, which is in the order of time.
type PruneCursor struct {
	StartedAt      time.Time
	TransmissionID uuid.UUID
	Delivery       int32
}

// BatchPruned is what a batch has done.
type BatchPruned struct {
	Deleted int
	// More means that the table may hold more to delete.
	More bool
	// Last is where the next batch goes on. Only attempts need it: some old ones are kept, and would be met
	// again. Of the other tables every old row that is found is deleted.
	Last PruneCursor `json:",omitzero"`
}

// PruneNext deletes the next batch of a table. It may run twice: the second time finds the next rows.
func (a *Prune) PruneNext(ctx context.Context, b PruneBatch) (BatchPruned, error) {
	switch b.Table {
	case tableAttempts:
		return a.pruneAttempts(ctx, b)
	case tableAudit:
		return a.pruneAudit(ctx, b)
	}
	deleted, err := a.deleteBatch(ctx, b)
	if err != nil {
		return BatchPruned{}, fmt.Errorf("prune %s: %w", b.Table, err)
	}
	return BatchPruned{Deleted: int(deleted), More: deleted >= int64(b.Limit)}, nil
}

func (a *Prune) deleteBatch(ctx context.Context, b PruneBatch) (deleted int64, err error) {
	practice, batch := b.PracticeCode, int32(b.Limit)
	switch b.Table {
	case tableIdempotencyKeys:
		return a.Store.PruneIdempotencyKeys(ctx, db.PruneIdempotencyKeysParams{PracticeCode: practice, Before: b.Before, Batch: batch})
	case tableImportItems:
		return a.Store.PruneImportItems(ctx, db.PruneImportItemsParams{PracticeCode: practice, Before: &b.Before, Batch: batch})
	case tableImports:
		return a.Store.PruneImports(ctx, db.PruneImportsParams{PracticeCode: practice, Before: &b.Before, Batch: batch})
	case tableReadings:
		return a.pruneReadings(ctx, b)
	case tableSessions:
		return a.Store.PruneSessions(ctx, db.PruneSessionsParams{PracticeCode: practice, Before: b.Before, Batch: batch})
	case tableSignInFailures:
		return a.Store.PruneSignInFailures(ctx, db.PruneSignInFailuresParams{PracticeCode: practice, Before: b.Before, Batch: batch})
	}
	return 0, fmt.Errorf("there is no table %q to prune: start a worker of the version that planned it", b.Table)
}

// pruneReadings deletes readings, and says in the audit trail which.
func (a *Prune) pruneReadings(ctx context.Context, b PruneBatch) (deleted int64, err error) {
	err = a.Store.InTx(ctx, func(q *db.Queries) error {
		rows, err := q.PruneReadings(ctx, db.PruneReadingsParams{PracticeCode: b.PracticeCode, Before: b.Before, Batch: int32(b.Limit)})
		if err != nil || len(rows) == 0 {
			return err
		}
		deleted = int64(len(rows))
		pruned := pruneEvent(b, audit.ObservationPrune, "Observation")
		pruned.Reason = fmt.Sprintf("%d acknowledged before %s", deleted, b.Before.Format(time.DateOnly))
		patients := map[uuid.UUID]bool{}
		for _, row := range rows {
			pruned.ResourceIDs = append(pruned.ResourceIDs, row.ID.String())
			patients[row.PatientID] = true
		}
		pruned.Patients = slices.Collect(maps.Keys(patients))
		return audit.Record(ctx, q, pruned)
	})
	return deleted, err
}

// pruneAudit drops the oldest month of the audit trail when all of it is old enough and sealed, and says in the trail which.
func (a *Prune) pruneAudit(ctx context.Context, b PruneBatch) (done BatchPruned, err error) {
	const day = 24 * time.Hour
	err = a.Store.InTx(ctx, func(q *db.Queries) error {
		month, err := q.DropAuditMonth(ctx, int32(time.Since(b.Before)/day))
		if db.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		done = BatchPruned{Deleted: 1, More: true}
		pruned := pruneEvent(b, audit.AuditPrune, "audit month")
		pruned.ResourceIDs = []string{audit.MonthName(month)}
		return audit.Record(ctx, q, pruned)
	})
	if err != nil {
		return BatchPruned{}, fmt.Errorf("prune the audit trail: %w", err)
	}
	return done, nil
}

func pruneEvent(b PruneBatch, action audit.Action, of string) audit.Event {
	return audit.Event{PracticeCode: b.PracticeCode, Subject: audit.System, Action: action, ResourceType: of}
}

// pruneAttempts deletes attempts that nobody needs to decide whether a reading may be sent. That is so once
// eCW has acknowledged it: Open finds its transmission delivered, and no delivery begins any more. A delivery
// that had begun before, and was held up until now, cannot mark itself as sent without its row, and then
// sends nothing.
func (a *Prune) pruneAttempts(ctx context.Context, b PruneBatch) (BatchPruned, error) {
	row, err := a.Store.PruneAttempts(ctx, db.PruneAttemptsParams{
		PracticeCode:        b.PracticeCode,
		Before:              b.Before,
		AfterStartedAt:      b.After.StartedAt,
		AfterTransmissionID: b.After.TransmissionID,
		AfterDelivery:       b.After.Delivery,
		Batch:               int32(b.Limit),
	})
	if db.IsNotFound(err) {
		return BatchPruned{}, nil
	}
	if err != nil {
		return BatchPruned{}, fmt.Errorf("prune attempts: %w", err)
	}
	return BatchPruned{
		Deleted: int(row.Pruned),
		More:    row.Looked >= int64(b.Limit),
		Last:    PruneCursor{StartedAt: row.StartedAt, TransmissionID: row.TransmissionID, Delivery: row.Delivery},
	}, nil
}

// PruneDone is what a prune has done.
type PruneDone struct {
	PracticeCode string
	Tables       []PrunedTable
}

// ReportPrune logs what was deleted, and adds the time of the oldest row that is left of each table.
func (a *Prune) ReportPrune(ctx context.Context, done PruneDone) ([]PrunedTable, error) {
	counts := []any{"practice", done.PracticeCode}
	for i, table := range done.Tables {
		counts = append(counts, table.Table, table.Deleted)
		oldest, err := a.oldest(ctx, done.PracticeCode, table.Table)
		if err != nil && !db.IsNotFound(err) {
			return nil, fmt.Errorf("look for the oldest of %s: %w", table.Table, err)
		}
		done.Tables[i].OldestKept = oldest
	}
	a.Logger.InfoContext(ctx, "old data pruned", counts...)
	return done.Tables, nil
}

// oldest is zero for a table whose rows have no time of their own, and for the tables of accounts, which tell nobody anything.
func (a *Prune) oldest(ctx context.Context, practice, table string) (time.Time, error) {
	switch table {
	case tableIdempotencyKeys:
		return a.Store.OldestIdempotencyKey(ctx, practice)
	case tableImports:
		return a.Store.OldestImport(ctx, practice)
	case tableAttempts:
		return a.Store.OldestAttempt(ctx, practice)
	case tableReadings:
		return a.Store.OldestDelivery(ctx, practice)
	case tableAudit:
		return a.Store.OldestAuditEvent(ctx)
	}
	return time.Time{}, nil
}
