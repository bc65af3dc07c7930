package db

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The lists of the API are put together here, not by sqlc (that of the patients: patient_list.go). A list has an order, filters and a row to go on
// from. PostgreSQL uses an index only when the statement names the filters that are given, and no others. All
// text of a statement is constant; all values of a caller are arguments.

// CountedExactly is how far a list is counted. A larger count means "more than that".
const CountedExactly = 10_000

// Page is a part of a list.
type Page[K any] struct {
	// After is the row to go on from; nil is the start of the list.
	After *K
	// Back reads towards the start of the list. The rows then come in the reverse order.
	Back   bool
	Offset int
	Limit  int
}

// The columns of the rows that are listed, in the order of their struct's fields. They are named, not "*": a
// later version may have added a column that this one does not know.
const (
	transmissionColumns = "id, number, practice_code, observation_id, status, attempt_count, max_attempts, first_attempted_at, " +
		"last_attempted_at, next_retry_at, held_at, asked, brought_forward, error_class, error_message, http_status, " +
		"ecw_observation_id, chart_id, created_at, updated_at"
	attemptColumns = "transmission_id, delivery, number, started_at, sent_at, chart_id, finished_at, http_status, " +
		"ecw_observation_id, error_class, error_code, error_message"
)

// of returns the columns with the alias of their table before each.
func of(alias, columns string) string {
	return alias + "." + strings.ReplaceAll(columns, ", ", ", "+alias+".")
}

// statement is the text of a statement and its arguments.
type statement struct{ args []any }

// arg adds an argument and returns its placeholder, such as $3.
func (s *statement) arg(value any) string {
	s.args = append(s.args, value)
	return "$" + strconv.Itoa(len(s.args))
}

// end returns the end of a statement for a page.
func end[K any](s *statement, p Page[K]) string {
	return `
LIMIT ` + s.arg(p.Limit) + `
OFFSET ` + s.arg(p.Offset)
}

// beyond returns how the rows after a given one compare with it, and the direction in which they are read.
func beyond(descending bool) (comparison, direction string) {
	if descending {
		return " < ", " DESC"
	}
	return " > ", " ASC"
}

// count counts the rows of a query, up to one more than [CountedExactly].
func (q *Queries) count(ctx context.Context, s *statement, query string) (n int64, err error) {
	counted := `
SELECT count(*)
FROM (` + query + `
LIMIT ` + s.arg(CountedExactly+1) + `
) counted`

	err = q.db.QueryRow(ctx, counted, s.args...).Scan(&n)
	return n, err
}

// list runs a query. Its columns are the fields of T, in their order.
func list[T any](ctx context.Context, q *Queries, s *statement, query string) ([]T, error) {
	rows, err := q.db.Query(ctx, query, s.args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
}

// TransmissionFilter says which transmissions are listed; nil lists all.
type TransmissionFilter struct {
	PracticeCode    string
	Status          *string
	PatientID       *uuid.UUID
	ObservationType *string
	// DateFrom and DateTo bound created_at: from DateFrom on, and before DateTo.
	DateFrom *time.Time
	DateTo   *time.Time
	// FormerChart lists only transmissions whose Observation is in a chart that the patient is no longer
	// linked to.
	FormerChart bool
}

// TransmissionOrder is an order of the log, by one of its times. Rows without that time come last, in the
// order of their creation.
type TransmissionOrder string

// The orders of the log.
const (
	ByCreation    TransmissionOrder = "created_at"
	ByLastAttempt TransmissionOrder = "last_attempted_at"
	ByNextRetry   TransmissionOrder = "next_retry_at"
)

// TransmissionKey is the place of a row in an order of the log.
type TransmissionKey struct {
	// At is the order's time, or the time of creation where the row Lacks it.
	At    time.Time `json:"at"`
	Lacks bool      `json:"lacks,omitempty"`
	ID    uuid.UUID `json:"id"`
}

// Key returns the place of a transmission in the order.
func (o TransmissionOrder) Key(t Transmission) TransmissionKey {
	at := &t.CreatedAt
	switch o {
	case ByLastAttempt:
		at = t.LastAttemptedAt
	case ByNextRetry:
		at = t.NextRetryAt
	}
	if at == nil {
		return TransmissionKey{At: t.CreatedAt, Lacks: true, ID: t.ID}
	}
	return TransmissionKey{At: *at, ID: t.ID}
}

// ListTransmissions lists a page of the log, and counts the list up to one more than [CountedExactly].
func (q *Queries) ListTransmissions(
	ctx context.Context, f TransmissionFilter, order TransmissionOrder, descending bool, p Page[TransmissionKey],
) ([]GetTransmissionRow, int64, error) {
	// The order becomes a part of the text, so it must be one of ours.
	if !slices.Contains([]TransmissionOrder{ByCreation, ByLastAttempt, ByNextRetry}, order) {
		return nil, 0, fmt.Errorf("transmissions have no order %q", order)
	}

	// The rows are counted in the order of an index: a plan that reads the table from its start may meet no
	// fitting row for long.
	var counted, listed statement
	count, err := q.count(ctx, &counted, `
SELECT
FROM `+f.rows(&counted)+`
ORDER BY t.created_at DESC, t.id DESC`)
	if err != nil {
		return nil, 0, err
	}

	query := f.page(&listed, count <= CountedExactly, order, descending != p.Back, p)
	rows, err := list[transmissionLine](ctx, q, &listed, query)
	if err != nil {
		return nil, 0, err
	}

	lines := make([]GetTransmissionRow, len(rows))
	for i, row := range rows {
		if lines[i], err = q.openTransmission(row); err != nil {
			return nil, 0, err
		}
	}
	return lines, count, nil
}

// page returns the query for a page of the log. Where few rows pass the filter, all of them are read and
// sorted: they may stand together at the end of the order, and walking it to them would read the whole log.
func (f TransmissionFilter) page(
	s *statement, few bool, order TransmissionOrder, descending bool, p Page[TransmissionKey],
) string {
	with, rows := "", f.rows(s)
	if few {
		with = `
WITH few AS MATERIALIZED (
SELECT t.id, t.created_at, t.last_attempted_at, t.next_retry_at
FROM ` + rows + `
)`
		rows = `few t
WHERE true`
	}

	var parts []string
	if order == ByCreation || p.After == nil || !p.After.Lacks || p.Back {
		parts = append(parts, part(s, rows, order, false, descending, p))
	}
	if order != ByCreation && (p.After == nil || p.After.Lacks || !p.Back) {
		parts = append(parts, part(s, rows, order, true, descending, p))
	}

	_, lacking := beyond(p.Back)
	_, direction := beyond(descending)
	sorted := `
ORDER BY page.lacks` + lacking + `, page.at` + direction + `, page.id` + direction

	return with + `
SELECT
    ` + of("t", transmissionColumns) + `,
    o.patient_id,
    o.observation_type,
    p.demographics,
    c.ecw_patient_id
FROM (
SELECT *
FROM (` + strings.Join(parts, `
UNION ALL`) + `
) page` + sorted + end(s, p) + `
) page
JOIN transmissions t ON t.id = page.id
JOIN observations o ON o.id = t.observation_id
JOIN patients p ON p.id = o.patient_id
LEFT JOIN patient_charts c ON c.id = t.chart_id` + sorted
}

// part returns the query for the page among the rows that have the order's time, or among those that lack it.
// Each of the two has its own index.
func part(s *statement, rows string, order TransmissionOrder, lacks, descending bool, p Page[TransmissionKey]) string {
	comparison, direction := beyond(descending)
	at := "t." + string(order)
	switch {
	case lacks:
		rows += `
  AND ` + at + ` IS NULL`
		at = "t.created_at"
	case order != ByCreation:
		rows += `
  AND ` + at + ` IS NOT NULL`
	}
	if p.After != nil && p.After.Lacks == lacks {
		rows += `
  AND (` + at + `, t.id)` + comparison + `(` + s.arg(p.After.At) + `::timestamptz, ` + s.arg(p.After.ID) + `::uuid)`
	}

	return `
(
SELECT t.id, ` + at + ` AS at, ` + strconv.FormatBool(lacks) + ` AS lacks
FROM ` + rows + `
ORDER BY ` + at + direction + `, t.id` + direction + `
LIMIT ` + s.arg(p.Offset+p.Limit) + `
)`
}

// rows returns the rest of a query after its FROM: the transmissions t that pass the filter.
func (f TransmissionFilter) rows(s *statement) string {
	practice := s.arg(f.PracticeCode)
	from := "transmissions t"
	where := `
WHERE t.practice_code = ` + practice
	switch {
	case f.PatientID != nil || f.FormerChart:
		where += `
  AND t.observation_id = ANY (ARRAY(` + f.readings(s, practice) + `
  ))`
	case f.ObservationType != nil:
		from += `
JOIN observations o ON o.id = t.observation_id`
		where += `
  AND o.practice_code = ` + practice + `
  AND o.observation_type = ` + s.arg(*f.ObservationType)
	}

	if f.Status != nil {
		where += `
  AND t.status = ` + s.arg(*f.Status)
	}
	if f.DateFrom != nil {
		where += `
  AND t.created_at >= ` + s.arg(*f.DateFrom)
	}
	if f.DateTo != nil {
		where += `
  AND t.created_at < ` + s.arg(*f.DateTo)
	}
	if f.FormerChart {
		where += `
  AND t.status = 'transmitted'
  AND EXISTS (
      SELECT
      FROM observations o
      JOIN patients p ON p.id = o.patient_id
      WHERE o.id = t.observation_id
        AND t.chart_id IS NOT NULL
        AND t.chart_id IS DISTINCT FROM p.chart_id
  )`
	}
	return from + where
}

// readings returns the query for the observations of one patient, or of all patients who have a former chart.
// They are few, and are asked for first: walking the log until it has met enough of them may take all of it.
func (f TransmissionFilter) readings(s *statement, practice string) string {
	query := `
      SELECT o.id
      FROM observations o
      WHERE o.practice_code = ` + practice
	if f.PatientID != nil {
		query += `
        AND o.patient_id = ` + s.arg(*f.PatientID)
	}
	if f.ObservationType != nil {
		query += `
        AND o.observation_type = ` + s.arg(*f.ObservationType)
	}
	if f.FormerChart {
		query += `
        AND o.patient_id = ANY (ARRAY(
            SELECT p.id
            FROM patients p
            JOIN patient_charts c ON c.patient_id = p.id
            WHERE p.practice_code = ` + practice + `
              AND c.sent_to
              AND c.id IS DISTINCT FROM p.chart_id
        ))`
	}
	return query
}

// Push is a row of a patient's sync status: a delivery of one of the patient's readings.
type Push struct {
	ChartAttempt
	TransmissionNumber string
	ObservationID      uuid.UUID
	ObservationType    string
	EffectiveAt        time.Time
	Status             string
	NextRetryAt        *time.Time
}

// PushKey is the place of a push in the list.
type PushKey struct {
	StartedAt      time.Time `json:"at"`
	TransmissionID uuid.UUID `json:"id"`
	Delivery       int32     `json:"delivery"`
}

// Key returns the place of a push in the list.
func (p Push) Key() PushKey {
	return PushKey{StartedAt: p.StartedAt, TransmissionID: p.TransmissionID, Delivery: p.Delivery}
}

const pushes = `transmission_attempts a
JOIN transmissions t ON t.id = a.transmission_id
JOIN observations o ON o.id = t.observation_id
LEFT JOIN patient_charts c ON c.id = a.chart_id
WHERE t.practice_code = $1
  AND o.patient_id = $2`

// CountPushes counts up to one more than [CountedExactly].
func (q *Queries) CountPushes(ctx context.Context, practice string, patient uuid.UUID) (int64, error) {
	s := statement{args: []any{practice, patient}}
	return q.count(ctx, &s, `
SELECT
FROM `+pushes)
}

// ListPushes lists a patient's pushes, the newest first.
func (q *Queries) ListPushes(ctx context.Context, practice string, patient uuid.UUID, p Page[PushKey]) ([]Push, error) {
	s := statement{args: []any{practice, patient}}
	comparison, direction := beyond(!p.Back)
	query := pushes
	if p.After != nil {
		query += `
  AND (a.started_at, a.transmission_id, a.delivery)` + comparison +
			`(` + s.arg(p.After.StartedAt) + `, ` + s.arg(p.After.TransmissionID) + `, ` + s.arg(p.After.Delivery) + `)`
	}

	rows, err := list[pushLine](ctx, q, &s, `
SELECT
    `+of("a", attemptColumns)+`,
    c.ecw_patient_id,
    t.number,
    t.observation_id,
    o.observation_type,
    o.effective_at,
    t.status,
    t.next_retry_at
FROM `+query+`
ORDER BY a.started_at`+direction+`, a.transmission_id`+direction+`, a.delivery`+direction+end(&s, p))
	if err != nil {
		return nil, err
	}

	list := make([]Push, len(rows))
	for i, row := range rows {
		if list[i], err = q.openPush(practice, row); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// pushLine is a push as it is stored. Its fields are in the order of the list's columns.
type pushLine struct {
	TransmissionAttempt
	Chart              []byte
	TransmissionNumber string
	ObservationID      uuid.UUID
	ObservationType    string
	EffectiveAt        time.Time
	Status             string
	NextRetryAt        *time.Time
}

func (q *Queries) openPush(practice string, line pushLine) (Push, error) {
	d, err := q.openDelivery(practice, line.TransmissionAttempt, line.Chart)
	return Push{
		ChartAttempt:       d,
		TransmissionNumber: line.TransmissionNumber,
		ObservationID:      line.ObservationID,
		ObservationType:    line.ObservationType,
		EffectiveAt:        line.EffectiveAt,
		Status:             line.Status,
		NextRetryAt:        line.NextRetryAt,
	}, err
}
