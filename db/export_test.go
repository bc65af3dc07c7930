package db

import "github.com/jackc/pgx/v5/pgxpool"

// Pool gives tests the pool, for statements that no query of ours has.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }
