package db_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vantrexia/vantrexia/db"
)

const thePractice = "FFHEDD"

// million writes a practice with one million transmissions. Almost all of them are transmitted, the newest
// 4,000 are unfinished, and one in a thousand failed for good. One patient, one type of reading and one chart
// are rare, so that the test notices a plan that walks the log until it has met enough of them.
const million = `
SET session_replication_role = replica; -- no foreign key is checked
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, created_at,
                          plain_resource, resource_version, transformed_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'FFHEDD', lpad(to_hex(CASE WHEN n % 50000 = 9 THEN 3000 ELSE n % 3000 END), 32, '0')::uuid,
       CASE WHEN n % 20000 = 7 THEN 'temperature' ELSE (ARRAY['weight', 'glucose', 'oxygen_saturation', 'blood_pressure'])[1 + n % 4] END,
       at, 'D', '{}', at, CASE WHEN done THEN '{}'::json END, done::int, CASE WHEN done THEN at END
FROM (
    SELECT n, now() - (1000000 - n) * interval '30 seconds' AS at, n <= 1000000 AS done FROM generate_series(1, 1000050) n
) made;

INSERT INTO transmissions (id, number, practice_code, observation_id, status, max_attempts, first_attempted_at, last_attempted_at,
                           next_retry_at, held_at, error_class, ecw_observation_id, chart_id, created_at, updated_at)
SELECT id, 'TXN-2026-' || lpad(n::text, 7, '0'), 'FFHEDD', id, status, 6, attempted, attempted,
       CASE WHEN n BETWEEN 996001 AND 997000 THEN now() + (n - 995000) * interval '1 second' END,
       CASE WHEN n BETWEEN 997001 AND 999000 THEN at END,
       CASE WHEN status = 'failed' THEN 'retryable' ELSE '' END,
       CASE WHEN status = 'transmitted' THEN 'obs-' || n END,
       CASE WHEN n % 40000 = 11 THEN ('f' || lpad(to_hex(n % 3000), 31, '0'))::uuid
            WHEN status = 'transmitted' THEN ('c' || lpad(to_hex(CASE WHEN n % 50000 = 9 THEN 3000 ELSE n % 3000 END), 31, '0'))::uuid END,
       at, at + interval '5 seconds'
FROM (
    SELECT n, id, at,
           CASE WHEN n <= 997000 OR n > 999500 THEN at + interval '1 second' END AS attempted,
           CASE WHEN n > 999500 THEN 'processing'
                WHEN n > 997000 THEN 'pending'
                WHEN n > 996000 OR n % 1000 = 0 THEN 'failed'
                ELSE 'transmitted' END AS status
    FROM (
        SELECT n, lpad(to_hex(n), 32, '0')::uuid AS id, now() - (1000000 - n) * interval '30 seconds' AS at
        FROM generate_series(1, 1000000) n
    ) numbered
) made;

-- A tenth of the attempts is enough.
INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at, sent_at, chart_id, finished_at, http_status,
                                   ecw_observation_id)
SELECT t.id, 1, 1, t.created_at, t.created_at, t.chart_id, t.created_at, 201, t.ecw_observation_id
FROM generate_series(1, 1000000, 10) n
JOIN transmissions t ON t.id = lpad(to_hex(n), 32, '0')::uuid
WHERE t.status = 'transmitted';
INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id, created_at)
SELECT 'FFHEDD', sha256(convert_to('key-' || n, 'UTF8')), 'hash', lpad(to_hex(n), 32, '0')::uuid, now() - (1000000 - n) * interval '30 seconds'
FROM generate_series(1, 1000000, 5) n;
INSERT INTO patient_imports (id, practice_code, created_at, finished_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'FFHEDD', now() - n * interval '1 day', now() - n * interval '1 day'
FROM generate_series(1, 300) n;
INSERT INTO patient_import_items (import_id, ordinal, ecw_fhir_id, outcome, patient_id)
SELECT lpad(to_hex(n), 32, '0')::uuid, item, 'not opened here', 'skipped', lpad(to_hex(item), 32, '0')::uuid
FROM generate_series(1, 300) n, generate_series(1, 1000) item;
SET session_replication_role = DEFAULT`

