package db

import (
	"context"
	"slices"

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

// LookAtReadings is the query by which readings are found that are to be sealed: the next ones after a key.
func (s *Store) LookAtReadings(after []string, onlyClear bool) (query string, args []any) {
	tables := sealedTables()
	readings := tables[slices.IndexFunc(tables, func(t sealedTable) bool { return t.name == "observations" })]
	var asked statement
	query = readings.look(&asked, s, after, onlyClear)
	return query, asked.args
}

// Explained runs a query for the sake of its plan.
func (q *Queries) Explained(query string, args ...any) error {
	rows, err := q.db.Query(context.Background(), query, args...)
	if err == nil {
		rows.Close()
	}
	return err
}

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
