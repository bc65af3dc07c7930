package keyring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func generate(t *testing.T) []byte {
	t.Helper()
	content, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func open(t *testing.T, content []byte) *Keyring {
	t.Helper()
	k, err := New(content)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var cell = Cell{Table: "patients", Column: "demographics", Practice: "CLINIC", Row: "1"}

func seal(t *testing.T, k *Keyring, plain string) []byte {
	t.Helper()
	sealed, err := k.Seal(cell, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestWhatIsSealedOpensInItsPlaceOnly(t *testing.T) {
	k := open(t, generate(t))
	sealed := seal(t, k, "Smith")
	if bytes.Contains(sealed, []byte("Smith")) {
		t.Fatal("the ciphertext has the value in clear")
	}
	if bytes.Equal(sealed, seal(t, k, "Smith")) {
		t.Error("equal values have equal ciphertexts")
	}
	if plain, err := k.Open(cell, sealed); err != nil || string(plain) != "Smith" {
		t.Errorf("opened %q, %v", plain, err)
	}

	for name, other := range map[string]Cell{
		"another table":    {"users", "demographics", "CLINIC", "1"},
		"another column":   {"patients", "resource", "CLINIC", "1"},
		"another practice": {"patients", "demographics", "OTHER", "1"},
		"another row":      {"patients", "demographics", "CLINIC", "2"},
		"shifted parts":    {"patients", "demographicsC", "LINIC", "1"},
	} {
		if _, err := k.Open(other, sealed); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", name, err)
		}
	}
	for i := range sealed[5:] {
		changed := bytes.Clone(sealed)
		changed[5+i] ^= 1
		if _, err := k.Open(cell, changed); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("with byte %d changed: error %v, want ErrCorrupt", 5+i, err)
		}
	}
	for _, short := range [][]byte{nil, {1}, sealed[:5], sealed[:20]} {
		if _, err := k.Open(cell, short); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: error %v, want ErrCorrupt", len(short), err)
		}
	}
}

func TestAMissingKeyIsNamed(t *testing.T) {
	old := open(t, generate(t))
	sealed := seal(t, old, "Smith")

	var missing *MissingKeyError
	_, err := open(t, generate(t)).Open(cell, sealed)
	if !errors.As(err, &missing) || missing.ID != SealedWith(sealed) || missing.Keyset != Columns {
		t.Fatalf("error %v, want one that names the key %s", err, SealedWith(sealed))
	}
	if !strings.Contains(err.Error(), "KEYRING_FILE") {
		t.Errorf("the error %q does not say what to do", err)
	}
}

func TestANewKeySealsFromItsMomentOn(t *testing.T) {
	first := generate(t)
	content, id, err := Rotate(first, Columns, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}

	k := open(t, content)
	before := seal(t, k, "Smith")
	if SealedWith(before) == id {
		t.Error("the new key seals before its moment")
	}

	k.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if err := k.use(content); err != nil {
		t.Fatal(err)
	}
	after := seal(t, k, "Smith")
	if SealedWith(after) != id {
		t.Error("the new key does not seal after its moment")
	}
	for _, sealed := range [][]byte{before, after} {
		if _, err := k.Open(cell, sealed); err != nil {
			t.Error(err)
		}
	}
	if _, err := open(t, content).Open(cell, after); err != nil {
		t.Errorf("a process whose clock is behind cannot open it: %v", err)
	}
}

func TestAKeyIsRetiredOnlyWhenAnotherIsInUse(t *testing.T) {
	first := generate(t)
	old := open(t, first).Keys()[0].ID
	if _, err := Retire(first, Columns, old); err == nil {
		t.Error("the only key was retired")
	}
	if _, err := Retire(first, Columns, "00000000"); err == nil || !strings.Contains(err.Error(), "keys status") {
		t.Errorf("an unknown key: error %v", err)
	}

	later, _, err := Rotate(first, Columns, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Retire(later, Columns, old); err == nil {
		t.Error("the old key was retired while it seals")
	}

	now, id, err := Rotate(first, Columns, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	content, err := Retire(now, Columns, old)
	if err != nil {
		t.Fatal(err)
	}
	k := open(t, content)
	if keys := k.Keys(); keys[0].ID != id || keys[1].Keyset == Columns || !keys[0].InUse {
		t.Errorf("the keys are %+v", keys)
	}
	var missing *MissingKeyError
	if _, err := k.Open(cell, seal(t, open(t, first), "Smith")); !errors.As(err, &missing) {
		t.Errorf("error %v, want MissingKeyError", err)
	}
}

func TestIndexesHaveAColumnForEachOfTwoKeys(t *testing.T) {
	content := generate(t)
	for range 20 {
		before := open(t, content).Index("patients.mrn", "CLINIC", "M1")
		if (before.A == nil) == (before.B == nil) {
			t.Fatalf("one key gives the index %+v", before)
		}

		rotated, id, err := Rotate(content, Indexes, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		both := open(t, rotated).Index("patients.mrn", "CLINIC", "M1")
		if both.A == nil || both.B == nil || (before.A != nil && !bytes.Equal(before.A, both.A)) || (before.B != nil && !bytes.Equal(before.B, both.B)) {
			t.Fatalf("before the rotation %+v, in it %+v", before, both)
		}
		if got := keyName(beUint32(open(t, rotated).Digest("x", "CLINIC", "M1"))); got != id {
			t.Errorf("the digest is by %s, want %s", got, id)
		}
		if _, _, err := Rotate(rotated, Indexes, time.Now()); err == nil {
			t.Fatal("a third key was added")
		}

		old := oldest(open(t, rotated), Indexes)
		if content, err = Retire(rotated, Indexes, old); err != nil {
			t.Fatal(err)
		}
	}
}

func beUint32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func oldest(k *Keyring, set Keyset) string {
	for _, key := range k.Keys() {
		if key.Keyset == set && !key.InUse {
			return key.ID
		}
	}
	return ""
}

func TestHashesTellKindsAndPracticesApart(t *testing.T) {
	k := open(t, generate(t))
	want := k.Digest("patients.mrn", "CLINIC", "M1")
	for _, other := range [][3]string{
		{"users.email", "CLINIC", "M1"}, {"patients.mrn", "OTHER", "M1"}, {"patients.mrn", "CLINIC", "M2"}, {"patients.mrnC", "LINIC", "M1"},
	} {
		if bytes.Equal(want, k.Digest(other[0], other[1], other[2])) {
			t.Errorf("%v has the same hash", other)
		}
	}
	if !bytes.Equal(want, k.Digest("patients.mrn", "CLINIC", "M1")) {
		t.Error("the same value has another hash")
	}
	if bytes.Equal(want, open(t, generate(t)).Digest("patients.mrn", "CLINIC", "M1")) {
		t.Error("another keyring gives the same hash")
	}
}

func TestPayloadsBelongToTheirNamespace(t *testing.T) {
	k := open(t, generate(t))
	sealed, err := k.SealPayload("default", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := k.OpenPayload("default", sealed); err != nil || string(plain) != "payload" {
		t.Errorf("opened %q, %v", plain, err)
	}
	if _, err := k.OpenPayload("other", sealed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another namespace: error %v", err)
	}
	if _, err := k.Open(cell, sealed); err == nil {
		t.Error("a payload opens as a column")
	}
}

func TestABrokenFileSaysWhatToDo(t *testing.T) {
	good := string(generate(t))
	for name, content := range map[string]string{
		"empty":         "",
		"another file":  "-----BEGIN PRIVATE KEY-----",
		"cut":           good[:len(good)/2],
		"unknown field": strings.Replace(good, `"keysets"`, `"extra": 1, "keysets"`, 1),
		"newer":         strings.Replace(good, `"vantrexia_keyring": 1`, `"vantrexia_keyring": 2`, 1),
		"no keyset":     strings.Replace(good, `"audit"`, `"other"`, 1),
		"not base64":    strings.Replace(good, `"value": "`, `"value": "!`, 1),
	} {
		_, err := New([]byte(content))
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), "restore") && !strings.Contains(err.Error(), "newer binary") {
			t.Errorf("%s: the error %q does not say what to do", name, err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	content, _ := Generate()
	k, _ := New(content)
	plain := bytes.Repeat([]byte("x"), 400)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = k.Seal(cell, plain)
	}
}

func BenchmarkOpen(b *testing.B) {
	content, _ := Generate()
	k, _ := New(content)
	sealed, _ := k.Seal(cell, bytes.Repeat([]byte("x"), 400))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = k.Open(cell, sealed)
	}
}

func BenchmarkIndex(b *testing.B) {
	content, _ := Generate()
	k, _ := New(content)
	b.ReportAllocs()
	for b.Loop() {
		_ = k.Index("patients.mrn", "CLINIC", "M1")
	}
}

// A file that cannot be read for a while keeps no process from using, at its moment, a key that it has read before. Once
// others use that key, the one before it may be retired.
func TestAKnownKeyIsUsedWhileTheFileCannotBeRead(t *testing.T) {
	t.Parallel()
	content, path := generate(t), filepath.Join(t.TempDir(), "keyring.json")
	content, id, err := Rotate(content, Columns, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	k.now = func() time.Time { return time.Now().Add(2 * time.Hour) }

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := k.Reread(nil); err == nil {
		t.Error("a file that others may read is taken")
	}
	sealed, err := k.Seal(Cell{}, nil)
	if err != nil || SealedWith(sealed) != id {
		t.Errorf("it is sealed with %s, want %s (%v)", SealedWith(sealed), id, err)
	}
}
