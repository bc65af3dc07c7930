package db

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/keyring"
)

// Use is how many rows need a key.
type Use struct {
	Table  string
	Column string // empty: any, for rows in clear
	Keyset keyring.Keyset
	Key    string // as [keyring.Key] has it; empty: the rows are in clear
	Rows   int64
}

// Uses counts which rows need which key. A blind index needs an old key only where it lacks the hash under the key
// in use. It reads all tables, which takes seconds with a million readings.
func (s *Store) Uses(ctx context.Context) (uses []Use, err error) {
	err = s.inLongTx(ctx, func(tx pgx.Tx) error {
		for _, use := range s.usesToCount() {
			rows, err := tx.Query(ctx, use.query, use.args...)
			if err != nil {
				return err
			}
			var key string
			var n int64
			_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error {
				counted := use.Use
				counted.Key, counted.Rows = key, n
				uses = append(uses, counted)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return uses, err
}

// useToCount is a query for ids of keys, and how many rows need each.
type useToCount struct {
	Use
	query string
	args  []any
}

func (s *Store) usesToCount() (all []useToCount) {
	add := func(table, column string, set keyring.Keyset, key, where string, args ...any) {
		all = append(all, useToCount{
			Use: Use{Table: table, Column: column, Keyset: set},
			query: `
SELECT ` + key + ` AS used, count(*)
FROM ` + table + ` t
WHERE ` + where + `
GROUP BY used
ORDER BY used`,
			args: args,
		})
	}

	for _, table := range sealedTables() {
		if table.clear != "" {
			add(table.name, "", keyring.Columns, "''", table.clear)
		}
		for _, column := range table.columns {
			name := "t." + column.name
			add(table.name, column.name, keyring.Columns, "encode(substr("+name+", 2, 4), 'hex')", name+" IS NOT NULL")
			for _, index := range column.indexes {
				used := "t." + index.inUse(s)
				for _, half := range []string{"_a", "_b"} {
					hash := "substr(t." + index.name + half + ", 1, 4)"
					add(table.name, index.name+half, keyring.Indexes, "encode("+hash+", 'hex')",
						hash+" = $1::bytea OR "+hash+" IS NOT NULL AND substr("+used+", 1, 4) IS DISTINCT FROM $1::bytea",
						s.inUse(keyring.Indexes))
				}
			}
		}
	}
	for _, digest := range digestColumns() {
		name := "t." + digest.column
		add(digest.table, digest.column, keyring.Indexes, "encode(substr("+name+", 1, 4), 'hex')", name+" IS NOT NULL")
	}
	add("audit_events", "code", keyring.Audit, "t.key_id", "true")
	add("audit_checkpoints", "note", keyring.Audit, "t.key_id", "true")
	return all
}
