package db_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// The keyset of the audit trail is rotated while a process writes and seals. What it wrote before and what it writes then is
// verified with the key of its time, and the old key is needed as long as that is kept.
func TestTheAuditTrailOutlivesARotation(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	before := generated(t)
	_, after, retired := rotated(t, before, keyring.Audit)
	file := filepath.Join(t.TempDir(), "keyring.json")
	put := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(before)
	keys, err := keyring.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	store, err := db.Open(t.Context(), v.url+"&pool_max_conns=1", keys) // one writer, whose chain goes on under the next key
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	sealer := audit.Sealer{Store: store, Keys: keys, PracticeCode: "FFHEDD", Logger: slog.New(slog.DiscardHandler)}
	write := func(seal bool) {
		t.Helper()
		for range 3 {
			if err := audit.RecordNow(t.Context(), store, audit.Event{PracticeCode: "FFHEDD", Subject: audit.System, Action: audit.PendingProcess}); err != nil {
				t.Fatal(err)
			}
		}
		if seal {
			if _, err := sealer.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(true)
	write(false)
	put(after)
	if err := keys.Reread(nil); err != nil {
		t.Fatal(err)
	}
	write(true)
	write(false)

	report, err := audit.Verify(t.Context(), store, keys, "FFHEDD", nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.Rows != 12 || report.Sealed != 9 || report.Checkpoints != 2 || len(report.Findings) > 0 {
		t.Errorf("verified is %+v, want 12 rows, 9 of them sealed, 2 checkpoints, and nothing found", report)
	}
	if writers := v.number("SELECT count(DISTINCT writer) FROM audit_events"); writers != 1 {
		t.Fatalf("there are %d writers, so no chain goes through the rotation", writers)
	}

	uses, err := store.Uses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	needed := map[string]int64{}
	for _, use := range uses {
		if use.Keyset == keyring.Audit {
			needed[use.Table+" "+use.Key] = use.Rows
		}
	}
	first, second := keyIn(t, before, keyring.Audit), keyIn(t, after, keyring.Audit)
	for what, want := range map[string]int64{
		"audit_events " + first:       6,
		"audit_events " + second:      6,
		"audit_checkpoints " + first:  1,
		"audit_checkpoints " + second: 1,
	} {
		if needed[what] != want {
			t.Errorf("%d rows of %s, want %d", needed[what], what, want)
		}
	}

	without, err := keyring.New(retired)
	if err != nil {
		t.Fatal(err)
	}
	report, err = audit.Verify(t.Context(), store, without, "FFHEDD", nil)
	if err != nil {
		t.Fatal(err)
	}
	lacking := 0
	for _, f := range report.Findings {
		if f.Row != nil && strings.Contains(f.What, first) && strings.Contains(f.What, "KEYRING_FILE") {
			lacking++
		}
	}
	if lacking != 6 {
		t.Errorf("without the old key it says %v", report.Findings)
	}
}
