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
