package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// A keyset is rotated from its first key to the retirement of that, with the commands of the runbook.
func TestKeysAreReplaced(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	address, namespace := stack.Temporal(t)
	database, file := stack.Postgres(t), filepath.Join(dir, "keyring.json")
	settings := []string{
		"KEYRING_FILE=" + file, "DATABASE_URL=" + database, "TEMPORAL_ADDRESS=" + address, "TEMPORAL_NAMESPACE=" + namespace,
		"ECW_PRACTICE_CODE=FFHEDD",
	}
	mustSay(t, run(t, dir, settings, "keys", "status"), 1, "keys create")
	mustSay(t, run(t, dir, settings, "keys", "create"), 0, "audit trail, which begins")
	mustSay(t, run(t, dir, settings, "keys", "create"), 1, "never overwritten")
	mustSay(t, run(t, dir, settings, "keys", "create", "--keep"), 0, "")
	mustSay(t, run(t, dir, settings, "migrate"), 0, "")
	addPatient(t, database, file)

	old := map[keyring.Keyset]string{}
	for _, set := range []keyring.Keyset{keyring.Columns, keyring.Indexes, keyring.Temporal} {
		old[set] = keyOf(t, status(t, dir, settings), set, "in use")
	}
	mustSay(t, run(t, dir, settings, "keys", "rotate"), 1, "columns, indexes, temporal, audit")
	mustSay(t, run(t, dir, settings, "keys", "rotate", "names"), 1, `no keyset "names"`)
	mustSay(t, run(t, dir, settings, "keys", "rotate", "columns", "--after", "10s"), 1, "too short")
	mustSay(t, run(t, dir, settings, "keys", "retire", "columns", old[keyring.Columns]), 1, "rotate the keyset")
	mustSay(t, run(t, dir, settings, "keys", "retire", "columns", "00000000"), 1, "keys status")
	rotated := run(t, dir, settings, "keys", "rotate", "columns", "--out", file+".new")
	mustSay(t, rotated, 0, "replace the secret")
	if said := rotated.stderr.text(); strings.Contains(said, "audit trail") {
		t.Errorf("beside a database that answers it says %s", said)
	}
	away := append(slices.Clone(settings), "DATABASE_URL=postgres://nobody@127.0.0.1:1/vantrexia")
	mustSay(t, run(t, dir, away, "keys", "rotate", "columns", "--out", file+".new2"), 0, "not recorded in the audit trail")
	oldAudit := keyOf(t, status(t, dir, settings), keyring.Audit, "in use")

	// The first keys are a day old, and the next came into use a while ago, so that the test need not wait for that.
	change(t, file, func(content []byte) []byte {
		dates := regexp.MustCompile(`"(created_at|used_from)": "[^"]+"`)
		content = dates.ReplaceAll(content, []byte(`"$1": "`+time.Now().Add(-24*time.Hour).UTC().Format(time.RFC3339)+`"`))
		for set := range old {
			changed, _, err := keyring.Rotate(content, set, time.Now().Add(-settleTime-time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			content = changed
		}
		content, _, err := keyring.Rotate(content, keyring.Audit, time.Now().Add(-settleTime-time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		return content
	})
	shown := status(t, dir, settings)
	if !regexp.MustCompile(`columns +` + old[keyring.Columns] + ` .* old +.*patients.demographics: 1 rows`).MatchString(shown) {
		t.Errorf("the status does not say that the old key is needed:\n%s", shown)
	}
	mustSay(t, run(t, dir, settings, "keys", "retire", "columns", old[keyring.Columns]), 1, "patients.demographics: 1 rows")
	mustSay(t, run(t, dir, settings, "keys", "retire", "indexes", old[keyring.Indexes]), 1, "keys reencrypt")
	mustSay(t, run(t, dir, settings, "keys", "reencrypt"), 0, "")
	for set, id := range old {
		mustSay(t, run(t, dir, settings, "keys", "retire", string(set), id), 0, "keys escrow")
	}
	shown = status(t, dir, settings)
	if strings.Contains(shown, old[keyring.Columns]) || strings.Count(shown, " old ") != 1 {
		t.Errorf("after the retirement:\n%s", shown)
	}
	if !regexp.MustCompile(`audit +` + oldAudit + ` .* old +audit_events.code: \d+ rows`).MatchString(shown) {
		t.Errorf("the status does not say that the audit trail needs its old key:\n%s", shown)
	}
	mustSay(t, run(t, dir, settings, "keys", "retire", "audit", oldAudit), 1, "cannot be verified")

	store := storeWith(t, database, file)
	found, err := store.FindPatientByMRN(t.Context(), db.FindPatientByMRNParams{PracticeCode: "FFHEDD", MRN: "M1"})
	if err != nil || found.LastName != "Lovelace" {
		t.Errorf("the patient is found as %q (%v)", found.LastName, err)
	}
	if err := store.Check(t.Context()); err != nil {
		t.Errorf("the database does not know its keyring any more: %v", err)
	}
	checkKeyEvents(t, database, file, `schema.migrate \d+ migrations by local
keys.change rotate columns/[0-9a-f]{8} by local
keys.change reencrypt by local
(keys.change retire (columns|indexes|temporal)/[0-9a-f]{8} by local
){3}`)
}

// checkKeyEvents compares the rows of the audit trail that have been written with a pattern, and verifies the trail.
func checkKeyEvents(t *testing.T, database, file, want string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), `
		SELECT action || ' ' || reason || coalesce(' ' || resource_ids[1], '') || ' by ' || subject, token_id, address
		FROM audit_events
		WHERE practice_code = 'FFHEDD' AND outcome = 'success'
		ORDER BY recorded_at`)
	if err != nil {
		t.Fatal(err)
	}
	var said, what, who, where string
	account, machine := operator()
	_, err = pgx.ForEachRow(rows, []any{&what, &who, &where}, func() error {
		said += what + "\n"
		if who != account || where != machine {
			t.Errorf("%s: by %q at %q, want %q at %q", what, who, where, account, machine)
		}
		return nil
	})
	if err != nil || !regexp.MustCompile(`^`+want+`$`).MatchString(said) {
		t.Errorf("the audit trail says\n%s, want\n%s (%v)", said, want, err)
	}

	keys, err := keyring.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(t.Context(), storeWith(t, database, file), keys, "FFHEDD", nil)
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("the trail is not as it was written: %v (%v)", report.Findings, err)
	}
}

func status(t *testing.T, dir string, settings []string) string {
	t.Helper()
	p := run(t, dir, settings, "keys", "status")
	if code := p.wait(t); code != 0 {
		t.Fatalf("keys status ended with %d: %s", code, p.stderr.text())
	}
	return p.stdout.text()
}

// keyOf returns the id of the key of a keyset that has a state.
func keyOf(t *testing.T, shown string, set keyring.Keyset, state string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + string(set) + ` +([0-9a-f]{8}) .*` + state).FindStringSubmatch(shown)
	if found == nil {
		t.Fatalf("no key of %s is %s:\n%s", set, state, shown)
	}
	return found[1]
}

func change(t *testing.T, file string, by func(content []byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, by(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func storeWith(t *testing.T, database, file string) *db.Store {
	t.Helper()
	keys, err := keyring.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	store, err := db.Open(t.Context(), database, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

func addPatient(t *testing.T, database, file string) {
	t.Helper()
	_, err := storeWith(t, database, file).CreatePatient(t.Context(), db.CreatePatientParams{
		PracticeCode: "FFHEDD",
		Demographics: db.Demographics{
			FirstName:   "Ada",
			LastName:    "Lovelace",
			DateOfBirth: time.Date(1815, 12, 10, 0, 0, 0, 0, time.UTC),
			MRN:         "M1",
		},
		Active: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}
