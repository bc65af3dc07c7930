package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// trail is a database with an audit trail, and the settings of a command on it.
type trail struct {
	store    *db.Store
	conn     *pgx.Conn // of a superuser
	settings []string
	dir      string
	// checkpoints is where the sealer puts checkpoints.
	checkpoints string
	sealer      audit.Sealer
}

func newTrail(t *testing.T) *trail {
	t.Helper()
	dir, database, file := t.TempDir(), stack.Postgres(t), keyringtest.File(t)
	keys, err := keyring.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	store := storeWith(t, database, file)
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	checkpoints := filepath.Join(dir, "checkpoints")
	return &trail{
		store:       store,
		conn:        conn,
		settings:    []string{"KEYRING_FILE=" + file, "DATABASE_URL=" + database, "ECW_PRACTICE_CODE=FFHEDD"},
		dir:         dir,
		checkpoints: checkpoints,
		sealer: audit.Sealer{
			Store:        store,
			Keys:         keys,
			PracticeCode: "FFHEDD",
			Checkpoints:  checkpoints,
			Logger:       slog.New(slog.DiscardHandler),
		},
	}
}

// read records that somebody has read so many patients.
func (tr *trail) read(t *testing.T, times int) {
	t.Helper()
	for range times {
		event := audit.Event{PracticeCode: "FFHEDD", Subject: "somebody", Action: audit.PatientRead, Patients: []uuid.UUID{uuid.New()}}
		if err := audit.RecordNow(t.Context(), tr.store, event); err != nil {
			t.Fatal(err)
		}
	}
}

