package db_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
)

// millionPatients writes a practice with one million patients. One in a hundred and ten is called Smith, so they stand
// together near the end of the order by name; one in a hundred is archived, and one in a thousand mismatched. Of
// the archived ones 5,000 readings wait. The indexes are built after the rows, which is faster.
const millionPatients = `
SET session_replication_role = replica;
INSERT INTO patients (id, practice_code, first_name, last_name, date_of_birth, mrn, external_id, created_at, archived_at, mismatch_since)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'FFHEDD', initcap(substr(md5('f' || n % 5000), 1, 6)),
       CASE WHEN n % 110 = 0 THEN CASE WHEN n <= 99000 THEN 'Smithson' ELSE 'Smith' END ELSE initcap(substr(md5('l' || n % 50000), 1, 8)) END,
       '1957-03-21', 'ECW-' || n, 'chart-' || n, now() - n * interval '1 minute',
       CASE WHEN n % 100 = 7 THEN now() END, CASE WHEN n % 1000 = 1 THEN now() END
FROM generate_series(1, 1000000) n;
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, created_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'FFHEDD', lpad(to_hex(100 * (n % 50) + 7), 32, '0')::uuid, 'weight', now(), 'D' || n, '{}',
       now() - n * interval '1 minute'
FROM generate_series(1, 5000) n;
SET session_replication_role = DEFAULT`

// With a million patients each page of the list, in each order and with each filter, touches a bounded number of rows.
// The test does not run in parallel, as that of the transmissions.
func TestPlansOfAMillionPatients(t *testing.T) {
	_, conn := migrated(t)
	load(t, conn, millionPatients, "patients")
	thePatientList(t, conn)
	thePatientSearch(t, conn)
	theHeldReadings(t, conn)
}

func thePatientList(t *testing.T, conn *pgx.Conn) {
	smith := uuid.UUID{12: 0, 13: 0x07, 14: 0xa1, 15: 0x20} // 500,000, in the middle of the order of creation
	yes, no := true, false
	for name, filter := range map[string]db.PatientFilter{
		"all":            {},
		"active":         {Active: &yes},
		"archived":       {Active: &no},
		"mismatched":     {Mismatch: &yes},
		"no mismatch":    {Mismatch: &no},
		"one":            {MRN: new("ECW-77")},
		"mismatch, away": {Mismatch: &yes, Active: &no},
	} {
		filter.PracticeCode = thePractice
		for _, order := range []db.PatientOrder{db.ByLastName, db.ByPatientCreation} {
			for _, descending := range []bool{false, true} {
				for place, page := range map[string]db.Page[db.PatientKey]{
					"first":  {Limit: 21},
					"middle": {Limit: 21, After: &db.PatientKey{ID: smith}},
					"before": {Limit: 21, After: &db.PatientKey{ID: smith}, Back: true},
				} {
					most := 200
					if filter.Mismatch != nil && *filter.Mismatch { // they are read and sorted
						most = 2_200
					}
					title := fmt.Sprintf("%s by %s, descending %t, %s", name, order, descending, place)
					wantPlan(t, conn, title, most, func(ctx context.Context, q *db.Queries) error {
						_, err := q.ListPatients(ctx, filter, order, descending, page)
						return err
					})
				}
			}
		}
		wantPlan(t, conn, "count "+name, db.CountedExactly+200, func(ctx context.Context, q *db.Queries) error {
			_, err := q.CountPatients(ctx, filter)
			return err
		})
	}
}

// A search and its page touch as many rows as fit, in any order of the list; one that is too wide touches three times
// that at most.
func thePatientSearch(t *testing.T, conn *pgx.Conn) {
	for text, want := range map[string]int{"smith": db.FoundAtMost + 1, "a": 2 * (db.FoundAtMost + 1), "smithso": 900, "ecw-777": 1_111, "smithe": 0, "ecw-123456": 1} {
		var found []uuid.UUID
		wantPlan(t, conn, "search "+text, 3*db.FoundAtMost+10, func(ctx context.Context, q *db.Queries) (err error) {
			found, err = q.SearchPatients(ctx, thePractice, text)
			return err
		})
		if n := len(found); min(n, db.FoundAtMost+1) != min(want, db.FoundAtMost+1) {
			t.Errorf("%q finds %d, want %d", text, n, want)
		}
		if len(found) > db.FoundAtMost {
			continue
		}

		filter := db.PatientFilter{PracticeCode: thePractice, Among: &found}
		for _, order := range []db.PatientOrder{db.ByLastName, db.ByPatientCreation} {
			wantPlan(t, conn, fmt.Sprintf("list %s by %s", text, order), 2*db.FoundAtMost+10, func(ctx context.Context, q *db.Queries) error {
				_, err := q.ListPatients(ctx, filter, order, false, db.Page[db.PatientKey]{Limit: 21})
				return err
			})
		}
		wantPlan(t, conn, "count "+text, db.FoundAtMost+10, func(ctx context.Context, q *db.Queries) error {
			_, err := q.CountPatients(ctx, filter)
			return err
		})
	}
}

// theHeldReadings are the queries that count what archived patients have waiting, and the sweep that leaves it out.
func theHeldReadings(t *testing.T, conn *pgx.Conn) {
	var archived []uuid.UUID
	for n := range 20 {
		id := 100*n + 7
		archived = append(archived, uuid.UUID{14: byte(id >> 8), 15: byte(id)})
	}
	wantPlan(t, conn, "held readings", 20*3*100, func(ctx context.Context, q *db.Queries) error {
		held, err := q.CountHeldReadings(ctx, db.CountHeldReadingsParams{PracticeCode: thePractice, PatientIDs: archived})
		if err == nil && (len(held) != 20 || held[0].Held != 100) {
			err = fmt.Errorf("%d patients have held readings: %+v", len(held), held)
		}
		return err
	})
	wantPlan(t, conn, "the sweep", 3*5_000, func(ctx context.Context, q *db.Queries) error {
		pending, err := q.ListPendingObservations(ctx, db.ListPendingObservationsParams{PracticeCode: thePractice, Batch: 100})
		if err == nil && len(pending) > 0 {
			err = fmt.Errorf("the sweep starts %d readings of archived patients", len(pending))
		}
		return err
	})
	wantPlan(t, conn, "figures", 3*5_000, func(ctx context.Context, q *db.Queries) error {
		figures, err := q.QueueFigures(ctx, db.QueueFiguresParams{PracticeCode: thePractice, StalledAfter: 600})
		if err == nil && (figures.Archived != 5_000 || figures.Stalled != 0) {
			err = fmt.Errorf("the figures are %+v", figures)
		}
		return err
	})
}

// wantPlan fails the test if a statement touches more rows than it may.
func wantPlan(t *testing.T, conn *pgx.Conn, name string, most int, run func(context.Context, *db.Queries) error) {
	t.Run(name, func(t *testing.T) {
		e := &explainer{DBTX: conn, t: t}
		if err := run(t.Context(), db.New(db.Keyed(e))); err != nil {
			t.Fatal(err)
		}
		for _, p := range e.plans {
			if p.touched() > most {
				t.Errorf("want at most %d:\n%s", most, p)
			}
		}
	})
}
