package db_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

func auditEvent() db.NewAuditEvent {
	return db.NewAuditEvent{PracticeCode: "FFHEDD", Subject: "local", Action: "patient.read", Outcome: db.AuditSuccess}
}

// oneConnection is a store with one connection, and so one writer of the audit trail at a time.
func oneConnection(t *testing.T, conn *pgx.Conn, params ...string) *db.Store {
	t.Helper()
	u, err := url.Parse(conn.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("pool_max_conns", "1")
	for i := 0; i < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = q.Encode()
	store, err := db.Open(t.Context(), u.String(), keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

type writtenRow struct {
	writer   uuid.UUID
	sequence int64
}

func auditRows(t *testing.T, conn *pgx.Conn) (rows []writtenRow) {
	t.Helper()
	found, err := conn.Query(t.Context(), "SELECT writer, sequence FROM audit_events ORDER BY writer, sequence")
	if err != nil {
		t.Fatal(err)
	}
	rows, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (r writtenRow, err error) {
		return r, row.Scan(&r.writer, &r.sequence)
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestAuditWriter: a connection goes on with its numbers, until a transaction with rows is rolled back: no number is given
// out twice.
func TestAuditWriter(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	store := oneConnection(t, conn)
	tx := func(rows int, end error) {
		t.Helper()
		err := store.InTx(t.Context(), func(q *db.Queries) error {
			for range rows {
				if err := q.AddAuditEvents(t.Context(), auditEvent()); err != nil {
					return err
				}
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
	}
	sequences := func() (list []int64, writers int) {
		seen := map[uuid.UUID]bool{}
		for _, row := range auditRows(t, conn) {
			list, seen[row.writer] = append(list, row.sequence), true
		}
		return list, len(seen)
	}

	failed := errors.New("rolled back")
	tx(2, nil)
	tx(0, failed) // has written nothing
	tx(1, nil)
	if list, writers := sequences(); !slices.Equal(list, []int64{1, 2, 3}) || writers != 1 {
		t.Errorf("%v of %d writers", list, writers)
	}
	tx(1, failed)
	tx(2, nil)
	if list, writers := sequences(); !slices.Equal(list, []int64{1, 2, 3, 1, 2}) || writers != 2 {
		t.Errorf("after a rollback: %v of %d writers", list, writers)
	}

	func() {
		defer func() { _ = recover() }()
		_ = store.InTx(t.Context(), func(q *db.Queries) error {
			_ = q.AddAuditEvents(t.Context(), auditEvent())
			panic("in the middle")
		})
	}()
	tx(1, nil)
	if list, writers := sequences(); !slices.Equal(list, []int64{1, 2, 3, 1, 2, 1}) || writers != 3 {
		t.Errorf("after a panic: %v of %d writers", list, writers)
	}
}

// TestAuditIsWrittenInTransactions: elsewhere a row could be of something that has not happened.
func TestAuditIsWrittenInTransactions(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	if err := store.AddAuditEvents(t.Context(), auditEvent()); !errors.Is(err, db.ErrAudit) {
		t.Errorf("outside of a transaction: %v", err)
	}
}

// TestAuditClock: a process whose clock is minutes off writes nothing, and is told so.
func TestAuditClock(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	if _, err := conn.Exec(t.Context(), `CREATE SCHEMA moved; CREATE TABLE moved.by (it interval); INSERT INTO moved.by VALUES ('0');
		CREATE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.clock_timestamp() + it FROM moved.by'`); err != nil {
		t.Fatal(err)
	}
	store := oneConnection(t, conn, "search_path", "moved,pg_catalog,public")

	for by, accepted := range map[string]bool{"4 minutes": true, "-4 minutes": true, "6 minutes": false, "-6 minutes": false} {
		if _, err := conn.Exec(t.Context(), "UPDATE moved.by SET it = $1::text::interval", by); err != nil {
			t.Fatal(err)
		}
		err := store.InTx(t.Context(), func(q *db.Queries) error { return q.AddAuditEvents(t.Context(), auditEvent()) })
		if accepted && err != nil {
			t.Errorf("%s: %v", by, err)
		}
		if !accepted && (!errors.Is(err, db.ErrAudit) || !strings.Contains(err.Error(), "clock")) {
			t.Errorf("%s: %v", by, err)
		}
	}
}

// TestAuditMonths: partitions are made ahead, once, whoever asks at the same time, and nobody waits for that.
func TestAuditMonths(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	count := func() (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit_events'::regclass").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 25 {
		t.Fatalf("a new database has %d months", n)
	}
	if added, err := store.AddAuditMonths(t.Context(), 24); err != nil || added != 0 {
		t.Fatalf("added %d, %v", added, err)
	}

	// A reader of the whole trail, and one that writes, are not in the way.
	reader, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := reader.QueryRow(t.Context(), "SELECT count(*) FROM audit_events").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	err = store.InTx(t.Context(), func(q *db.Queries) error {
		if err := q.AddAuditEvents(t.Context(), auditEvent()); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // before lock_timeout
		defer cancel()
		var callers sync.WaitGroup
		var added [4]int32
		for i := range added {
			callers.Go(func() {
				n, err := store.AddAuditMonths(ctx, 30)
				if err != nil {
					t.Error(err)
				}
				added[i] = n
			})
		}
		callers.Wait()
		if sum := added[0] + added[1] + added[2] + added[3]; sum != 6 {
			t.Errorf("%v were added", added)
		}
		return q.AddAuditEvents(t.Context(), auditEvent())
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 31 {
		t.Errorf("%d months", n)
	}

	// Each has what its table has.
	var lacking []string
	if err := conn.QueryRow(t.Context(), `
		SELECT array_agg(c.relname::text)
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'audit_events'::regclass
		  AND ((SELECT count(*) FROM pg_index WHERE indrelid = c.oid) <> (SELECT count(*) FROM pg_index WHERE indrelid = i.inhparent)
		    OR (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid AND contype = 'c')
		        <> (SELECT count(*) FROM pg_constraint WHERE conrelid = i.inhparent AND contype = 'c')
		    OR NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgname = 'audit_events_append_only'))`).Scan(&lacking); err != nil {
		t.Fatal(err)
	}
	if len(lacking) > 0 {
		t.Errorf("lack an index, a check or the trigger: %q", lacking)
	}
}

// TestAuditMonthMissing: the error says what is missing.
func TestAuditMonthMissing(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	month := time.Now().UTC().Format("2006_01")
	if _, err := conn.Exec(t.Context(), "DROP TABLE audit_events_"+month); err != nil {
		t.Fatal(err)
	}
	err := store.InTx(t.Context(), func(q *db.Queries) error { return q.AddAuditEvents(t.Context(), auditEvent()) })
	if !errors.Is(err, db.ErrAudit) || !strings.Contains(err.Error(), "no table for "+strings.ReplaceAll(month, "_", "-")) {
		t.Errorf("%v", err)
	}
	if added, err := store.AddAuditMonths(t.Context(), 0); err != nil || added != 1 {
		t.Errorf("added %d, %v", added, err)
	}
}

// TestAuditFunctionsAreNotMisled: they run as the owner, and must not take a caller's temporary table for the trail's.
func TestAuditFunctionsAreNotMisled(t *testing.T) {
	t.Parallel()
	_, conn := migrated(t)
	if _, err := conn.Exec(t.Context(), `
		CREATE TABLE audit_events_2019_01 PARTITION OF audit_events FOR VALUES FROM ('2019-01-01') TO ('2019-02-01');
		INSERT INTO audit_events VALUES ('2019-01-10', gen_random_uuid(), 1, '', '', '', '', '', 'x', '', '{}', '{}', 'success', '', '', sha256('x'), '');
		CREATE TEMPORARY TABLE audit_seals AS SELECT writer, sequence AS last_sequence FROM audit_events`); err != nil {
		t.Fatal(err)
	}
	var month *time.Time
	if err := conn.QueryRow(t.Context(), "SELECT audit_drop_month(1)").Scan(&month); err != nil || month != nil {
		t.Errorf("dropped %v, which is not sealed; %v", month, err)
	}
}

// TestAuditOnlyGrows: what a mistake in SQL could do to the trail is refused, also to the owner of the tables.
func TestAuditOnlyGrows(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	if err := store.InTx(t.Context(), func(q *db.Queries) error { return q.AddAuditEvents(t.Context(), auditEvent()) }); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"UPDATE audit_events SET reason = 'x'",
		"DELETE FROM audit_events",
		"DELETE FROM audit_events_" + time.Now().UTC().Format("2006_01"),
		"TRUNCATE audit_events",
		"TRUNCATE audit_events_" + time.Now().UTC().Format("2006_01"),
		"TRUNCATE audit_seals",
		"TRUNCATE audit_hashes",
		"TRUNCATE audit_checkpoints",
	} {
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s is not refused", sql)
		}
	}
}
