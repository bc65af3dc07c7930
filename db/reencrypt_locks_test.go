package db_test

import (
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/keyring"
)

// A transaction that stores readings of several patients holds a patient for each of them, until it ends. While the
// indexes of the patients are written anew, neither waits for the other in a circle.
func TestReencryptLeavesPatientsToReadings(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	content := generated(t)
	before := v.with(content)
	first, second := stored(t, before, somebody("MRN-1", "ecw-1")), stored(t, before, somebody("MRN-2", "ecw-2"))
	if first.ID.String() > second.ID.String() {
		first, second = second, first
	}
	_, used, _ := rotated(t, content, keyring.Indexes)
	store := v.with(used)

	const insert = `
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
VALUES (gen_random_uuid(), $1, $2, 'weight', now(), '', '{}')`
	tx, err := v.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), insert, thePractice, second.ID); err != nil {
		t.Fatal(err)
	}
	var work errgroup.Group
	work.Go(func() error {
		_, err := store.Reencrypt(t.Context(), func(int64, int64) {})
		return err
	})
	time.Sleep(500 * time.Millisecond) // it has come to the patients by then
	if _, err := tx.Exec(t.Context(), insert, thePractice, first.ID); err != nil {
		t.Errorf("the readings are refused: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if err := work.Wait(); err != nil {
		t.Errorf("the patients are not done: %v", err)
	}
	if n := v.number("SELECT count(*) FROM patients WHERE mrn_index_a IS NOT NULL AND mrn_index_b IS NOT NULL"); n != 2 {
		t.Errorf("%d patients have both hashes", n)
	}
}
