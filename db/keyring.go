package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vantrexia/vantrexia/keyring"
)

// ErrOtherKeyring means that the database was written with another keyring. Writing to it would leave data
// that no single keyring can read, and patients who are not found and so are made twice.
var ErrOtherKeyring = errors.New("KEYRING_FILE is not the keyring that this database was written with: restore that one from its copy")

var markCell = keyring.Cell{Table: "keyring_mark", Column: "sealed", Row: "true"}

const mark = "This is the keyring of this database."

// Check returns the error of [Store.CheckMigrated], and then that of [Store.CheckKeyring].
func (s *Store) Check(ctx context.Context) error {
	if err := s.CheckMigrated(ctx); err != nil {
		return err
	}
	return s.CheckKeyring(ctx)
}

// CheckKeyring returns an error that wraps [ErrOtherKeyring] when the store's keyring is not the one of the
// database.
func (s *Store) CheckKeyring(ctx context.Context) error {
	found, err := s.getKeyringMark(ctx)
	if err != nil {
		return fmt.Errorf("read the mark of the keyring: %w", err)
	}
	if _, err := s.keys.Open(markCell, found.Sealed); err != nil {
		return fmt.Errorf("%w (%w)", ErrOtherKeyring, err)
	}
	isOurs := func(digest []byte) bool { return bytes.Equal(digest, found.Digest) }
	if !slices.ContainsFunc(s.keys.Digests(markCell.Table, "", mark), isOurs) {
		return fmt.Errorf("%w (its keyset %q has other keys)", ErrOtherKeyring, keyring.Indexes)
	}
	return nil
}

// refreshMark computes the mark's hash with the key that is in use.
func (s *Store) refreshMark(ctx context.Context) error {
	return s.setKeyringDigest(ctx, s.keys.Digest(markCell.Table, "", mark))
}

// markKeyring marks a database that has no mark, and checks the one that there is.
func (s *Store) markKeyring(ctx context.Context) error {
	sealed, err := s.keys.Seal(markCell, []byte(mark))
	if err != nil {
		return err
	}
	err = s.addKeyringMark(ctx, addKeyringMarkParams{
		Sealed: sealed,
		Digest: s.keys.Digest(markCell.Table, "", mark),
	})
	if err != nil {
		return fmt.Errorf("mark the keyring: %w", err)
	}
	return s.CheckKeyring(ctx)
}
