package db

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrMigrationsPending means that the database is older than this binary; `vantrexia migrate` brings it up to date.
var ErrMigrationsPending = errors.New("the database schema is older than this binary: run `vantrexia migrate`")

// Migrate brings the schema up to date and returns how many migrations it ran. It holds an advisory lock meanwhile, so
// that two processes starting together are safe.
func (s *Store) Migrate(ctx context.Context) (int, error) {
	provider, err := s.migrationProvider()
	if err != nil {
		return 0, err
	}
	defer provider.Close()
	results, err := provider.Up(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate database: %w", err)
	}
	return len(results), nil
}

// CheckMigrated returns ErrMigrationsPending when the schema is older than this binary.
func (s *Store) CheckMigrated(ctx context.Context) error {
	provider, err := s.migrationProvider()
	if err != nil {
		return err
	}
	defer provider.Close()
	pending, err := provider.HasPending(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if pending {
		return ErrMigrationsPending
	}
	return nil
}

func (s *Store) migrationProvider() (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("open embedded migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, fmt.Errorf("make migration lock: %w", err)
	}
	pool := stdlib.OpenDBFromPool(s.pool)
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, files, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, fmt.Errorf("read embedded migrations: %w", err)
	}
	return provider, nil
}
