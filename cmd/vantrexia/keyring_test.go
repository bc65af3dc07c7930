package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// The path of a keyring may be a symlink. What is replaced is the file behind it, which others may read by another path.
func TestARotatedKeyringStaysBehindItsSymlink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "safe", "keyring.json"), filepath.Join(dir, "keyring.json")
	if err := writeNew(file, []byte("before")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}

	var cfg config
	cfg.KeyringFile = link
	if err := putKeyring(io.Discard, cfg, []byte("after"), ""); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, []byte("after")) {
			t.Errorf("%s holds %q, %v", path, content, err)
		}
	}
}
