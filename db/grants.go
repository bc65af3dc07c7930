package db

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3/lock"
)

//go:embed grants.sql
var grants string

// ErrNotOwner means that a migration runs as an account that may not change the tables.
var ErrNotOwner = errors.New("this account does not own the tables: give `vantrexia migrate` the DATABASE_URL of the one that does")

// grant gives the database's roles their rights, one process after the other.
func (s *Store) grant(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, statement := range []string{
			"SET LOCAL statement_timeout = 0", // another process may migrate
			"SET LOCAL lock_timeout = 0",
			fmt.Sprint("SELECT pg_advisory_xact_lock(", lock.DefaultLockID, ")"), // which migrations hold too
			grants,
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("grant the database's roles their rights: %w", asOwner(err))
	}
	return nil
}

// asOwner explains the error of an account that does not own the tables.
func asOwner(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == insufficientPrivilege {
		return fmt.Errorf("%w (%w)", ErrNotOwner, err)
	}
	return err
}

// MayErase reports whether this account could change what proves who did what: it owns the tables, is a superuser, or was
// given too much. sqlc does not know PostgreSQL's catalogue.
func (s *Store) MayErase(ctx context.Context) (may bool, err error) {
	const query = `
SELECT pg_has_role(relowner, 'MEMBER') OR has_table_privilege(oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')
FROM pg_class
WHERE oid = 'account_events'::regclass`
	if err := s.pool.QueryRow(ctx, query).Scan(&may); err != nil {
		return false, fmt.Errorf("read the rights of this account: %w", err)
	}
	return may, nil
}
