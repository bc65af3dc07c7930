package db_test

import (
	"errors"
	"os"
	"path/filepath"
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

// A process reads its keyring again every minute. When the file has become another installation's, or a copy from
// before the last rotation, it goes on with the keys that it has: with others it would store patients again whom it does
// not find.
func TestARunningProcessTakesNoOtherKeyring(t *testing.T) {
	t.Parallel()
	url, file := stack.Postgres(t), filepath.Join(t.TempDir(), "keyring.json")
	put := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := generated(t)
	put(first)
	keys, err := keyring.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	store, err := db.Open(t.Context(), url, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := stored(t, store, somebody("MRN-1", "ecw-1"))

	read := func(content []byte) error {
		put(content)
		return keys.Reread(func(k *keyring.Keyring) error { return store.Accepts(t.Context(), k) })
	}
	refuse := func(name string, content []byte) {
		t.Helper()
		if err := read(content); !errors.Is(err, db.ErrOtherKeyring) {
			t.Errorf("%s: error %v", name, err)
		}
		if _, err := store.CreatePatient(t.Context(), somebody("MRN-1", "ecw-1")); !db.IsNotFound(err) {
			t.Errorf("%s: the patient is stored again: %v", name, err)
		}
		findPatient(t, name, store, p)
	}
	refuse("another keyring", generated(t))

	known, used, retired := rotated(t, first, keyring.Indexes)
	for _, content := range [][]byte{known, used} {
		if err := read(content); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Reencrypt(t.Context(), func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	if err := read(retired); err != nil {
		t.Fatal(err)
	}
	refuse("the keyring from before the rotation", first)
	if err := read(retired); err != nil {
		t.Errorf("once the file is back: %v", err)
	}
}
