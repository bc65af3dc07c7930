package db

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/keyring"
)

// Sealed columns are sealed anew here: those that an earlier version stored in clear, and those whose key is not
// the one in use. It works on all tables in the same way, in the order of their primary keys, some rows at a
// time. What was done shows in the rows themselves, so it can be broken off anywhere and begun again.

const (
	// sealBatch is how many rows are looked at in one step, and sealed in one transaction at most. That takes some
	// milliseconds, which is as long as a delivery may wait for one of them.
	sealBatch = 200
	// sealPause leaves the database to others between two steps.
	sealPause = 20 * time.Millisecond
	// heldPause is how long rows are left to others that hold them.
	heldPause = time.Second
)

// Progress is told how far a long piece of work is, in rows; first when it begins.
type Progress func(done, total int64)

// ErrSealing means that another process does the same at the moment.
var ErrSealing = errors.New("another process is sealing columns at the moment: try again when it has ended")

// CountClear counts the rows that an earlier version stored in clear.
func (s *Store) CountClear(ctx context.Context) (rows int64, err error) {
	return s.countRows(ctx, func(t sealedTable) string { return t.clear })
}

// SealClear seals what an earlier version stored in clear, and returns how many rows that were. It may run while
// the system does. Of two processes one gets [ErrSealing].
func (s *Store) SealClear(ctx context.Context, progress Progress) (rows int64, err error) {
	return s.resealAll(ctx, progress, true)
}

// Reencrypt seals every column anew that was not sealed with the key in use, and fills the blind indexes that
// lack the hash under the key in use. It returns how many rows it has changed, also when it was broken off; it may
// run while the system does. A row that cannot be opened is left as it is, and an error says which was the first.
// Of two processes one gets [ErrSealing].
func (s *Store) Reencrypt(ctx context.Context, progress Progress) (rows int64, err error) {
	rows, err = s.resealAll(ctx, progress, false)
	if err != nil {
		return rows, err
	}
	return rows, s.refreshMark(ctx)
}

// sealLock is the advisory lock of the one process that seals.
const sealLock = 0x76747873 // vtxs

// alone runs fn while no other process does, or returns [ErrSealing].
func (s *Store) alone(ctx context.Context, fn func() error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()

	var mine bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", sealLock).Scan(&mine); err != nil {
		return err
	}
	if !mine {
		return ErrSealing
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
		defer cancel()
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", sealLock); err != nil {
			_ = conn.Conn().Close(ctx) // its end frees the lock
		}
	}()
	return fn()
}

// resealAll goes through all tables. onlyClear looks at rows in clear only.
func (s *Store) resealAll(ctx context.Context, progress Progress, onlyClear bool) (changed int64, err error) {
	among := func(sealedTable) string { return "true" }
	if onlyClear {
		among = func(t sealedTable) string { return t.clear }
	}

	w := walk{Store: s, onlyClear: onlyClear}
	err = s.alone(ctx, func() error {
		total, err := s.countRows(ctx, among)
		if err != nil {
			return err
		}
		progress(0, total)
		w.report = func(done int64) { progress(min(done, total), total) }

		for _, table := range sealedTables() {
			if onlyClear && table.clear == "" {
				continue
			}
			if err := w.through(ctx, table); err != nil {
				return err
			}
		}
		progress(total, total)
		return nil
	})
	if err == nil && w.unopened > 0 {
		err = fmt.Errorf("%d rows could not be opened and are as they were, the first: %w", w.unopened, w.first)
	}
	return w.changed, err
}

// countRows counts the rows of all tables for which a condition holds; an empty one holds for none.
func (s *Store) countRows(ctx context.Context, among func(sealedTable) string) (rows int64, err error) {
	err = s.inLongTx(ctx, func(tx pgx.Tx) error {
		for _, table := range sealedTables() {
			condition := among(table)
			if condition == "" {
				continue
			}
			var n int64
			if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+table.name+" t WHERE "+condition).Scan(&n); err != nil {
				return err
			}
			rows += n
		}
		return nil
	})
	return rows, err
}

// inLongTx runs statements that read whole tables, which may take longer than the pool's connections allow.
func (s *Store) inLongTx(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		return fn(tx)
	})
}

// walk is one way through the tables.
type walk struct {
	*Store
	onlyClear bool
	report    func(done int64)

	looked, changed int64
	unopened        int64 // rows that could not be opened
	first           error // why the first of them could not
}

