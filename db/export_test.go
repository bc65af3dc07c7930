package db

import "github.com/jackc/pgx/v5/pgxpool"

// Pool runs what no query of ours does.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }
