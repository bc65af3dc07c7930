package db_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
)

// pruned is a table that is pruned by one of its times.
type pruned struct {
	table  string
	insert string // a row of the time $1, of the practice $2
	prune  func(t *testing.T, store *db.Store, before time.Time, batch int32) int64
}

func prunedTables() []pruned {
	deleted := func(t *testing.T, n int64, err error) int64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const reading = `
WITH patient AS (
    INSERT INTO patients (id, practice_code, demographics, mrn_index_a)
    VALUES (gen_random_uuid(), $2, 'not opened here', uuid_send(gen_random_uuid()))
    RETURNING id
), reading AS (
    INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
    SELECT gen_random_uuid(), $2, id, 'weight', $1, 'SCALE-1', '{}' FROM patient
    RETURNING id
)`
	const delivered = reading + `, sent AS (
    INSERT INTO transmissions (id, practice_code, observation_id, status, max_attempts, ecw_observation_id, updated_at)
    SELECT gen_random_uuid(), $2, id, 'transmitted', 6, 'obs-1', $1 FROM reading
    RETURNING id
)
INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at)
SELECT id, 1, 1, $1 FROM sent`

	return []pruned{
		{
			table: "idempotency_keys",
			insert: reading + `
INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id, created_at)
SELECT $2, uuid_send(id), 'hash', id, $1 FROM reading`,
			prune: func(t *testing.T, store *db.Store, before time.Time, batch int32) int64 {
				n, err := store.PruneIdempotencyKeys(t.Context(), db.PruneIdempotencyKeysParams{PracticeCode: "FFHEDD", Before: before, Batch: batch})
				return deleted(t, n, err)
			},
		},
		{
			table: "patient_import_items",
			insert: `
WITH import AS (
    INSERT INTO patient_imports (practice_code, finished_at)
    VALUES ($2, $1)
    RETURNING id
)
INSERT INTO patient_import_items (import_id, ordinal, ecw_fhir_id)
SELECT id, 1, 'chart-1' FROM import`,
			prune: func(t *testing.T, store *db.Store, before time.Time, batch int32) int64 {
				n, err := store.PruneImportItems(t.Context(), db.PruneImportItemsParams{PracticeCode: "FFHEDD", Before: &before, Batch: batch})
				return deleted(t, n, err)
			},
		},
		{
			table:  "patient_imports",
			insert: `INSERT INTO patient_imports (practice_code, finished_at) VALUES ($2, $1)`,
			prune: func(t *testing.T, store *db.Store, before time.Time, batch int32) int64 {
				n, err := store.PruneImports(t.Context(), db.PruneImportsParams{PracticeCode: "FFHEDD", Before: &before, Batch: batch})
				return deleted(t, n, err)
			},
		},
		{
			table:  "transmission_attempts",
			insert: delivered,
			prune: func(t *testing.T, store *db.Store, before time.Time, batch int32) int64 {
				row, err := store.PruneAttempts(t.Context(), db.PruneAttemptsParams{PracticeCode: "FFHEDD", Before: before, Batch: batch})
				if db.IsNotFound(err) {
					return 0
				}
				return deleted(t, row.Pruned, err)
			},
		},
		{
			table:  "observations",
			insert: delivered,
			prune: func(t *testing.T, store *db.Store, before time.Time, batch int32) int64 {
				rows, err := store.PruneReadings(t.Context(), db.PruneReadingsParams{PracticeCode: "FFHEDD", Before: before, Batch: batch})
				return deleted(t, int64(len(rows)), err)
			},
		},
	}
}

// What is older goes, batch by batch. A row of the very moment stays, and so does a younger one.
func TestWhatIsOlderIsPruned(t *testing.T) {
	t.Parallel()
	before := time.Date(2024, 2, 6, 9, 0, 0, 0, time.UTC)
	for _, table := range prunedTables() {
		t.Run(table.table, func(t *testing.T) {
			t.Parallel()
			store, conn := migrated(t)
			exec := func(sql string, args ...any) {
				t.Helper()
				if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
					t.Fatal(err)
				}
			}
			for n := range 5 {
				exec(table.insert, before.Add(-time.Microsecond-time.Duration(n)*time.Hour), "FFHEDD")
			}
			for _, at := range []time.Time{before, before.Add(time.Microsecond), time.Now()} {
				exec(table.insert, at, "FFHEDD")
			}

			for _, want := range []int64{2, 2, 1, 0} {
				if got := table.prune(t, store, before, 2); got != want {
					t.Errorf("a batch deletes %d rows, want %d", got, want)
				}
			}
			if left := count(t, conn, table.table); left != 3 {
				t.Errorf("%d rows are left, want 3", left)
			}
		})
	}
}

// The rows of another practice in the same database are for its own workers to prune.
func TestTheRowsOfAnotherPracticeAreNotPruned(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	tables := prunedTables()
	for _, table := range tables {
		if _, err := conn.Exec(t.Context(), table.insert, time.Now().Add(-10*year), "OTHERP"); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range tables {
		rows := count(t, conn, table.table)
		if got := table.prune(t, store, time.Now(), 100); got != 0 || rows == 0 || count(t, conn, table.table) != rows {
			t.Errorf("%s: %d of %d rows are deleted", table.table, got, rows)
		}
	}
}

const year = 365 * 24 * time.Hour

func count(t *testing.T, conn *pgx.Conn, table string) (rows int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// However old they are, attempts are kept that say where to look for a reading before it is sent again, and
// readings are kept that eCW has not acknowledged.
func TestOnlyWhatECWHasAcknowledgedIsPruned(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(sent db.Transmission) {
		t.Helper()
		exec(`INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at, sent_at, chart_id)
			VALUES ($1, 1, 1, now(), now(), gen_random_uuid())`, sent.ID)
	}
	var deliveredID uuid.UUID
	for _, state := range pendingStates {
		o := reading(t, store, `{}`)
		if state.sql == "" {
			continue
		}
		sent := transmission(t, store, o)
		begin(sent)
		if state.name == "delivered" { // at the second go
			deliveredID = o.ID
			exec(set("status = 'failed', error_class = 'permanent_data'"), sent.ID)
			sent = transmission(t, store, o)
			begin(sent)
		}
		exec(state.sql, sent.ID)
	}
	exec(`INSERT INTO patient_imports (practice_code) VALUES ('FFHEDD')`)
	exec(`INSERT INTO patient_import_items (import_id, ordinal, ecw_fhir_id) SELECT id, 1, 'chart' FROM patient_imports`)
	for _, age := range []string{
		"transmission_attempts SET started_at = started_at - interval '10 years', sent_at = sent_at - interval '10 years'",
		"transmissions SET created_at = created_at - interval '10 years', updated_at = updated_at - interval '10 years'",
		"observations SET created_at = created_at - interval '10 years'",
		"patient_imports SET created_at = created_at - interval '10 years'",
	} {
		exec("UPDATE " + age)
	}

	before := map[string]int{}
	for _, table := range prunedTables() {
		before[table.table] = count(t, conn, table.table)
	}
	if got := pruneAttempts(t, store, 1); got != 2 {
		t.Errorf("%d attempts are deleted, want the two of the delivered reading", got)
	}
	for _, table := range prunedTables() {
		want := map[string]int64{"observations": 1}[table.table]
		if got := table.prune(t, store, time.Now().Add(-year), 100); got != want {
			t.Errorf("of %s %d rows are deleted, want %d", table.table, got, want)
		}
	}
	for table, rows := range before {
		want := rows - map[string]int{"observations": 1, "transmission_attempts": 2}[table]
		if got := count(t, conn, table); got != want {
			t.Errorf("%d of %d %s are left, want %d", got, rows, table, want)
		}
	}
	if _, err := store.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: "FFHEDD", ID: deliveredID}); !db.IsNotFound(err) {
		t.Errorf("the delivered reading is still there: %v", err)
	}
}