// through goes through a table, until no row is left that others held when it came by.
func (w *walk) through(ctx context.Context, table sealedTable) error {
	for {
		held, looked, unopened := 0, w.looked, w.unopened
		var after []string
		for {
			step, err := w.step(ctx, table, after)
			if err != nil {
				return fmt.Errorf("%s: %w", table.name, err)
			}
			held += step.held
			w.looked += step.looked
			w.report(w.looked)
			if step.looked < sealBatch {
				break
			}
			after = step.last
			if err := sleep(ctx, sealPause); err != nil {
				return err
			}
		}
		if held == 0 {
			return nil
		}
		w.looked, w.unopened = looked, unopened // they are met again
		if err := sleep(ctx, heldPause); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// step is a piece of the way.
type step struct {
	looked int64
	last   []string // the primary key of the last row that was looked at
	held   int      // rows that somebody else held
}

// step looks at the next rows, and seals those that need it. It looks without a lock first, because of many rows
// few may need it.
func (w *walk) step(ctx context.Context, table sealedTable, after []string) (step, error) {
	var asked statement
	query := table.look(&asked, w.Store, after, w.onlyClear)
	rows, err := w.pool.Query(ctx, query, asked.args...)
	if err != nil {
		return step{}, err
	}

	var done step
	stale := 0
	key, needed := make([]string, len(table.key)), false
	_, err = pgx.ForEachRow(rows, append(pointers(key), &needed), func() error {
		done.looked++
		done.last = slices.Clone(key)
		if needed {
			stale++
		}
		return nil
	})
	if err != nil || stale == 0 {
		return done, err
	}

	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		taken, err := w.reseal(ctx, tx, table, after, done.last)
		done.held = max(0, stale-taken)
		return err
	})
	return done, err
}

func pointers(texts []string) (all []any) {
	for i := range texts {
		all = append(all, &texts[i])
	}
	return all
}

// look returns the query for the keys of the next rows, and whether each is to be sealed.
func (t sealedTable) look(s *statement, store *Store, after []string, onlyClear bool) string {
	where := "true"
	if onlyClear {
		where = t.clear
	}
	if after != nil {
		where += `
      AND ` + t.compare(s, ">", after)
	}
	return `
SELECT ` + t.keys("::text") + `, ` + t.stale(s, store, onlyClear) + `
FROM (
    SELECT *
    FROM ` + t.name + ` t
    WHERE ` + where + `
    ORDER BY ` + t.keys("") + `
    LIMIT ` + strconv.Itoa(sealBatch) + `
) t
ORDER BY ` + t.keys("")
}

// keys are the columns of the primary key of a row t.
func (t sealedTable) keys(suffix string) string {
	var columns []string
	for _, column := range t.key {
		columns = append(columns, "t."+column.name+suffix)
	}
	return strings.Join(columns, ", ")
}

// compare compares the primary key of a row t.
func (t sealedTable) compare(s *statement, operator string, key []string) string {
	var values []string
	for i, column := range t.key {
		values = append(values, s.arg(key[i])+"::text::"+column.kind)
	}
	return "(" + t.keys("") + ") " + operator + " (" + strings.Join(values, ", ") + ")"
}

// stale is SQL that reports whether a row t is to be sealed.
func (t sealedTable) stale(s *statement, store *Store, onlyClear bool) string {
	if onlyClear {
		return t.clear
	}

	var reasons []string
	if t.clear != "" {
		reasons = append(reasons, t.clear)
	}
	for _, column := range t.columns {
		reasons = append(reasons, "substr(t."+column.name+", 2, 4) <> "+s.arg(store.inUse(keyring.Columns))+"::bytea")
		for _, index := range column.indexes {
			lacks := "substr(t." + index.inUse(store) + ", 1, 4) IS DISTINCT FROM " + s.arg(store.inUse(keyring.Indexes)) + "::bytea"
			reasons = append(reasons, "t."+column.name+" IS NOT NULL AND "+lacks)
		}
	}
	return "coalesce(" + strings.Join(reasons, " OR ") + ", false)"
}

// inUse returns the id of the key that is in use, as ciphertexts and hashes have it.
func (s *Store) inUse(set keyring.Keyset) []byte {
	for _, key := range s.keys.Keys() {
		if key.Keyset == set && key.InUse {
			id, _ := hex.DecodeString(key.ID) // the keyring writes it so
			return id
		}
	}
	return nil
}

// inUse returns the column for hashes under the key that is in use, see [keyring.Index].
func (i blindIndex) inUse(store *Store) string {
	if id := store.inUse(keyring.Indexes); id[len(id)-1]%2 == 0 {
		return i.name + "_a"
	}
	return i.name + "_b"
}

// sealedRow is a row that is to be sealed.
type sealedRow struct {
	key      []string
	practice string
	cells    []sealedCell // one for each sealed column of the table
}

type sealedCell struct {
	sealed  []byte
	clear   *string
	indexes []keyring.Index
}

