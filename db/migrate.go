package db

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrMigrationsPending means that the database is older than this binary; `vantrexia migrate` brings it up to
// date.
var ErrMigrationsPending = errors.New("the database schema is older than this binary: run `vantrexia migrate`")

// Migrate brings the schema up to date, gives the database's roles their rights (grants.sql), and returns how many migrations
// it ran. A database that was written with
// another keyring is an error that wraps [ErrOtherKeyring]. Meanwhile it holds an advisory
// lock, so processes that start together are safe: one migrates, the others wait for it.
func (s *Store) Migrate(ctx context.Context) (int, error) {
	provider, err := s.migrationProvider()
	if err != nil {
		return 0, err
	}
	defer provider.Close()

	results, err := provider.Up(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate database: %w", asOwner(err))
	}
	if err := s.grant(ctx); err != nil {
		return 0, err
	}
	return len(results), s.CheckKeyring(ctx)
}

// migrationLockTimeout is how long a migration waits for a table that another transaction holds. All others
// that want the table wait behind it meanwhile, so it fails rather than waits longer. It can be run again.
const migrationLockTimeout = 10 * time.Second

// migrationProvider has a connection of its own: an index on a large table takes longer than the pool's
// connections allow.
func (s *Store) migrationProvider() (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("open embedded migrations: %w", err)
	}

	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 600)) // asks every second, for ten minutes
	if err != nil {
		return nil, fmt.Errorf("make migration lock: %w", err)
	}

	cfg := s.pool.Config().ConnConfig
	cfg.RuntimeParams["application_name"] = "vantrexia migrate"
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	cfg.RuntimeParams["lock_timeout"] = milliseconds(migrationLockTimeout)

	provider, err := goose.NewProvider(goose.DialectPostgres, stdlib.OpenDB(*cfg), files,
		goose.WithSessionLocker(locker), goose.WithGoMigrations(s.goMigrations()...))
	if err != nil {
		return nil, fmt.Errorf("read embedded migrations: %w", err)
	}
	return provider, nil
}

// goMigrations are the migrations that need the keys. Their numbers are among those of the files.
func (s *Store) goMigrations() []*goose.Migration {
	return []*goose.Migration{
		goose.NewGoMigration(12, &goose.GoFunc{RunTx: s.markIn(sealPatients(s.keys))}, nil),
		goose.NewGoMigration(16, &goose.GoFunc{RunTx: s.markIn(s.sealUsers)}, nil),
	}
}

// CheckMigrated returns ErrMigrationsPending when the schema is older than this binary. A newer schema is
// fine: during an upgrade the processes that are not replaced yet see one. It is one cheap query, so probes
// may call it.
func (s *Store) CheckMigrated(ctx context.Context) error {
	known, err := s.migrationVersions()
	if err != nil {
		return err
	}

	var pending bool
	const query = "SELECT NOT ARRAY(SELECT version_id FROM goose_db_version WHERE is_applied) @> $1::bigint[]"
	err = s.pool.QueryRow(ctx, query, known).Scan(&pending)

	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == undefinedTable { // nothing was ever migrated here
		return ErrMigrationsPending
	}
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if pending {
		return ErrMigrationsPending
	}
	return nil
}

// migrationVersions lists the numbers of all migrations.
func (s *Store) migrationVersions() ([]int64, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	versions := make([]int64, len(names))
	for i, name := range names {
		if versions[i], err = goose.NumericComponent(name); err != nil {
			return nil, fmt.Errorf("embedded migration %s: %w", name, err)
		}
	}
	for _, migration := range s.goMigrations() {
		versions = append(versions, migration.Version)
	}
	return versions, nil
}
