package db

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/google/uuid"
)

const auditColumns = "recorded_at, writer, sequence, practice_code, subject, role, token_id, address, action, resource_type, " +
	"resource_ids, patient_ids, outcome, reason, code_before, code, key_id"

// AuditFilter says which rows of the audit trail are listed; nil lists all.
type AuditFilter struct {
	PracticeCode string
	// PatientID lists what was done with the data of one patient.
	PatientID *uuid.UUID
	Subject   *string
	Action    *string
	Outcome   *string
	// From and To bound recorded_at: from From on, and before To.
	From *time.Time
	To   *time.Time
}

// AuditKey is the place of a row in the trail.
type AuditKey struct {
	At       time.Time `json:"at"`
	Writer   uuid.UUID `json:"writer"`
	Sequence int64     `json:"sequence"`
}

// Key returns the place of the row in the trail.
func (e AuditEvent) Key() AuditKey { return AuditKey{e.RecordedAt, e.Writer, e.Sequence} }

// ListAuditEvents lists a page of the trail, the newest rows first, and counts the list up to one more than
// [CountedExactly].
func (q *Queries) ListAuditEvents(ctx context.Context, f AuditFilter, p Page[AuditKey]) ([]AuditEvent, int64, error) {
	var counted statement
	count, err := q.count(ctx, &counted, f.all(&counted))
	if err != nil {
		return nil, 0, err
	}
	rows, err := q.auditPage(ctx, f, p)
	return rows, count, err
}

func (q *Queries) auditPage(ctx context.Context, f AuditFilter, p Page[AuditKey]) ([]AuditEvent, error) {
	var listed statement
	return list[AuditEvent](ctx, q, &listed, f.page(&listed, p))
}

// auditBatch is how many rows AuditEvents reads at a time.
const auditBatch = 1000

// AuditEvents goes through all rows that pass the filter, the newest first. It reads some at a time, so that a slow reader
// holds no connection and no snapshot; rows that are added meanwhile are newer than those that follow.
func (q *Queries) AuditEvents(ctx context.Context, f AuditFilter) iter.Seq2[AuditEvent, error] {
	return func(yield func(AuditEvent, error) bool) {
		for p := (Page[AuditKey]{Limit: auditBatch}); ; {
			rows, err := q.auditPage(ctx, f, p)
			if err != nil {
				yield(AuditEvent{}, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			if len(rows) < auditBatch {
				return
			}
			last := rows[len(rows)-1].Key()
			p.After = &last
		}
	}
}

// all returns the query for the rows that pass the filter, to be counted. They are read in the order of an index: a plan
// that reads the table from its start may meet no fitting row for long.
func (f AuditFilter) all(s *statement) string {
	if f.PatientID != nil {
		return f.ofPatient(s, true, nil) + `
SELECT
FROM of_patient`
	}
	return `
SELECT
FROM audit_events e` + f.where(s) + auditOrder("e", true)
}

// page returns the query for a page. All rows of a patient are looked up first and sorted: they may be few and old, and
// walking the trail to them would read all that is newer.
func (f AuditFilter) page(s *statement, p Page[AuditKey]) string {
	descending := !p.Back
	if f.PatientID == nil {
		return `
SELECT ` + of("e", auditColumns) + `
FROM audit_events e` + f.where(s) + f.from(s, descending, p.After) + auditOrder("e", descending) + end(s, p)
	}

	return f.ofPatient(s, descending, p.After) + `
SELECT ` + of("e", auditColumns) + `
FROM (
SELECT *
FROM of_patient o` + auditOrder("o", descending) + end(s, p) + `
) page
JOIN audit_events e ON e.writer = page.writer AND e.sequence = page.sequence AND e.recorded_at = page.recorded_at` +
		auditOrder("e", descending)
}

// ofPatient returns the beginning of a query that finds the rows of a patient by their index.
func (f AuditFilter) ofPatient(s *statement, descending bool, after *AuditKey) string {
	return `
WITH of_patient AS MATERIALIZED (
SELECT e.recorded_at, e.writer, e.sequence
FROM audit_events e` + f.where(s) + f.from(s, descending, after) + `
)`
}

// where returns the conditions of the filter.
func (f AuditFilter) where(s *statement) string {
	where := `
WHERE e.practice_code = ` + s.arg(f.PracticeCode)
	if f.PatientID != nil {
		where += `
  AND e.patient_ids @> ARRAY[` + s.arg(*f.PatientID) + `::uuid]`
	}
	if f.Subject != nil {
		where += `
  AND e.subject = ` + s.arg(*f.Subject)
	}
	if f.Action != nil {
		where += `
  AND e.action = ` + s.arg(*f.Action)
	}
	if f.Outcome != nil {
		where += `
  AND e.outcome = ` + s.arg(*f.Outcome)
		if *f.Outcome != AuditSuccess {
			where += `
  AND e.outcome <> 'success'` // of which there is an index
		}
	}
	if f.From != nil {
		where += `
  AND e.recorded_at >= ` + s.arg(*f.From)
	}
	if f.To != nil {
		where += `
  AND e.recorded_at < ` + s.arg(*f.To)
	}
	return where
}

// from returns the condition for the rows after a given one. The time alone is compared too, because PostgreSQL leaves
// out months by that only.
func (f AuditFilter) from(s *statement, descending bool, after *AuditKey) string {
	if after == nil {
		return ""
	}
	comparison, _ := beyond(descending)
	at := s.arg(after.At) + "::timestamptz"
	return `
  AND e.recorded_at` + strings.TrimRight(comparison, " ") + `= ` + at + `
  AND (e.recorded_at, e.writer, e.sequence)` + comparison + `(` + at + `, ` + s.arg(after.Writer) + `::uuid, ` +
		s.arg(after.Sequence) + `::bigint)`
}

func auditOrder(alias string, descending bool) string {
	_, direction := beyond(descending)
	return `
ORDER BY ` + alias + `.recorded_at` + direction + `, ` + alias + `.writer` + direction + `, ` + alias + `.sequence` + direction
}