// pruneAttempts prunes what is a year old, in batches.
func pruneAttempts(t *testing.T, store *db.Store, batch int32) (deleted int64) {
	t.Helper()
	next := db.PruneAttemptsParams{PracticeCode: "FFHEDD", Before: time.Now().Add(-year), Batch: batch}
	for {
		row, err := store.PruneAttempts(t.Context(), next)
		if db.IsNotFound(err) {
			return deleted
		}
		if err != nil {
			t.Fatal(err)
		}
		deleted += row.Pruned
		next.AfterStartedAt, next.AfterTransmissionID, next.AfterDelivery = row.StartedAt, row.TransmissionID, row.Delivery
	}
}

// Attempts that began at the same moment are all looked at, whatever the batches are.
func TestPruneLooksAtAttemptsOfTheSameMoment(t *testing.T) {
	t.Parallel()
	for batch := int32(1); batch <= 4; batch++ {
		store, conn := migrated(t)
		attempts := prunedTables()[3]
		at := time.Now().Add(-2 * year)
		for n := range 6 {
			if _, err := conn.Exec(t.Context(), attempts.insert, at, "FFHEDD"); err != nil {
				t.Fatal(err)
			}
			if n%2 == 0 { // this one is kept
				const keep = `
UPDATE transmissions
SET status = 'failed', error_class = 'unknown', ecw_observation_id = NULL
WHERE number = (SELECT max(number) FROM transmissions)`
				if _, err := conn.Exec(t.Context(), keep); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := pruneAttempts(t, store, batch); got != 3 {
			t.Errorf("in batches of %d it deletes %d, want 3", batch, got)
		}
	}
}

// A reading takes along everything that belongs to it, and leaves with its patient how new it was. A mark is
// never set back.
func TestAPrunedReadingLeavesAMark(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	o := reading(t, store, `{}`)
	remember := db.RememberRequestParams{PracticeCode: "FFHEDD", Request: db.Request{Key: "key"}, ObservationID: o.ID}
	if _, err := store.RememberRequest(t.Context(), remember); err != nil {
		t.Fatal(err)
	}
	sent := transmission(t, store, o)
	deliver := set("status = 'transmitted', ecw_observation_id = 'obs-1', updated_at = now() - interval '2 years'")
	later := o.EffectiveAt.Add(time.Hour)
	for _, mark := range []*time.Time{nil, &later} {
		if mark != nil { // it came again
			again := db.CreateObservationParams{
				ID:              o.ID,
				PracticeCode:    o.PracticeCode,
				PatientID:       o.PatientID,
				ObservationType: o.ObservationType,
				EffectiveAt:     o.EffectiveAt,
				Device:          o.Device,
				Measured:        o.Measured,
			}
			if _, err := store.CreateObservation(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			sent = transmission(t, store, o)
			if _, err := conn.Exec(t.Context(), "UPDATE patients SET readings_pruned_to = $1", mark); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := conn.Exec(t.Context(), deliver, sent.ID); err != nil {
			t.Fatal(err)
		}
		prune := db.PruneReadingsParams{PracticeCode: "FFHEDD", Before: time.Now().Add(-year), Batch: 10}
		if rows, err := store.PruneReadings(t.Context(), prune); err != nil || len(rows) != 1 {
			t.Fatalf("%d readings are deleted, %v", len(rows), err)
		}
		for _, table := range []string{"observations", "transmissions", "transmission_attempts", "idempotency_keys"} {
			if left := count(t, conn, table); left != 0 {
				t.Errorf("%d rows are left of %s", left, table)
			}
		}
		want := o.EffectiveAt
		if mark != nil {
			want = *mark
		}
		patient, err := store.GetPatient(t.Context(), db.GetPatientParams{PracticeCode: "FFHEDD", ID: o.PatientID})
		if err != nil || patient.ReadingsPrunedTo == nil || !patient.ReadingsPrunedTo.Equal(want) {
			t.Errorf("the patient's mark is %v, %v, want %s", patient.ReadingsPrunedTo, err, want)
		}
	}
}
