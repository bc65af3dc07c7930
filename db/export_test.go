package db

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Pool gives tests the pool, for statements that no query of ours has.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// MigrateTo brings the schema to a version of the past.
func (s *Store) MigrateTo(ctx context.Context, version int64) error {
	provider, err := s.migrationProvider()
	if err != nil {
		return err
	}
	defer provider.Close()
	_, err = provider.UpTo(ctx, version)
	return err
}
