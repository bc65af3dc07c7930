package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack/devtest"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

var stack = devtest.Stack{Migrate: func(ctx context.Context, url string) error {
	store, err := db.Open(ctx, url, keyringtest.Shared())
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Migrate(ctx)
	return err
}}

func TestMain(m *testing.M) {
	if os.Getenv(sealerURL) != "" {
		sealForEver()
	}
	os.Exit(stack.Run(m))
}

const practice = "FFHEDD"

// rig is a database with a trail, and a sealer that publishes to a file.
type rig struct {
	testing.TB
	url   string
	store *db.Store
	admin *pgx.Conn // a superuser
	keys  *keyring.Keyring

	sealer audit.Sealer
	log    *book
}

func newRig(tb testing.TB) *rig { return newRigOn(tb, stack.Postgres(tb)) }

func newRigOn(tb testing.TB, url string) *rig {
	tb.Helper()
	r := &rig{TB: tb, url: url, keys: keyringtest.Shared(), log: &book{}}
	r.store = r.open(url, r.keys)

	admin, err := pgx.Connect(tb.Context(), r.url)
	r.must(err)
	tb.Cleanup(func() { admin.Close(context.Background()) })
	r.admin = admin

	r.sealer = audit.Sealer{
		Store:        r.store,
		Keys:         r.keys,
		PracticeCode: practice,
		Checkpoints:  filepath.Join(tb.TempDir(), "checkpoints"),
		Logger:       slog.New(slog.NewTextHandler(r.log, nil)),
	}
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) open(url string, keys *keyring.Keyring) *db.Store {
	r.Helper()
	store, err := db.Open(r.Context(), url, keys)
	r.must(err)
	r.Cleanup(store.Close)
	return store
}