func (tr *trail) seal(t *testing.T) {
	t.Helper()
	if _, err := tr.sealer.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (tr *trail) verify(t *testing.T, args ...string) *process {
	t.Helper()
	return run(t, tr.dir, tr.settings, append([]string{"audit", "verify"}, args...)...)
}

// An operator verifies the trail, and sees what a superuser of the database has done to it.
func TestTheTrailIsVerifiedByItsOperator(t *testing.T) {
	t.Parallel()
	tr := newTrail(t)
	tr.read(t, 5)
	tr.seal(t)
	tr.read(t, 3) // not sealed

	fine := tr.verify(t)
	mustSay(t, fine, 0, "")
	for _, text := range []string{"8, of which 5 are sealed", "Findings:     0", "--checkpoints"} {
		if !strings.Contains(fine.stdout.text(), text) {
			t.Errorf("a trail that is as it was is reported without %q:\n%s", text, fine.stdout.text())
		}
	}
	with := tr.verify(t, "--checkpoints", tr.checkpoints)
	mustSay(t, with, 0, "")
	if said := with.stdout.text(); !strings.Contains(said, "of which 1 are from outside") || strings.Contains(said, "made anew") {
		t.Errorf("with a checkpoint it is reported as\n%s", said)
	}
	var verified int
	err := tr.conn.QueryRow(t.Context(), "SELECT count(*) FROM audit_events WHERE action = 'audit.verify' AND outcome = 'success'").Scan(&verified)
	if err != nil || verified != 2 {
		t.Errorf("%d verifications are in the trail, want 2 (%v)", verified, err)
	}

	writer := tr.erase(t, 2, 7) // one that is sealed, and one that is not
	found := tr.verify(t, "--checkpoints", tr.checkpoints)
	mustSay(t, found, exitFound, "not as it was written")
	for _, sequence := range []int{2, 7} {
		if row := fmt.Sprintf("row %d of writer %s, ", sequence, writer); strings.Count(found.stdout.text(), row) != 1 {
			t.Errorf("%q is not named once:\n%s", row, found.stdout.text())
		}
	}
	if strings.Contains(found.stdout.text(), "row 3 of") {
		t.Errorf("a sealed row after the one that is gone is blamed:\n%s", found.stdout.text())
	}
}

// The log of a process holds its checkpoints as well as the file does.
func TestACheckpointIsReadFromTheLog(t *testing.T) {
	t.Parallel()
	tr := newTrail(t)
	for format, handler := range map[string]func(io.Writer) slog.Handler{
		"text": func(w io.Writer) slog.Handler { return newLineHandler(w, slog.LevelInfo) },
		"json": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		var log bytes.Buffer
		tr.sealer.Logger = slog.New(handler(&log))
		tr.read(t, 1)
		tr.seal(t)
		file := filepath.Join(tr.dir, format)
		if err := os.WriteFile(file, log.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		p := tr.verify(t, "--checkpoints", file)
		mustSay(t, p, 0, "")
		if !strings.Contains(p.stdout.text(), "of which 1 are from outside") {
			t.Errorf("from a log in %s: %s\n%s", format, p.stdout.text(), log.String())
		}
	}
}

// erase removes rows of "somebody", as only a superuser can, and returns their writer.
func (tr *trail) erase(t *testing.T, sequences ...int) (writer uuid.UUID) {
	t.Helper()
	var table string
	err := tr.conn.QueryRow(t.Context(), "SELECT writer, tableoid::regclass::text FROM audit_events WHERE subject = 'somebody' LIMIT 1").Scan(&writer, &table)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.conn.Exec(t.Context(), "DELETE FROM audit_events WHERE sequence = ANY ($1)", sequences); err == nil {
		t.Error("rows are removed without a trick")
	}
	if _, err := tr.conn.Exec(t.Context(), "ALTER TABLE "+table+" DISABLE TRIGGER USER"); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.conn.Exec(t.Context(), "DELETE FROM "+table+" WHERE writer = $1 AND sequence = ANY ($2)", writer, sequences); err != nil {
		t.Fatal(err)
	}
	return writer
}

// When it cannot check, that is not a finding.
func TestWhatCannotBeVerifiedHasAnExitCodeOfItsOwn(t *testing.T) {
	t.Parallel()
	tr := newTrail(t)
	empty := filepath.Join(tr.dir, "empty")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustSay(t, tr.verify(t, "--checkpoints", filepath.Join(tr.dir, "none")), exitUnchecked, "none")
	mustSay(t, tr.verify(t, "--checkpoints", empty), exitUnchecked, "holds no checkpoint")
	mustSay(t, tr.verify(t, "--checkpoint"), exitUnchecked, "unknown flag")
	mustSay(t, tr.verify(t, "now"), exitUnchecked, "now")
	tr.settings = tr.settings[:2]
	mustSay(t, tr.verify(t), exitUnchecked, "--practice")
	mustSay(t, tr.verify(t, "--practice", "FFHEDD"), 0, "")
	tr.settings[1] = "DATABASE_URL=postgres://u:p@127.0.0.1:1/db?sslmode=disable"
	mustSay(t, tr.verify(t, "--practice", "FFHEDD"), exitUnchecked, "no connection to the database")
}

// Somebody who has the public key checks a checkpoint with golang.org/x/mod, without us.
func TestACheckpointIsVerifiedByOthers(t *testing.T) {
	t.Parallel()
	tr := newTrail(t)
	tr.read(t, 1)
	tr.seal(t)
	p := run(t, tr.dir, tr.settings, "audit", "key")
	mustSay(t, p, 0, "")
	verifier, err := note.NewVerifier(strings.TrimSpace(p.stdout.text()))
	if err != nil {
		t.Fatalf("%v: %s", err, p.stdout.text())
	}
	content, err := os.ReadFile(tr.checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	signed := audit.ReadCheckpoints(string(content))
	if len(signed) != 1 {
		t.Fatalf("the file is %s", content)
	}
	opened, err := note.Open([]byte(signed[0]), note.VerifierList(verifier))
	if err != nil || !strings.HasPrefix(opened.Text, "vantrexia/audit/FFHEDD\n1\n") {
		t.Errorf("it says %v (%v)", opened, err)
	}
}
