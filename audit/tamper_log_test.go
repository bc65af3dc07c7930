package audit_test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// sealedRig has a trail of five seals, each of one row of one writer, and each with its checkpoint.
func sealedRig(t *testing.T) (*rig, *writer) {
	r := newRig(t)
	w := r.writer()
	for range 5 {
		r.write(w, 1)
		r.seal(1)
	}
	r.untouched(r.published()...)
	return r, w
}

const (
	changeSeal    = "UPDATE audit_seals SET digests = sha256('made up') WHERE leaf = 2"
	swapSeals     = "UPDATE audit_seals SET leaf = CASE leaf WHEN 1 THEN 103 ELSE 101 END WHERE leaf IN (1, 3); UPDATE audit_seals SET leaf = leaf - 100 WHERE leaf > 100"
	doNotFit      = "its hash in the log do not fit"
	insideDiffer  = "checkpoints in the database do not fit"
	outsideDiffer = "checkpoints outside of the database do not fit"
	keyOrRestore  = "somebody who has the keyring"
)

// TestLogChanged changes what the sealer has left, without its keys.
func TestLogChanged(t *testing.T) {
	t.Parallel()
	r, w := sealedRig(t)
	r.save()
	outside := r.published()

	for _, tc := range []struct {
		name   string
		change func()
		rows   []string // named
		inside []string // what is said without checkpoints from outside
		more   []string // and with them
	}{
		{
			name:   "a seal changed",
			change: func() { r.exec(changeSeal) },
			rows:   []string{name(w.id, 3)}, // or its seal was: the finding says both
			inside: []string{"seal 2 (rows 3 to 3"},
		},
		{
			name: "a seal's time changed",
			change: func() {
				r.exec("UPDATE audit_seals SET recorded_to = recorded_to - interval '10 years' WHERE leaf = 2")
			},
			inside: []string{"seal 2 (rows 3 to 3"},
		},
		{
			name:   "a seal removed",
			change: func() { r.exec("DELETE FROM audit_seals WHERE leaf = 2") },
			inside: []string{"seal 2 was removed"},
		},
		{
			name: "two seals exchanged",
			change: func() {
				for sql := range strings.SplitSeq(swapSeals, ";") {
					r.exec(sql)
				}
			},
			inside: []string{"seal 1 (rows 4 to 4", "seal 3 (rows 2 to 2"},
		},
		{
			name:   "a seal changed, and all hashes with it",
			change: func() { r.exec(changeSeal); r.rehash() },
			rows:   []string{name(w.id, 3)},
			inside: []string{"3 of 5 " + insideDiffer + " it, the first at 3 seals", "from 2 to 2"},
			more:   []string{"3 of 5 " + outsideDiffer},
		},
		{
			name: "a row and its seal removed, and all hashes made anew",
			change: func() {
				r.exec("DELETE FROM audit_events WHERE sequence = 3")
				r.exec("DELETE FROM audit_seals WHERE leaf = 2")
				r.exec("UPDATE audit_seals SET leaf = leaf - 1 WHERE leaf > 2")
				r.rehash()
			},
			rows:   []string{name(w.id, 3)},
			inside: []string{insideDiffer},
			more:   []string{outsideDiffer},
		},
		{
			name:   "a seal's hash changed",
			change: func() { r.exec("UPDATE audit_hashes SET hash = sha256('x') WHERE position = 3") },
			inside: []string{"seal 2 (rows 3 to 3"},
		},
		{
			name:   "a hash above changed",
			change: func() { r.exec("UPDATE audit_hashes SET hash = sha256('x') WHERE position = 2") },
			inside: []string{"the hash 2 of the log"},
		},
		{
			name:   "all hashes removed",
			change: func() { r.exec("DELETE FROM audit_hashes") },
			inside: []string{"seal 0 (rows 1 to 1"},
		},
		{
			name:   "all checkpoints removed",
			change: func() { r.exec("TRUNCATE audit_checkpoints") },
			inside: []string{"lacks the checkpoint of its 5 seals"},
			more:   []string{"5 checkpoints were removed from the database"},
		},
		{
			name: "the newest seals removed with their hashes and checkpoints",
			change: func() {
				r.exec("DELETE FROM audit_seals WHERE leaf > 2")
				r.exec("DELETE FROM audit_checkpoints WHERE size > 3")
				r.rehash()
			},
			more: []string{"2 of 5 " + outsideDiffer, keyOrRestore, "restored from a backup"},
		},
		{
			name: "the newest rows removed, with their seals, hashes and checkpoints",
			change: func() {
				r.exec("DELETE FROM audit_events WHERE sequence > 3")
				r.exec("DELETE FROM audit_seals WHERE leaf > 2")
				r.exec("DELETE FROM audit_checkpoints WHERE size > 3")
				r.rehash()
			},
			more: []string{"2 of 5 " + outsideDiffer, "restored from a backup"},
		},
		{
			name: "a seal with a number far ahead",
			change: func() {
				r.exec("UPDATE audit_seals SET leaf = 1000000000000 WHERE leaf = 4")
			},
			inside: []string{"numbers were made up"},
		},
		{
			name: "a checkpoint changed",
			change: func() {
				r.exec("UPDATE audit_checkpoints SET note = replace(note, E'\\n3\\n', E'\\n4\\n') WHERE size = 3")
			},
			inside: []string{"in the database is not one that we signed"},
			more:   []string{"1 checkpoints were removed from the database"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer r.restore()
			tc.change()
			for _, with := range [][]string{nil, outside} {
				report := r.verify(with...)
				if got := named(report); !slices.Equal(got, tc.rows) {
					t.Errorf("names %q, want %q", got, tc.rows)
				}
				want := tc.inside
				if with != nil {
					want = append(slices.Clone(want), tc.more...)
				}
				for _, text := range want {
					if !says(report, text) {
						t.Errorf("does not say %q: %v", text, report.Findings)
					}
				}
				if len(want) == 0 && len(report.Findings) > 0 {
					t.Errorf("%v", report.Findings)
				}
			}
		})
	}
}

// rehash makes the hashes anew of the seals, as somebody would who knows how.
func (r *rig) rehash() {
	r.Helper()
	r.exec("DELETE FROM audit_hashes")
	stored := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) { return r.hashes(at), nil })
	for _, s := range r.seals() {
		made, err := tlog.StoredHashes(s.Leaf, leaf(s), stored)
		r.must(err)
		for i, hash := range made {
			r.exec("INSERT INTO audit_hashes (position, hash) VALUES ($1, $2)", tlog.StoredHashIndex(0, s.Leaf)+int64(i), hash[:])
		}
	}
}

func (r *rig) seals() []db.AuditSeal {
	r.Helper()
	seals, err := r.store.ListAuditSeals(r.Context(), db.ListAuditSealsParams{Batch: 1000})
	r.must(err)
	return seals
}

func (r *rig) hashes(at []int64) []tlog.Hash {
	r.Helper()
	rows, err := r.store.ListAuditHashes(r.Context(), at)
	r.must(err)
	found := make([]tlog.Hash, len(at))
	for _, row := range rows {
		found[slices.Index(at, row.Position)] = tlog.Hash(row.Hash)
	}
	return found
}

// TestMadeAnewWithTheKeyring: somebody who has the keyring makes all of the trail anew. Only checkpoints from outside of the
// database tell.
func TestMadeAnewWithTheKeyring(t *testing.T) {
	t.Parallel()
	r, _ := sealedRig(t)
	outside := r.published()

	for _, table := range tables {
		r.exec("TRUNCATE " + table)
	}
	r.sealer.Checkpoints = "" // his own
	w := r.writer()
	for range 5 {
		r.write(w, 1)
		r.seal(1)
	}

	r.untouched()
	report := r.verify(outside...)
	if !says(report, "5 of 5 "+outsideDiffer) || !says(report, keyOrRestore) || says(report, insideDiffer) {
		t.Errorf("%v", report.Findings)
	}
}

// TestOneRowMadeAnewWithTheKeyring changes a row that is sealed, with a code that is right. The seal still tells, without
// checkpoints from outside.
func TestOneRowMadeAnewWithTheKeyring(t *testing.T) {
	t.Parallel()
	r, w := sealedRig(t)
	rows, err := r.store.ListAuditEventsToSeal(t.Context(), db.ListAuditEventsToSealParams{Writer: w.id, Sealed: 2, Batch: 1})
	r.must(err)
	row := rows[0]
	row.Subject = "nobody"
	row.Code, row.KeyID = r.keys.AuditCode(coded(row))
	r.exec("UPDATE audit_events SET subject = 'nobody', code = $1 WHERE sequence = 3", row.Code)

	// Row 3 has a right code, but is neither what was sealed nor what row 4 was written after.
	if got, want := named(r.verify()), []string{name(w.id, 3), name(w.id, 3)}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
}

// TestDatabaseRestored: the database comes back as it was, and goes on.
func TestDatabaseRestored(t *testing.T) {
	t.Parallel()
	r, _ := sealedRig(t)
	r.save()
	w := r.writer()
	r.write(w, 3)
	r.seal(3)
	r.restore()

	r.seal(0)
	if log := r.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "restored from a backup") {
		t.Errorf("the sealer does not say that the database was restored: %s", log)
	}
	if report := r.verify(r.published()...); !says(report, "restored from a backup") || !says(report, "1 of 6 ") {
		t.Errorf("%v", report.Findings)
	}

	next := r.writer()
	for range 3 {
		r.write(next, 1)
		r.seal(1)
	}
	report := r.verify(r.published()...)
	if !says(report, "the first at 6 seals: of the seals from 5 to 5") || !says(report, "restored from a backup") {
		t.Errorf("%v", report.Findings)
	}
	if got := named(report); len(got) > 0 {
		t.Errorf("blames rows: %q", got)
	}
}

// TestForeignCheckpoint: a checkpoint that somebody else has signed is found.
func TestForeignCheckpoint(t *testing.T) {
	t.Parallel()
	r, _ := sealedRig(t)
	content, err := keyring.Generate()
	r.must(err)
	other, err := keyring.New(content)
	r.must(err)

	theirs := newRig(t)
	theirs.sealer.Keys = other
	theirs.write(theirs.writer(), 1)
	theirs.seal(1)

	if report := r.verify(theirs.published()...); !says(report, "a checkpoint outside of the database is not one that we signed") {
		t.Errorf("%v", report.Findings)
	}
	if report, err := audit.Verify(t.Context(), r.store, r.keys, "FFOTHER", r.published()); err != nil ||
		!says(report, "is not one that we signed") {
		t.Errorf("of another practice: %v, %v", report.Findings, err)
	}
}
