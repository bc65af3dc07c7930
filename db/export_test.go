package db

import (
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// Pool gives tests the pool, for statements that no query of ours has.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Keyed gives a test's connection the keys of all tests.
func Keyed(conn DBTX) DBTX { return keyed{conn, keyringtest.Shared()} }

// KnownColumns are the columns that the re-encryption knows, as table.column.
func KnownColumns() (columns []string) {
	for _, table := range sealedTables() {
		for _, column := range table.columns {
			columns = append(columns, table.name+"."+column.name)
			for _, index := range column.indexes {
				columns = append(columns, table.name+"."+index.name+"_a", table.name+"."+index.name+"_b")
			}
		}
	}
	for _, digest := range digestColumns() {
		columns = append(columns, digest.table+"."+digest.column)
	}
	return columns
}
