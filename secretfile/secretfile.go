// Package secretfile reads files that hold a secret, and refuses one that other accounts of the machine may
// read or replace.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Read returns the content of a file that holds a secret. It follows symlinks, because Kubernetes makes them.
//
// It refuses a file that its group or others may write to: somebody else could exchange the secret. It also
// refuses one that others may read, or its group, with two exceptions.
//
//   - On a read-only mount every account may read it. That is how Docker and Kubernetes pass secrets: they
//     show the file to one container only, whatever its mode.
//   - A file of root may be readable for its group (0640), the group of the account that the process runs in.
//     PostgreSQL has the same rule for the key of its certificate.
//
// The error names the file, its mode and the remedy. It wraps [fs.ErrNotExist] and the like. Windows has no
// modes, and nothing is refused there.
func Read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	// The opened file is looked at, not the path: the path may name another file by now.
	if err := check(file); err != nil {
		return nil, err
	}
	return io.ReadAll(file)
}

// access is what decides whether a file may hold a secret.
type access struct {
	mode     fs.FileMode
	owner    int  // the uid
	readOnly bool // the mount is
}

const (
	othersMayRead  = 0o004
	groupMayRead   = 0o040
	notOwnersWrite = 0o022
	root           = 0
)

// err is nil if the file may hold a secret.
func (a access) err() error {
	switch mode := a.mode.Perm(); {
	case mode&notOwnersWrite != 0:
		return errors.New("other accounts may write to it")
	case a.readOnly:
		return nil
	case mode&othersMayRead != 0:
		return errors.New("every account may read it")
	case mode&groupMayRead != 0 && a.owner != root:
		return errors.New("its group may read it, which only a file of root may allow")
	}
	return nil
}

// refusal says what is wrong with a file, and what to do.
func refusal(path string, mode fs.FileMode, reason error) error {
	return fmt.Errorf("%s has the mode %#o: %w; run: chmod 600 %s", path, mode.Perm(), reason, path)
}
