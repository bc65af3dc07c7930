package audit_test

import (
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// leaf is the second account of what the log holds of a seal.
func leaf(s db.AuditSeal) []byte {
	b := append([]byte("audit seal"), s.Writer[:]...)
	for _, n := range []int64{s.FirstSequence, s.LastSequence, s.RecordedFrom.UnixMicro(), s.RecordedTo.UnixMicro()} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, s.Digests...)
}

// testKeyring was made for this test and protects nothing.
//
//go:embed testdata/keyring.json
var testKeyring []byte

// TestFormat: rows are kept for seven years, and checkpoints for longer. When this fails, what is stored cannot be verified
// any more: change the code and not the test.
func TestFormat(t *testing.T) {
	t.Parallel()
	keys, err := keyring.New(testKeyring)
	if err != nil {
		t.Fatal(err)
	}
	row := db.AuditEvent{
		RecordedAt:   time.Date(2026, 11, 29, 4, 32, 0, 123_456_000, time.UTC),
		Writer:       uuid.MustParse("019acf2c-5d00-7000-8000-0000000000aa"),
		Sequence:     2,
		PracticeCode: "FFHEDD",
		Subject:      "019acf2c-5d00-7000-8000-0000000000bb",
		Role:         "nurse",
		TokenID:      "token",
		Address:      "192.0.2.7",
		Action:       "patient.read",
		ResourceType: "Patient",
		ResourceIDs:  []string{"a", "bc"},
		PatientIDs:   []uuid.UUID{uuid.MustParse("019acf2c-5d00-7000-8000-0000000000cc")},
		Outcome:      "success",
		Reason:       "größer",
		CodeBefore:   []byte(strings.Repeat("c", 32)),
	}
	row.Code, row.KeyID = keys.AuditCode(coded(row))
	if ok, err := row.Genuine(keys); !ok || err != nil {
		t.Errorf("the code of the second account is not right: %v", err)
	}
	sum := row.Digest()
	if sum != digest(row) {
		t.Error("the digest of the second account is another one")
	}

	seal := db.AuditSeal{
		Writer:        row.Writer,
		FirstSequence: 2,
		LastSequence:  2,
		RecordedFrom:  row.RecordedAt,
		RecordedTo:    row.RecordedAt,
		Digests:       sum[:],
	}
	if string(audit.Leaf(seal)) != string(leaf(seal)) {
		t.Error("the leaf of the second account is another one")
	}
	hash := tlog.RecordHash(audit.Leaf(seal))
	signed, err := audit.Checkpoint{Origin: "vantrexia/audit/FFHEDD", Tree: tlog.Tree{N: 1, Hash: hash}}.Sign(keys)
	if err != nil {
		t.Fatal(err)
	}

	for _, value := range []struct{ what, got, want string }{
		{"key id", row.KeyID, "51ba3b8a"},
		{"code", hex.EncodeToString(row.Code), "a895745be499deb25864c338587d4d06b751b3473c7ba04453e74744588b9d44"},
		{"digest", hex.EncodeToString(sum[:]), "0a4406e3c2e8f2780946f600633b008e3a2726687da83b2c29275a528051b949"},
		{"leaf hash", hash.String(), "dCF0YWzndwLHFngdLk9cTpBPcgP79718QJQKpWiyhxY="},
		{"checkpoint", signed, "vantrexia/audit/FFHEDD\n1\ndCF0YWzndwLHFngdLk9cTpBPcgP79718QJQKpWiyhxY=\n\n— vantrexia/audit/FFHEDD kEsWdFkwmDgcyFWXTu8mLlWyPVWYwJmH+oLD1UM2DzIWHfSY3TnhL4Apn6P758PhTxDFGMbKjVLepiFmJ7B5YymaugQ=\n"},
	} {
		if value.got != value.want {
			t.Errorf("the %s is %q, want %q", value.what, value.got, value.want)
		}
	}
}

// TestCheckedByOthers checks the log as somebody would who has the database, a checkpoint and a public key, and none of our
// code and keys.
func TestCheckedByOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 3 {
		r.write(r.writer(), 2)
		r.write(r.writer(), 3)
		r.seal(5)
	}
	keys, err := audit.VerifierKeys(r.keys, practice)
	r.must(err)
	verifier, err := note.NewVerifier(keys[len(keys)-1])
	r.must(err)

	published := r.published()
	opened, err := note.Open([]byte(published[len(published)-1]), note.VerifierList(verifier))
	r.must(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != "vantrexia/audit/"+practice || lines[1] != "6" {
		t.Fatalf("%q", opened.Text)
	}

	stored := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) { return r.hashes(at), nil })
	root, err := tlog.TreeHash(6, stored)
	r.must(err)
	if base64.StdEncoding.EncodeToString(root[:]) != lines[2] {
		t.Errorf("the root of the stored hashes is %s, the checkpoint says %s", root, lines[2])
	}

	rows := 0
	for _, s := range r.seals() {
		proof, err := tlog.ProveRecord(6, s.Leaf, stored)
		r.must(err)
		r.must(tlog.CheckRecord(proof, 6, root, s.Leaf, tlog.RecordHash(leaf(s))))

		events, err := r.store.ListAuditEventsToSeal(t.Context(), db.ListAuditEventsToSealParams{Writer: s.Writer, Batch: 100})
		r.must(err)
		var digests string
		for _, e := range events {
			d := digest(e)
			digests += string(d[:])
			rows++
		}
		if digests != string(s.Digests) {
			t.Errorf("seal %d is not of its rows", s.Leaf)
		}
	}
	if rows != 15 {
		t.Errorf("%d rows are proved", rows)
	}

	for n, older := range published[:2] { // each checkpoint continues the one before it
		opened, err := note.Open([]byte(older), note.VerifierList(verifier))
		r.must(err)
		size := int64(2 * (n + 1))
		before, err := tlog.ParseHash(strings.Split(opened.Text, "\n")[2])
		r.must(err)
		proof, err := tlog.ProveTree(6, size, stored)
		r.must(err)
		r.must(tlog.CheckTree(proof, 6, root, size, before))
	}
}

// TestKeysOfCheckpoints: after a rotation, checkpoints of both keys are ours.
func TestKeysOfCheckpoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write(r.writer(), 1)
	content, _, err := keyring.Rotate(testKeyring, keyring.Audit, time.Now().Add(-time.Second))
	r.must(err)
	rotated, err := keyring.New(content)
	r.must(err)
	old, err := keyring.New(testKeyring)
	r.must(err)

	store := r.open(r.url, old)
	r.exec("TRUNCATE audit_events")
	r.must(audit.RecordNow(t.Context(), store, event()))
	r.sealer.Keys = old
	r.seal(1)
	r.must(audit.RecordNow(t.Context(), store, event()))
	r.sealer.Keys, r.keys = rotated, rotated
	r.seal(1)

	if keys, err := audit.VerifierKeys(rotated, practice); err != nil || len(keys) != 2 || keys[0] == keys[1] {
		t.Errorf("%q, %v", keys, err)
	}
	if report := r.untouched(r.published()...); report.Checkpoints != 4 {
		t.Errorf("%+v", report)
	}
	if strings.Contains(r.log.String(), "ERROR") {
		t.Error(r.log)
	}
}