// reseal seals those rows after one key, up to another, that need it and that nobody else holds.
func (w *walk) reseal(ctx context.Context, tx pgx.Tx, table sealedTable, after, last []string) (taken int, err error) {
	rows, err := w.hold(ctx, tx, table, after, last)
	if err != nil {
		return 0, err
	}

	var changes pgx.Batch
	for _, row := range rows {
		var update statement
		set, err := w.changes(&update, table, row)
		if err != nil {
			w.unopened++
			w.first = cmp.Or(w.first, err)
			continue
		}
		if len(set) > 0 {
			changes.Queue("UPDATE "+table.name+" t SET "+strings.Join(set, ", ")+" WHERE "+table.compare(&update, "=", row.key), update.args...)
		}
	}
	if err := tx.SendBatch(ctx, &changes).Close(); err != nil {
		return 0, err
	}
	w.changed += int64(changes.Len())
	return len(rows), nil
}

// hold reads the rows and locks them. Where no unique column changes, the key itself is not locked, so that a
// transmission may be opened for a reading meanwhile. Hashes are in unique columns, whose UPDATE takes the lock on the
// key: taken then, it would wait for transactions that store readings of these patients, and they for it.
func (w *walk) hold(ctx context.Context, tx pgx.Tx, table sealedTable, after, last []string) ([]sealedRow, error) {
	var s statement
	columns := []string{table.keys("::text"), table.practice}
	for _, column := range table.columns {
		columns = append(columns, "t."+column.name, cmp.Or(column.clear, "NULL::text"))
		for _, index := range column.indexes {
			columns = append(columns, "t."+index.name+"_a", "t."+index.name+"_b")
		}
	}
	where := table.stale(&s, w.Store, w.onlyClear) + " AND " + table.compare(&s, "<=", last)
	if after != nil {
		where += " AND " + table.compare(&s, ">", after)
	}

	lock := "FOR NO KEY UPDATE"
	if slices.ContainsFunc(table.columns, func(c sealedColumn) bool { return len(c.indexes) > 0 }) {
		lock = "FOR UPDATE"
	}

	rows, err := tx.Query(ctx, `
SELECT `+strings.Join(columns, ", ")+`
FROM `+table.name+` t
WHERE `+where+`
ORDER BY `+table.keys("")+`
`+lock+` OF t SKIP LOCKED`, s.args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, table.scan)
}

func (t sealedTable) scan(from pgx.CollectableRow) (sealedRow, error) {
	row := sealedRow{key: make([]string, len(t.key)), cells: make([]sealedCell, len(t.columns))}
	into := append(pointers(row.key), &row.practice)
	for i, column := range t.columns {
		cell := &row.cells[i]
		cell.indexes = make([]keyring.Index, len(column.indexes))
		into = append(into, &cell.sealed, &cell.clear)
		for j := range cell.indexes {
			into = append(into, &cell.indexes[j].A, &cell.indexes[j].B)
		}
	}
	return row, from.Scan(into...)
}

// changes returns the new values of a row's columns, as an UPDATE sets them.
func (w *walk) changes(s *statement, table sealedTable, row sealedRow) (set []string, err error) {
	inUse := hex.EncodeToString(w.inUse(keyring.Columns))
	for i, column := range table.columns {
		has := row.cells[i]
		renew := has.clear != nil || has.sealed != nil && keyring.SealedWith(has.sealed) != inUse
		if !renew && (has.sealed == nil || len(column.indexes) == 0) {
			continue
		}

		cell := keyring.Cell{Table: table.name, Column: column.name, Practice: row.practice, Row: strings.Join(row.key, "/")}
		plain, err := w.plain(cell, has)
		if err != nil {
			return nil, err
		}
		if renew {
			sealed, err := w.keys.Seal(cell, plain)
			if err != nil {
				return nil, err
			}
			set = append(set, column.name+" = "+s.arg(sealed))
			for _, cleared := range column.cleared {
				set = append(set, cleared+" = NULL")
			}
		}
		for j, index := range column.indexes {
			value, err := index.value(plain)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", cell, err)
			}
			var want keyring.Index
			if value != "" {
				want = w.keys.Index(index.what, row.practice, value)
			}
			if !bytes.Equal(want.A, has.indexes[j].A) || !bytes.Equal(want.B, has.indexes[j].B) {
				set = append(set, index.name+"_a = "+s.arg(want.A), index.name+"_b = "+s.arg(want.B))
			}
		}
	}
	return set, nil
}

// plain returns what is to be sealed.
func (s *Store) plain(cell keyring.Cell, has sealedCell) ([]byte, error) {
	if has.clear != nil {
		return []byte(*has.clear), nil
	}
	return s.keys.Open(cell, has.sealed)
}
