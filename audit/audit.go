// Package audit is the trail of who has done what to whose data: one row for each read and each write of patient
// data, in the transaction of the action itself, and rows for sign-ins, refusals, and the use of keys.
//
// # What can be proved
//
// Three things are built on one another, so that the trail can be trusted by somebody who trusts neither the database's
// administrator nor our processes:
//
//   - Each connection to the database is a writer. Its rows are numbered, and each has a MAC of itself and of the MAC of the
//     row before it, under a key that the database does not have (keyring, keyset audit). A row that is changed or put
//     elsewhere does not fit its MAC, one that is removed leaves a gap. No row waits for a lock.
//   - A [Sealer] appends the digests of new rows to a Merkle log, a minute after they were written at the latest. What it
//     has sealed, nobody can change any more without being noticed, not even somebody who has the key.
//   - The sealer signs a checkpoint of the log, and puts it into the process's log and into a file outside of the database.
//     A database in which all of the trail was emptied, put back or made anew disagrees with them.
//
// [Verify] checks all of it, and names every row that is not as it was written. What it cannot prove is the end of a
// writer that is gone: when a connection has ended, the rows that it had written after the last seal may have been removed
// together, a minute's at most. And a row of a transaction that was rolled back has a code as well: who finds it in the
// database's files could add it there, as the writer's last.
package audit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// The subjects that are no accounts.
const (
	// System is the subject of what happens by itself: deliveries, imports, sweeps.
	System = "vantrexia"
	// Local is the subject of what the command line does; its address is the machine's name.
	Local = "local"
)

// Outcome says how an action ended.
type Outcome string

// The outcomes.
const (
	Success Outcome = db.AuditSuccess
	Refused Outcome = db.AuditRefused // the caller may not do it
	Failure Outcome = db.AuditFailure // it was begun and did not succeed
)

// Event is one row of the trail: ids, and never a value.
type Event struct {
	PracticeCode string
	// Subject is the id of an account or of an API key, [Local], [System], or empty for somebody unknown.
	Subject string
	Role    string
	// TokenID is the id of the bearer token or the session, never the token.
	TokenID string
	// Address is the caller's IP address.
	Address string
	Action  Action
	// ResourceType is what the ids are of: a FHIR type, or one of the words that [Action] uses.
	ResourceType string
	ResourceIDs  []string
	// Patients are those whose data was seen or changed.
	Patients []uuid.UUID
	// Outcome is Success when it is empty.
	Outcome Outcome
	// Reason is a code, or what a person gave as the reason.
	Reason string
}

// Record writes rows in the transaction of the action that they are about. When it fails, so must the action; the error
// wraps [db.ErrAudit].
func Record(ctx context.Context, q *db.Queries, events ...Event) error {
	rows := make([]db.NewAuditEvent, len(events))
	for i, e := range events {
		rows[i] = e.row()
	}
	return q.AddAuditEvents(ctx, rows...)
}

// RecordNow writes rows in a transaction of their own: before data is shown, or before something is done elsewhere than
// in the database.
func RecordNow(ctx context.Context, store *db.Store, events ...Event) error {
	return store.InTx(ctx, func(q *db.Queries) error { return Record(ctx, q, events...) })
}

func (e Event) row() db.NewAuditEvent {
	if e.Outcome == "" {
		e.Outcome = Success
	}
	return db.NewAuditEvent{
		PracticeCode: e.PracticeCode,
		Subject:      e.Subject,
		Role:         e.Role,
		TokenID:      e.TokenID,
		Address:      e.Address,
		Action:       string(e.Action),
		ResourceType: e.ResourceType,
		ResourceIDs:  e.ResourceIDs,
		PatientIDs:   e.Patients,
		Outcome:      string(e.Outcome),
		Reason:       e.Reason,
	}
}

// MonthsAhead is how many months the trail has room for in advance.
const MonthsAhead = 24

// Keep is how long a month of the trail is kept by default, as the Vantrexia platform does: 7 years.
const Keep = 7 * 366 * 24 * time.Hour
