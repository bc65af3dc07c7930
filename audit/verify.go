package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// Row names a row of the trail.
type Row struct {
	Writer   uuid.UUID
	Sequence int64
	// RecordedAt is when it was written; of a row that is missing, a time near to it.
	RecordedAt time.Time
}

func (r Row) String() string {
	return fmt.Sprintf("row %d of writer %s, %s", r.Sequence, r.Writer, r.RecordedAt.UTC().Format(time.RFC3339))
}

// Finding is something that is not as it was written.
type Finding struct {
	// Row is nil when the finding is about the log.
	Row  *Row
	What string
}

func (f Finding) String() string {
	if f.Row == nil {
		return f.What
	}
	return f.Row.String() + ": " + f.What
}

// Report is what a verification has looked at and found.
type Report struct {
	// Rows is how many there are, Sealed how many of them are sealed, Leaves how many seals.
	Rows, Sealed, Leaves int64
	// OldestUnsealed is zero when all rows are sealed.
	OldestUnsealed time.Time
	// PrunedBefore is the moment before which rows were pruned, as the trail itself says; zero when none were.
	PrunedBefore time.Time
	// Checkpoints is how many checkpoints were compared with the log, Outside how many of them came from outside of the
	// database.
	Checkpoints, Outside int
	Findings             []Finding
}

func (r *Report) find(row *Row, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{row, fmt.Sprintf(format, args...)})
}

// verifyBatch is how many rows and seals are in memory at a time.
const verifyBatch = 1000

// Verify checks the whole trail: each row's code and its place in its writer's chain, each sealed row's digest, and
// the log's root at every checkpoint, at those of the database and at the given ones, which the sealer has put outside of
// it. It changes nothing, and may run beside everything else. An error means that it could not check; what is wrong
// with the trail stands in the report.
func Verify(ctx context.Context, store *db.Store, keys *keyring.Keyring, practice string, outside []string) (Report, error) {
	var report Report
	err := store.InSnapshot(ctx, func(q *db.Queries) error {
		v := &verifier{ctx: ctx, q: q, keys: keys, practice: practice, report: &report}
		if err := v.checkLog(outside); err != nil {
			return err
		}
		return v.checkRows()
	})
	return report, err
}

// verifier is one Verify.
type verifier struct {
	ctx      context.Context
	q        *db.Queries
	keys     *keyring.Keyring
	practice string
	report   *Report
	keyless  int // rows whose key is missing
}
