// Package keyringtest gives tests the keys that a store needs.
package keyringtest

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vantrexia/vantrexia/keyring"
)

var content = sync.OnceValue(func() []byte {
	made, err := keyring.Generate()
	if err != nil {
		panic(err)
	}
	return made
})

// Shared returns the same keyring to all callers in a test process, so that two stores of one database can
// read what the other has written.
var Shared = sync.OnceValue(func() *keyring.Keyring {
	keys, err := keyring.New(content())
	if err != nil {
		panic(err)
	}
	return keys
})

// File returns a file with the keyring of [Shared], for the setting KEYRING_FILE.
func File(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyring.json")
	if err := os.WriteFile(path, content(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
