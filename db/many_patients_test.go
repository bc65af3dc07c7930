package db_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
)

// waitingReadings archives one in a hundred patients, and writes 5,000 readings that wait because of that.
const waitingReadings = `
UPDATE patients
SET archived_at = now()
WHERE (get_byte(uuid_send(id), 15) + 256 * get_byte(uuid_send(id), 14)) % 100 = 7;
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, created_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'FFHEDD', lpad(to_hex(100 * (n % 50) + 7), 32, '0')::uuid, 'weight', now(), 'D' || n, '{}',
       now() - n * interval '1 minute'
FROM generate_series(1, 5000) n;
ANALYZE`

// With 20,000 patients a page of the list touches as many rows as it shows, once the directory is filled, and what
// is found by an MRN or an eCW id is found in an index. The test does not run in parallel, as that of the
// transmissions.
func TestPlansOfManyPatients(t *testing.T) {
	_, conn := migrated(t)
	if err := db.StoreOn(conn).InsertPatients(t.Context(), manyPatients(20_000)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), waitingReadings); err != nil {
		t.Fatal(err)
	}
	thePatientLookUps(t, conn)
	theHeldReadings(t, conn)
}

// manyPatients have ids from 1 on.
func manyPatients(n int) (patients []db.Patient) {
	for n := range n {
		id := fmt.Sprintf("ecw-%d", n+1)
		patients = append(patients, db.Patient{
			ID:           numbered(0, n+1),
			PracticeCode: thePractice,
			Demographics: db.Demographics{
				FirstName:  fmt.Sprintf("First%d", n%500),
				LastName:   fmt.Sprintf("Last%d", n%5_000),
				MRN:        fmt.Sprintf("MRN-%d", n+1),
				ExternalID: &id,
			},
			ChartID: new(numbered(0xc0, n+1)),
		})
	}
	return patients
}

func thePatientLookUps(t *testing.T, conn *pgx.Conn) {
	id := "ecw-777"
	for name, look := range map[string]func(context.Context, *db.Queries) error{
		"by MRN": func(ctx context.Context, q *db.Queries) error {
			_, err := q.FindPatientByMRN(ctx, db.FindPatientByMRNParams{PracticeCode: thePractice, MRN: "MRN-777"})
			return err
		},
		"by eCW's id": func(ctx context.Context, q *db.Queries) error {
			_, err := q.FindLinkedPatient(ctx, db.FindLinkedPatientParams{PracticeCode: thePractice, ExternalID: &id})
			return err
		},
		"by eCW's ids": func(ctx context.Context, q *db.Queries) error {
			linked, err := q.ListLinkedIDs(ctx, db.ListLinkedIDsParams{PracticeCode: thePractice, ExternalIDs: []string{id, "none"}})
			if err == nil && (len(linked) != 1 || linked[id] != numbered(0, 777)) {
				err = fmt.Errorf("the linked ids are %v", linked)
			}
			return err
		},
	} {
		wantPlan(t, conn, name, 10, look)
	}

	e := &explainer{DBTX: conn, t: t}
	store := db.StoreOn(e)
	filter, page := db.PatientFilter{PracticeCode: thePractice}, db.Page[db.PatientKey]{Limit: 21}
	list := func() {
		t.Helper()
		if _, n, err := store.ListPatients(t.Context(), filter, db.ByLastName, false, page); err != nil || n != db.CountedExactly+1 {
			t.Fatalf("%d patients, %v", n, err)
		}
	}
	list() // all are read
	if _, err := conn.Exec(t.Context(), "UPDATE patients SET updated_at = updated_at - interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "VACUUM ANALYZE patients"); err != nil {
		t.Fatal(err)
	}
	e.plans = nil
	list()
	for _, p := range e.plans {
		if p.touched() > 100 {
			t.Errorf("want at most 100:\n%s", p)
		}
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
