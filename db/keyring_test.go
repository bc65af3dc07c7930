package db_test

import (
	"errors"
	"testing"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

func TestAnotherKeyringIsRefused(t *testing.T) {
	t.Parallel()
	url := stack.Postgres(t)
	own := openWith(t, url, nil)
	for range 2 {
		if _, err := own.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := own.CheckKeyring(t.Context()); err != nil {
		t.Errorf("with its own keyring: %v", err)
	}

	content, err := keyring.Generate()
	if err != nil {
		t.Fatal(err)
	}
	other := openWith(t, url, content)
	if err := other.CheckKeyring(t.Context()); !errors.Is(err, db.ErrOtherKeyring) {
		t.Errorf("with another keyring: error %v", err)
	}
	if _, err := other.Migrate(t.Context()); !errors.Is(err, db.ErrOtherKeyring) {
		t.Errorf("migrated with another keyring: error %v", err)
	}
}

// openWith opens a database with the keyring of a file's content, or with the one that all tests share.
func openWith(t *testing.T, url string, content []byte) *db.Store {
	t.Helper()
	keys := keyringtest.Shared()
	if content != nil {
		var err error
		if keys, err = keyring.New(content); err != nil {
			t.Fatal(err)
		}
	}
	store, err := db.Open(t.Context(), url, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// A migration that was broken off goes on with the keyring that it began with, and with no other: half of the
// database could not be read with either.
func TestABrokenOffMigrationGoesOnWithItsKeyring(t *testing.T) {
	t.Parallel()
	url := stack.Postgres(t)
	own := openWith(t, url, generated(t))
	if _, err := own.MigrateTo(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	_, err := own.Pool().Exec(t.Context(), `
INSERT INTO users (id, practice_code, email, email_key, first_name, last_name, role)
VALUES (gen_random_uuid(), 'FFHEDD', 'nora@example.com', 'k', 'Nora', 'Lind', 'nurse')`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = own.Pool().Exec(t.Context(), `
INSERT INTO patients (practice_code, first_name, last_name, date_of_birth, mrn)
VALUES ('FFHEDD', 'Jacaranda', 'Quillfeather', '1957-03-21', 'MRN-1')`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.MigrateTo(t.Context(), 12); err != nil { // the next one waits for a table for too long
		t.Fatal(err)
	}

	other := openWith(t, url, generated(t))
	if _, err := other.Migrate(t.Context()); !errors.Is(err, db.ErrOtherKeyring) {
		t.Errorf("migrated with another keyring: error %v", err)
	}
	if _, err := own.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := own.FindUser(t.Context(), db.FindUserParams{PracticeCode: "FFHEDD", Email: "nora@example.com"}); err != nil {
		t.Error(err)
	}
	if _, err := own.FindPatientByMRN(t.Context(), db.FindPatientByMRNParams{PracticeCode: "FFHEDD", MRN: "MRN-1"}); err != nil {
		t.Error(err)
	}
}