// load writes the rows first and builds the indexes of the large tables afterwards, which is faster.
func load(t *testing.T, conn *pgx.Conn, insert string, large ...string) {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
		WHERE indrelid::regclass::text = ANY ($1)
		  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)`, large)
	if err != nil {
		t.Fatal(err)
	}
	var drop, build []string
	var name, definition string
	_, err = pgx.ForEachRow(rows, []any{&name, &definition}, func() error {
		drop, build = append(drop, "DROP INDEX "+name), append(build, definition)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range slices.Concat(drop, []string{insert, "SET maintenance_work_mem = '128MB'"}, build, []string{"VACUUM ANALYZE"}) {
		if _, err := conn.Exec(t.Context(), step); err != nil {
			t.Fatalf("%v: %s", err, step)
		}
	}
}

// insertCrowd stores the 3,001 patients of the million, whose ids are numbers. Some were linked to another chart
// before.
func insertCrowd(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	store := db.StoreOn(conn)
	var crowd []db.Patient
	for n := range 3_001 {
		id := fmt.Sprintf("chart-%d", n)
		crowd = append(crowd, db.Patient{
			ID:           numbered(0, n),
			PracticeCode: thePractice,
			Demographics: db.Demographics{FirstName: "Jane", LastName: fmt.Sprintf("Doe %d", n), MRN: fmt.Sprintf("MRN-%d", n), ExternalID: &id},
			ChartID:      new(numbered(0xc0, n)),
		})
	}
	if err := store.InsertPatients(t.Context(), crowd); err != nil {
		t.Fatal(err)
	}

	const mismatched = "UPDATE patients SET mismatch_since = now() " +
		"WHERE (get_byte(uuid_send(id), 15) + 256 * get_byte(uuid_send(id), 14)) % 1000 = 1"
	if _, err := conn.Exec(t.Context(), mismatched); err != nil {
		t.Fatal(err)
	}

	for n := 11; n < 1_000_000; n += 40_000 {
		former := db.Chart{ID: numbered(0xf0, n%3_000), ECWPatientID: "former"}
		if _, err := conn.Exec(t.Context(), "DELETE FROM patient_charts WHERE id = $1", former.ID); err != nil {
			t.Fatal(err)
		}
		if err := store.InsertFormerChart(t.Context(), crowd[n%3_000], former); err != nil {
			t.Fatal(err)
		}
	}
}

// numbered is an id with a number at its end, as the million has them.
func numbered(first byte, n int) uuid.UUID {
	return uuid.UUID{0: first, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
}

// explainer explains each statement, with its arguments, before it runs it. A statement that writes is only
// explained: EXPLAIN ANALYZE runs it.
type explainer struct {
	db.DBTX
	t     *testing.T
	plans []plan
}

func (e *explainer) explain(ctx context.Context, sql string, args []any) {
	e.t.Helper()
	var text []byte
	if err := e.DBTX.QueryRow(ctx, "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+sql, args...).Scan(&text); err != nil {
		e.t.Fatalf("%v: %s", err, sql)
	}

	var plans []struct {
		Plan plan
		Took float64 `json:"Execution Time"`
	}
	if err := json.Unmarshal(text, &plans); err != nil {
		e.t.Fatal(err)
	}
	e.plans = append(e.plans, plans[0].Plan)
	e.t.Logf("%d rows touched in %.1f ms", plans[0].Plan.touched(), plans[0].Took)
}

func (e *explainer) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	e.explain(ctx, sql, args)
	return pgconn.CommandTag{}, nil
}

func (e *explainer) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	e.explain(ctx, sql, args)
	return e.DBTX.Query(ctx, sql, args...)
}

func (e *explainer) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	e.explain(ctx, sql, args)
	return e.DBTX.QueryRow(ctx, sql, args...)
}

// plan is a node of a plan that was run, as PostgreSQL writes it.
type plan struct {
	Node      string  `json:"Node Type"`
	Relation  string  `json:"Relation Name"`
	Index     string  `json:"Index Name"`
	Rows      float64 `json:"Actual Rows"`
	Loops     float64 `json:"Actual Loops"`
	Filtered  float64 `json:"Rows Removed by Filter"`
	Rechecked float64 `json:"Rows Removed by Index Recheck"`
	Plans     []plan
}

// touched returns how many rows the plan read from tables and indexes, including those that it left out.
func (p plan) touched() (n int) {
	if p.Relation != "" || len(p.Plans) == 0 {
		n = int((p.Rows + p.Filtered + p.Rechecked) * p.Loops)
	}
	for _, child := range p.Plans {
		n += child.touched()
	}
	return n
}

// scans reports whether the plan reads a large table from end to end.
func (p plan) scans() bool {
	large := []string{"observations", "transmissions", "transmission_attempts", "idempotency_keys", "patient_import_items"}
	return p.Node == "Seq Scan" && slices.Contains(large, p.Relation) || slices.ContainsFunc(p.Plans, plan.scans)
}

func (p plan) String() string {
	leftOut := p.Filtered + p.Rechecked
	text := fmt.Sprintf("%s %s %s: %.0f rows and %.0f left out, %.0f times", p.Node, p.Relation, p.Index, p.Rows, leftOut, p.Loops)
	for _, child := range p.Plans {
		text += "\n  " + strings.ReplaceAll(child.String(), "\n", "\n  ")
	}
	return text
}

// planned is a query, and how many rows each of its statements may touch.
type planned struct {
	most int
	run  func(context.Context, *db.Queries) error
}

// With a million transmissions no query of the queue or of the lists reads a table from end to end, and each
// touches a bounded number of rows. The test does not run in parallel: the others would miss their time
// limits.
func TestPlansOfAMillionTransmissions(t *testing.T) {
	store, conn := migrated(t)
	insertCrowd(t, conn)
	load(t, conn, million, "observations", "transmissions", "transmission_attempts", "idempotency_keys")

	for _, queries := range []map[string]planned{theIntake(t, db.New(db.Keyed(conn))), theSealing(store), theGates(), theLog(), theOtherLists(), thePrune()} {
		for name, query := range queries {
			t.Run(name, func(t *testing.T) {
				e := &explainer{DBTX: conn, t: t}
				if err := query.run(t.Context(), db.New(db.Keyed(e))); err != nil {
					t.Fatal(err)
				}
				for _, p := range e.plans {
					if p.scans() || p.touched() > query.most {
						t.Errorf("want at most %d, and no scan of a large table:\n%s", query.most, p)
					}
				}
			})
		}
	}
}

// theIntake are the queries that a chunk of a batch, or one reading, takes. Half of what is asked for is known.
func theIntake(t *testing.T, q *db.Queries) map[string]planned {
	t.Helper()
	const chunk = 200
	var ids []uuid.UUID
	var requests []db.Request
	for n := range chunk {
		ids = append(ids, uuid.UUID{15: byte(n + 1)})
		requests = append(requests, db.Request{Key: fmt.Sprintf("key-%d", n)})
	}
	known := db.RememberRequestsParams{PracticeCode: thePractice, Requests: requests[:chunk/2], ObservationIDs: ids[:chunk/2]}
	if n, err := q.RememberRequests(t.Context(), known); err != nil || n != chunk/2 {
		t.Fatalf("%d keys are stored, %v", n, err)
	}
	first := db.FindRequestParams{PracticeCode: thePractice, Request: requests[0]}

	return map[string]planned{
		"FindRequests": {2 * chunk, func(ctx context.Context, q *db.Queries) error {
			found, err := q.FindRequests(ctx, db.FindRequestsParams{PracticeCode: thePractice, Requests: requests})
			if err == nil && len(found) != chunk/2 {
				err = fmt.Errorf("%d keys are known, want %d", len(found), chunk/2)
			}
			return err
		}},
		"FindReadings": {2 * chunk, func(ctx context.Context, q *db.Queries) error {
			_, err := q.FindReadings(ctx, db.FindReadingsParams{PracticeCode: thePractice, IDs: ids})
			return err
		}},
		"ListKnown": {5_000, func(ctx context.Context, q *db.Queries) error {
			_, err := q.ListKnown(ctx, db.ListKnownParams{PracticeCode: thePractice, IDs: ids})
			return err
		}},
		"FindRequest": {10, func(ctx context.Context, q *db.Queries) error {
			_, err := q.FindRequest(ctx, first)
			return err
		}},
		"GetObservation": {10, func(ctx context.Context, q *db.Queries) error {
			_, err := q.GetObservation(ctx, db.GetObservationParams{PracticeCode: thePractice, ID: ids[5]})
			return err
		}},
	}
}

// theSealing are the queries that look for readings to seal. In this database all of them stand in clear.
func theSealing(store *db.Store) map[string]planned {
	middle := uuid.UUID{13: 7}.String()
	queries := map[string]planned{}
	for name, after := range map[string][]string{"first": nil, "middle": {middle}} {
		for kind, onlyClear := range map[string]bool{"in clear": true, "of another key": false} {
			queries[kind+", "+name] = planned{500, func(_ context.Context, q *db.Queries) error {
				query, args := store.LookAtReadings(after, onlyClear)
				return q.Explained(query, args...)
			}}
		}
	}
	return queries
}

// theGates are the queries of the queue, the circuit, the sweep and the status page. They read as many rows
// as are unfinished, or came in on one day.
func theGates() map[string]planned {
	const most = 5_000
	now := time.Now()
	head := uuid.UUID{13: 997001 >> 16, 14: 997001 >> 8 & 0xff, 15: 997001 & 0xff}
	return map[string]planned{
		"QueueIsEmpty": {10, func(ctx context.Context, q *db.Queries) error {
			_, err := q.QueueIsEmpty(ctx, thePractice)
			return err
		}},
		"GoesFirst": {10, func(ctx context.Context, q *db.Queries) error {
			_, err := q.GoesFirst(ctx, db.GoesFirstParams{PracticeCode: thePractice, ID: head})
			return err
		}},
		"ListNext": {50, func(ctx context.Context, q *db.Queries) error {
			_, err := q.ListNext(ctx, db.ListNextParams{PracticeCode: thePractice, Batch: 8})
			return err
		}},
		"CountHeld": {most, func(ctx context.Context, q *db.Queries) error {
			_, err := q.CountHeld(ctx, thePractice)
			return err
		}},
		"BringForward": {most, func(ctx context.Context, q *db.Queries) error {
			return q.BringForward(ctx, db.BringForwardParams{PracticeCode: thePractice, FailingSince: now.Add(-time.Hour), FirstWait: 300})
		}},
		"ListTrials": {most, func(ctx context.Context, q *db.Queries) error {
			_, err := q.ListTrials(ctx, db.ListTrialsParams{
				PracticeCode: thePractice,
				FailingSince: now.Add(-time.Hour),
				FirstWait:    300,
				Batch:        1,
			})
			return err
		}},
		"ListPendingObservations": {most, func(ctx context.Context, q *db.Queries) error {
			_, err := q.ListPendingObservations(ctx, db.ListPendingObservationsParams{
				PracticeCode: thePractice,
				Grace:        60,
				Batch:        100,
			})
			return err
		}},
		"OpenElsewhere": {most, func(ctx context.Context, q *db.Queries) error {
			_, err := q.OpenElsewhere(ctx, thePractice)
			return err
		}},
		"QueueFigures": {most, func(ctx context.Context, q *db.Queries) error {
			_, err := q.QueueFigures(ctx, db.QueueFiguresParams{PracticeCode: thePractice, StalledAfter: 600})
			return err
		}},
		"DayFigures": {most, func(ctx context.Context, q *db.Queries) error {
			// Two days, because the newest finished transmissions are older than one.
			_, err := q.DayFigures(ctx, db.DayFiguresParams{PracticeCode: thePractice, Since: now.Add(-48 * time.Hour)})
			return err
		}},
		"LastTransmitted": {10, func(ctx context.Context, q *db.Queries) error {
			_, err := q.LastTransmitted(ctx, thePractice)
			return err
		}},
	}
}

// theLog is the transmission log in each order and with each filter: its first page, one in the middle, and
// the one before that.
func theLog() map[string]planned {
	day := time.Now().Add(-200 * 24 * time.Hour)
	nextDay := day.Add(24 * time.Hour)
	patient, seldom := uuid.UUID{15: 5}, uuid.UUID{14: 3000 >> 8, 15: 3000 & 0xff}
	queries := map[string]planned{}
	for name, filter := range map[string]db.TransmissionFilter{
		"all":                  {},
		"transmitted":          {Status: new("transmitted")},
		"failed":               {Status: new("failed")},
		"pending":              {Status: new("pending")},
		"weight":               {ObservationType: new("weight")},
		"temperature":          {ObservationType: new("temperature")},
		"a patient":            {PatientID: &patient},
		"a patient's weight":   {PatientID: &patient, ObservationType: new("weight")},
		"a seldom patient":     {PatientID: &seldom},
		"a day":                {DateFrom: &day, DateTo: &nextDay},
		"a day's failures":     {DateFrom: &day, DateTo: &nextDay, Status: new("failed")},
		"former chart":         {FormerChart: true},
		"patient, other chart": {FormerChart: true, PatientID: &patient},
	} {
		filter.PracticeCode = thePractice
		most := db.CountedExactly + 100
		if name == "weight" { // the type is in another table, so rows are looked up one by one until 10,001 fit
			most = 12 * db.CountedExactly // a parallel plan reads a little more than it needs
		}
		if filter.FormerChart { // each chart is compared with its patient's
			most += 3_100
		}
		for _, order := range []db.TransmissionOrder{db.ByCreation, db.ByLastAttempt, db.ByNextRetry} {
			for _, descending := range []bool{false, true} {
				middle := db.TransmissionKey{At: day.Add(12 * time.Hour), ID: uuid.UUID{12: 1}, Lacks: order == db.ByNextRetry}
				for place, page := range map[string]db.Page[db.TransmissionKey]{
					"first":  {Limit: 21},
					"middle": {Limit: 21, After: &middle},
					"before": {Limit: 21, After: &middle, Back: true},
				} {
					title := fmt.Sprintf("%s by %s, descending %t, %s", name, order, descending, place)
					queries[title] = planned{most, func(ctx context.Context, q *db.Queries) error {
						_, _, err := q.ListTransmissions(ctx, filter, order, descending, page)
						return err
					}}
				}
			}
		}
	}

	queries["the deepest page"] = planned{3 * db.CountedExactly, func(ctx context.Context, q *db.Queries) error {
		_, _, err := q.ListTransmissions(ctx, db.TransmissionFilter{PracticeCode: thePractice}, db.ByNextRetry, true,
			db.Page[db.TransmissionKey]{Offset: db.CountedExactly - 20, Limit: 21})
		return err
	}}
	return queries
}

// theOtherLists are those of a patient's pushes, and his charts.
func theOtherLists() map[string]planned {
	patient := uuid.UUID{15: 5}
	return map[string]planned{
		"charts": {10, func(ctx context.Context, q *db.Queries) error {
			_, err := q.ListCharts(ctx, patient)
			return err
		}},
		"count pushes": {3_100, func(ctx context.Context, q *db.Queries) error {
			_, err := q.CountPushes(ctx, thePractice, patient)
			return err
		}},
		"pushes": {3_100, func(ctx context.Context, q *db.Queries) error {
			_, err := q.ListPushes(ctx, thePractice, patient, db.Page[db.PushKey]{Limit: 21, After: &db.PushKey{StartedAt: time.Now()}})
			return err
		}},
	}
}

// thePrune is what deletes old rows. A batch touches as many as it deletes, and what hangs on them. It comes
// last, because a statement that is explained is run.
func thePrune() map[string]planned {
	const batch = 1_000
	before := time.Now().Add(-200 * 24 * time.Hour)
	oldest := func(ask func(*db.Queries, context.Context, string) (time.Time, error)) planned {
		return planned{10, func(ctx context.Context, q *db.Queries) error {
			_, err := ask(q, ctx, thePractice)
			return err
		}}
	}
	return map[string]planned{
		"PruneIdempotencyKeys": {4 * batch, func(ctx context.Context, q *db.Queries) error {
			_, err := q.PruneIdempotencyKeys(ctx, db.PruneIdempotencyKeysParams{PracticeCode: thePractice, Before: before, Batch: batch})
			return err
		}},
		"PruneImportItems": {4 * batch, func(ctx context.Context, q *db.Queries) error {
			_, err := q.PruneImportItems(ctx, db.PruneImportItemsParams{PracticeCode: thePractice, Before: &before, Batch: batch})
			return err
		}},
		"PruneImports": {4 * batch, func(ctx context.Context, q *db.Queries) error {
			_, err := q.PruneImports(ctx, db.PruneImportsParams{PracticeCode: thePractice, Before: &before, Batch: batch})
			return err
		}},
		"PruneAttempts": {15 * batch, func(ctx context.Context, q *db.Queries) error {
			_, err := q.PruneAttempts(ctx, db.PruneAttemptsParams{PracticeCode: thePractice, Before: before, Batch: batch})
			return err
		}},
		"PruneReadings": {20 * batch, func(ctx context.Context, q *db.Queries) error {
			_, err := q.PruneReadings(ctx, db.PruneReadingsParams{PracticeCode: thePractice, Before: before, Batch: batch})
			return err
		}},
		"OldestIdempotencyKey": oldest((*db.Queries).OldestIdempotencyKey),
		"OldestAttempt":        oldest((*db.Queries).OldestAttempt),
		"OldestDelivery":       oldest((*db.Queries).OldestDelivery),
	}
}
