package db_test

import "testing"

// TestAnOlderBinaryTakesANewerSchema: the version before goes on while a new one is rolled out, and when that is taken back.
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
