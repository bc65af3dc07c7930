//go:build unix

package secretfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestModes(t *testing.T) {
	t.Parallel()
	const us = 1000
	for _, c := range []struct {
		mode          fs.FileMode
		owner         int
		mount, secret bool // whether the file is taken: on a usual mount, on a read-only one
	}{
		{0o600, us, true, true},
		{0o400, us, true, true},
		{0o700, us, true, true},
		{0o600, root, true, true},
		{0o640, us, false, true},
		{0o440, us, false, true},
		{0o640, root, true, true}, // root:vantrexia, read by the service vantrexia
		{0o440, root, true, true}, // fsGroup of Kubernetes
		{0o644, us, false, true},
		{0o644, root, false, true},
		{0o444, root, false, true}, // a secret of Docker
		{0o604, root, false, true},
		{0o620, root, false, false},
		{0o660, root, false, false},
		{0o602, us, false, false},
		{0o666, us, false, false},
		{0o777, root, false, false},
	} {
		usual := access{mode: c.mode, owner: c.owner}.err()
		secret := access{mode: c.mode, owner: c.owner, readOnly: true}.err()
		if (usual == nil) != c.mount || (secret == nil) != c.secret {
			t.Errorf("%#o of %d: %v; on a read-only mount: %v", c.mode, c.owner, usual, secret)
		}
	}
}

// write makes a file with this mode, whatever the umask is.
func write(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte("a secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, 0o600)
	if text, err := Read(path); err != nil || string(text) != "a secret\n" {
		t.Errorf("read %q, %v", text, err)
	}

	for _, mode := range []fs.FileMode{0o644, 0o620, 0o606} {
		write(t, path, mode)
		text, err := Read(path)
		if err == nil || text != nil {
			t.Errorf("%#o is taken: %q", mode, text)
			continue
		}
		for _, part := range []string{path, fmt.Sprintf("%#o", mode), "chmod 600 " + path} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error %q does not name %s", err, part)
			}
		}
	}

	if _, err := Read(path + ".missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

// TestTheFileBehindASymlinkIsLookedAt: Kubernetes mounts secret → ..data/secret → ..2026_11_29/secret, and a
// symlink itself has the mode 0777.
func TestTheFileBehindASymlinkIsLookedAt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..version"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"..data": "..version", "secret": "..data/secret"} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}

	for mode, taken := range map[fs.FileMode]bool{0o600: true, 0o644: false} {
		write(t, filepath.Join(dir, "..version", "secret"), mode)
		if _, err := Read(filepath.Join(dir, "secret")); (err == nil) != taken {
			t.Errorf("%#o behind symlinks: %v", mode, err)
		}
	}
}
