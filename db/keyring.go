package db

import (
	"bytes"
	"context"
	"database/sql"
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
func (s *Store) CheckKeyring(ctx context.Context) error { return s.Accepts(ctx, s.keys) }

// Accepts is [Store.CheckKeyring] for a keyring that the store may get.
func (s *Store) Accepts(ctx context.Context, keys *keyring.Keyring) error {
	found, err := s.getKeyringMark(ctx)
	if err != nil {
		return fmt.Errorf("read the mark of the keyring: %w", err)
	}
	return found.check(keys)
}

// check returns an error that wraps [ErrOtherKeyring] when another keyring has made the mark.
func (m getKeyringMarkRow) check(keys *keyring.Keyring) error {
	if _, err := keys.Open(markCell, m.Sealed); err != nil {
		return fmt.Errorf("%w (%w)", ErrOtherKeyring, err)
	}
	isOurs := func(digest []byte) bool { return bytes.Equal(digest, m.Digest) }
	if !slices.ContainsFunc(keys.Digests(markCell.Table, "", mark), isOurs) {
		return fmt.Errorf("%w (its keyset %q has other keys)", ErrOtherKeyring, keyring.Indexes)
	}
	return nil
}

// refreshMark computes the mark's hash with the key that is in use.
func (s *Store) refreshMark(ctx context.Context) error {
	return s.setKeyringDigest(ctx, s.keys.Digest(markCell.Table, "", mark))
}

// markIn is a migration that seals, after it has marked a database that has no mark, and has checked the one that there
// is. Migrations may be broken off between two of them: what one has sealed with a keyring is left to that one.
func (s *Store) markIn(seal func(context.Context, *sql.Tx) error) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		sealed, err := s.keys.Seal(markCell, []byte(mark))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO keyring_mark (sealed, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING",
			sealed, s.keys.Digest(markCell.Table, "", mark))
		if err != nil {
			return err
		}

		var found getKeyringMarkRow
		err = tx.QueryRowContext(ctx, "SELECT sealed, digest FROM keyring_mark").Scan(&found.Sealed, &found.Digest)
		if err != nil {
			return err
		}
		if err := found.check(s.keys); err != nil {
			return err
		}
		return seal(ctx, tx)
	}
}