// withParam returns the database's URL with a parameter.
func (r *rig) withParam(name, value string) string {
	r.Helper()
	u, err := url.Parse(r.url)
	r.must(err)
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// writer is a store with one connection, and so one writer.
type writer struct {
	*db.Store
	id uuid.UUID
}

func (r *rig) writer() *writer {
	return &writer{Store: r.open(r.withParam("pool_max_conns", "1"), r.keys)}
}

// write adds rows, each in a transaction of its own.
func (r *rig) write(w *writer, rows int) {
	r.Helper()
	for range rows {
		r.must(audit.RecordNow(r.Context(), w.Store, event()))
	}
	if w.id == (uuid.UUID{}) {
		r.must(r.admin.QueryRow(r.Context(), "SELECT writer FROM audit_events ORDER BY recorded_at DESC LIMIT 1").Scan(&w.id))
	}
}

// event is one that has something in each field.
func event() audit.Event {
	return audit.Event{
		PracticeCode: practice,
		Subject:      "018f4d9e-0000-7000-8000-00000000abcd",
		Role:         "nurse",
		TokenID:      "token-7",
		Address:      "192.0.2.7",
		Action:       audit.PatientRead,
		ResourceType: "Patient",
		ResourceIDs:  []string{"first", "second"},
		Patients:     []uuid.UUID{uuid.New(), uuid.New()},
		Reason:       "treatment",
	}
}

// seal seals all rows, and fails when not so many were open.
func (r *rig) seal(want int) {
	r.Helper()
	got, err := r.sealer.Seal(r.Context())
	r.must(err)
	if got != want {
		r.Fatalf("sealed %d rows, want %d", got, want)
	}
}

// exec runs SQL as a superuser whom no trigger stops, and reports how many rows it touched.
func (r *rig) exec(sql string, args ...any) int64 {
	r.Helper()
	var touched int64
	r.must(pgx.BeginFunc(r.Context(), r.admin, func(tx pgx.Tx) error {
		if _, err := tx.Exec(r.Context(), "SET LOCAL session_replication_role = replica"); err != nil {
			return err
		}
		tag, err := tx.Exec(r.Context(), sql, args...)
		touched = tag.RowsAffected()
		return err
	}))
	return touched
}

var tables = []string{"audit_events", "audit_seals", "audit_hashes", "audit_checkpoints"}

// save keeps the trail as it is now, for restore.
func (r *rig) save() {
	r.Helper()
	for _, table := range tables {
		r.exec("DROP TABLE IF EXISTS saved_" + table)
		r.exec("CREATE TABLE saved_" + table + " AS TABLE " + table)
	}
}

// restore puts the trail back as it was saved.
func (r *rig) restore() {
	r.Helper()
	for _, table := range tables {
		r.exec("DELETE FROM " + table)
		r.exec("INSERT INTO " + table + " SELECT * FROM saved_" + table)
	}
}

// published are the checkpoints in the sealer's file.
func (r *rig) published() []string {
	r.Helper()
	content, err := os.ReadFile(r.sealer.Checkpoints)
	r.must(err)
	return audit.ReadCheckpoints(string(content))
}

func (r *rig) verify(outside ...string) audit.Report {
	r.Helper()
	report, err := audit.Verify(r.Context(), r.store, r.keys, practice, outside)
	r.must(err)
	return report
}

// untouched fails when a verification finds something.
func (r *rig) untouched(outside ...string) audit.Report {
	r.Helper()
	report := r.verify(outside...)
	for i, f := range report.Findings {
		if i < 20 {
			r.Errorf("in an untouched trail: %s", f)
		}
	}
	return report
}

// named are the rows that a report names, as writer/number.
func named(report audit.Report) []string {
	var list []string
	for _, f := range report.Findings {
		if f.Row != nil {
			list = append(list, name(f.Row.Writer, f.Row.Sequence))
		}
	}
	slices.Sort(list)
	return list
}

func name(writer uuid.UUID, sequence int64) string { return fmt.Sprintf("%s/%d", writer, sequence) }

// says reports whether a finding about the log contains the text.
func says(report audit.Report, text string) bool {
	return slices.ContainsFunc(report.Findings, func(f audit.Finding) bool { return f.Row == nil && strings.Contains(f.What, text) })
}

// book is what a logger has written.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// coded is the second account of what a row's code is computed of. Nobody must change it: rows are kept for seven years.
func coded(e db.AuditEvent) []byte {
	var b bytes.Buffer
	number := func(n any) { _ = binary.Write(&b, binary.BigEndian, n) }
	text := func(s string) {
		number(uint32(len(s)))
		b.WriteString(s)
	}
	text("audit event")
	text(string(e.CodeBefore))
	number(e.RecordedAt.UnixMicro())
	b.Write(e.Writer[:])
	number(e.Sequence)
	for _, s := range []string{e.PracticeCode, e.Subject, e.Role, e.TokenID, e.Address, e.Action, e.ResourceType} {
		text(s)
	}
	number(uint32(len(e.ResourceIDs)))
	for _, id := range e.ResourceIDs {
		text(id)
	}
	number(uint32(len(e.PatientIDs)))
	for _, id := range e.PatientIDs {
		b.Write(id[:])
	}
	text(e.Outcome)
	text(e.Reason)
	return b.Bytes()
}

func digest(e db.AuditEvent) [sha256.Size]byte {
	return sha256.Sum256([]byte(string(coded(e)) + string(e.Code) + e.KeyID))
}

// insertPast adds a writer's rows with real codes at times that the product would refuse.
func (r *rig) insertPast(id uuid.UUID, times ...time.Time) {
	r.Helper()
	e := event()
	before := []byte{}
	var rows [][]any
	for i, at := range times {
		row := db.AuditEvent{
			RecordedAt:   at.UTC().Truncate(time.Microsecond),
			Writer:       id,
			Sequence:     int64(i + 1),
			PracticeCode: e.PracticeCode,
			Subject:      e.Subject,
			Role:         e.Role,
			TokenID:      e.TokenID,
			Address:      e.Address,
			Action:       string(e.Action),
			ResourceType: e.ResourceType,
			ResourceIDs:  e.ResourceIDs,
			PatientIDs:   e.Patients,
			Outcome:      db.AuditSuccess,
			Reason:       e.Reason,
			CodeBefore:   before,
		}
		row.Code, row.KeyID = r.keys.AuditCode(coded(row))
		before = row.Code
		rows = append(rows, []any{
			row.RecordedAt, row.Writer, row.Sequence, row.PracticeCode, row.Subject, row.Role, row.TokenID, row.Address, row.Action,
			row.ResourceType, row.ResourceIDs, row.PatientIDs, row.Outcome, row.Reason, row.CodeBefore, row.Code, row.KeyID,
		})
	}
	_, err := r.admin.CopyFrom(r.Context(), pgx.Identifier{"audit_events"}, []string{
		"recorded_at", "writer", "sequence", "practice_code", "subject", "role", "token_id", "address", "action", "resource_type",
		"resource_ids", "patient_ids", "outcome", "reason", "code_before", "code", "key_id",
	}, pgx.CopyFromRows(rows))
	r.must(err)
}
