package db_test

import (
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

// TestAnOlderBinaryTakesANewerSchema: the version before goes on working while a new one is rolled out, and
// after the new one is taken back.
func TestAnOlderBinaryTakesANewerSchema(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	if _, err := conn.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"); err != nil {
		t.Fatal(err)
	}

	if err := store.CheckMigrated(t.Context()); err != nil {
		t.Errorf("the schema of a later version is refused: %v", err)
	}
	if ran, err := store.Migrate(t.Context()); err != nil || ran != 0 {
		t.Errorf("%d migrations run on the schema of a later version, %v", ran, err)
	}
}

// TestAnOlderBinaryListsANewerSchema: a later version may have added columns that the version before does not
// know.
func TestAnOlderBinaryListsANewerSchema(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	o := reading(t, store, `{}`)
	start := db.StartAttemptParams{
		TransmissionID: transmission(t, store, o).ID,
		ObservationID:  o.ID,
		Delivery:       1,
		Number:         1,
		StartedAt:      time.Now(),
	}
	if err := db.Written(store.StartAttempt(t.Context(), start)); err != nil {
		t.Fatal(err)
	}

	for _, table := range []string{"patients", "observations", "transmissions", "transmission_attempts"} {
		if _, err := conn.Exec(t.Context(), "ALTER TABLE "+table+" ADD COLUMN later text NOT NULL DEFAULT ''"); err != nil {
			t.Fatal(err)
		}
	}

	filter := db.TransmissionFilter{PracticeCode: "FFHEDD"}
	log, _, err := store.ListTransmissions(t.Context(), filter, db.ByCreation, true, db.Page[db.TransmissionKey]{Limit: 5})
	if err != nil || len(log) != 1 {
		t.Errorf("%d transmissions are listed, %v", len(log), err)
	}

	patients := db.PatientFilter{PracticeCode: "FFHEDD"}
	if rows, _, err := store.ListPatients(t.Context(), patients, db.ByLastName, false, db.Page[db.PatientKey]{Limit: 5}); err != nil || len(rows) != 1 {
		t.Errorf("%d patients are listed, %v", len(rows), err)
	}

	if rows, err := store.ListPushes(t.Context(), "FFHEDD", o.PatientID, db.Page[db.PushKey]{Limit: 5}); err != nil || len(rows) != 1 {
		t.Errorf("%d pushes are listed, %v", len(rows), err)
	}
}
