package keydir

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/ecw"
)

// pems are made once: keys cost more than the rest of a test.
var pems = sync.OnceValue(func() (all [3][]byte) {
	for i := range all {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		all[i] = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	}
	return all
})

// newDir is a directory with these files.
func newDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		put(t, dir, name, text)
	}
	return dir
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string, log *slog.Logger) *Dir {
	t.Helper()
	d, err := Open(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// served lists the kids of the JWKS.
func served(t *testing.T, d *Dir) (kids []string) {
	t.Helper()
	var set struct{ Keys []struct{ Kid string } }
	if err := json.Unmarshal(d.JWKS(), &set); err != nil {
		t.Error(err)
	}
	for _, key := range set.Keys {
		kids = append(kids, key.Kid)
	}
	return kids
}

// states shows the directory as "key-1 former, key-2 signing".
func states(t *testing.T, dir string) string {
	t.Helper()
	keys, err := Keys(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, key := range keys {
		all = append(all, key.ID+" "+string(key.State))
	}
	return strings.Join(all, ", ")
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestADirectoryThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	one := string(pems()[0])
	state := func(keys ...string) string { return `{"keys": [` + strings.Join(keys, ",") + `]}` }
	key := func(kid, state string) string { return fmt.Sprintf(`{"kid": %q, "state": %q}`, kid, state) }
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"empty":              {nil, "vantrexia keys generate --out"},
		"two without state":  {map[string]string{"a.pem": one, "b.pem": one}, "has 2 files of keys, and no keys.json"},
		"not a key":          {map[string]string{"a.pem": "text"}, "a.pem: the private key is not in PEM form"},
		"a name with spaces": {map[string]string{"my key.pem": one}, "cannot be a kid"},
		"damaged state":      {map[string]string{"a.pem": one, stateFile: "{"}, "keys.json is damaged"},
		"nothing signs":      {map[string]string{"a.pem": one, stateFile: state(key("a", "next"))}, "0 keys are signing"},
		"two sign":           {map[string]string{"a.pem": one, stateFile: state(key("a", "signing"), key("b", "signing"))}, "2 keys are signing"},
		"the file is gone":   {map[string]string{stateFile: state(key("a", "signing"))}, "a.pem: no such file"},
		"named twice":        {map[string]string{"a.pem": one, stateFile: state(key("a", "signing"), key("a", "next"))}, "names the key a twice"},
		"a way out":          {map[string]string{stateFile: state(key("../a", "signing"))}, "cannot be a kid"},
		"an unknown state":   {map[string]string{"a.pem": one, stateFile: state(key("a", "signing"), key("b", "resting"))}, "none of next"},
		"next and former": {map[string]string{"a.pem": one, stateFile: state(key("a", "signing"), key("b", "next"), key("c", "former"))},
			"more than one key is next or former"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Open(newDir(t, c.files), quiet()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}

	if _, err := Open(filepath.Join(t.TempDir(), "missing"), quiet()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

// TestOthersMayNotPutKeysThere: a key that somebody adds would be published, and its owner could read every
// chart.
func TestOthersMayNotPutKeysThere(t *testing.T) {
	t.Parallel()
	dir := newDir(t, map[string]string{"key-1.pem": string(pems()[0])})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, quiet()); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory of mode 0777: %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "key-1.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, quiet()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key of mode 0644: %v", err)
	}
}

// TestChangesAreTakenUp: a process follows the directory, and keeps what it has while that cannot be read.
func TestChangesAreTakenUp(t *testing.T) {
	t.Parallel()
	dir := newDir(t, map[string]string{"key-1.pem": string(pems()[0])})
	var log bytes.Buffer
	d := open(t, dir, slog.New(slog.NewTextHandler(&log, nil)))
	if got := served(t, d); !slices.Equal(got, []string{"key-1"}) || d.SigningKey().ID() != "key-1" {
		t.Errorf("served are %v, %v signs", got, d.SigningKey())
	}

	put(t, dir, stateFile, `{"keys": [{"kid": "key-1", "state": "signing"}, {"kid": "key-2", "state": "next"}]}`)
	for range 3 {
		if got := served(t, d); !slices.Equal(got, []string{"key-1"}) {
			t.Errorf("while a file is missing, served are %v", got)
		}
	}
	if got := strings.Count(log.String(), "cannot be read; those from before stay in use"); got != 1 {
		t.Errorf("the error is logged %d times: %s", got, log.String())
	}

	put(t, dir, "key-2.pem", string(pems()[1]))
	if got := served(t, d); !slices.Equal(got, []string{"key-1", "key-2"}) || d.SigningKey().ID() != "key-1" {
		t.Errorf("served are %v, %v signs", got, d.SigningKey())
	}
	if !strings.Contains(log.String(), "signing=key-1") || strings.Contains(log.String(), "PRIVATE") {
		t.Errorf("the log is %s", log.String())
	}

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := served(t, d); len(got) != 2 {
		t.Errorf("without the directory, served are %v", got)
	}
}

// rotation is one whose next key is made in advance, because a new one takes long.
func rotation(t *testing.T, dir string) Rotation {
	t.Helper()
	put(t, dir, "key-2.pem", string(pems()[1]))
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err != nil {
		put(t, dir, stateFile, `{"keys": [{"kid": "key-1", "state": "signing"}]}`)
	}
	return Rotation{
		Dir:      dir,
		Accepted: func(context.Context, *ecw.Key) error { return nil },
		Say:      func(string) {},
	}
}

// TestRotation: at every moment our JWKS lists the key that signs, and any that signed within the wait.
func TestRotation(t *testing.T) {
	t.Parallel()
	dir := newDir(t, map[string]string{"key-1.pem": string(pems()[0])})
	if err := os.Chmod(filepath.Join(dir, "key-1.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "key-1.pem"), 0, 1234); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Chmod(filepath.Join(dir, "key-1.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir, quiet())

	r := Rotation{Dir: dir, Wait: 300 * time.Millisecond}
	var said []string
	r.Say = func(text string) {
		said = append(said, text)
		if kids := served(t, d); !slices.Contains(kids, d.SigningKey().ID()) {
			t.Errorf("after %q, %v signs and %v are served", text, d.SigningKey(), kids)
		}
	}
	accepted := ""
	r.Accepted = func(_ context.Context, key *ecw.Key) error {
		accepted = key.ID()
		if kids := served(t, d); !slices.Equal(kids, []string{"key-1", "key-2"}) || d.SigningKey().ID() != "key-1" {
			t.Errorf("before the switch %v signs, served are %v", d.SigningKey(), kids)
		}
		if _, err := os.Stat(filepath.Join(dir, "key-2.pem")); err != nil {
			t.Error(err)
		}
		return nil
	}

	began := time.Now()
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 2*r.Wait {
		t.Errorf("two waits of %s took %s", r.Wait, took)
	}
	if got := states(t, dir); got != "key-1 retired, key-2 signing" || accepted != "key-2" {
		t.Errorf("at the end: %s; eCW was asked about %q", got, accepted)
	}
	if kids := served(t, d); !slices.Equal(kids, []string{"key-2"}) || d.SigningKey().ID() != "key-2" || d.SigningKey().Bits() != 3072 {
		t.Errorf("served are %v, %v signs with %d bits", kids, d.SigningKey(), d.SigningKey().Bits())
	}
	if len(said) != 6 {
		t.Errorf("said %d lines: %q", len(said), said)
	}

	checkFiles(t, dir, "key-2.pem", stateFile, "rotation.lock")
}

// checkFiles checks which files there are, and that the processes may read what a rotation has written.
func checkFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("the files are %v, want %v", names, want)
	}

	if os.Getuid() != 0 {
		return
	}
	for name, mode := range map[string]fs.FileMode{"key-2.pem": 0o640, stateFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode || groupOf(info) != 1234 {
			t.Errorf("%s: %v, group %d, %v; want %v", name, info.Mode(), groupOf(info), err, mode)
		}
	}
}

// TestARotationThatIsInterrupted, at each line that it says, goes on at the next call.
func TestARotationThatIsInterrupted(t *testing.T) {
	t.Parallel()
	dir := newDir(t, map[string]string{"key-1.pem": string(pems()[0])})
	d := open(t, dir, quiet())
	r := rotation(t, dir)
	runs := 0
	for done := false; !done && runs < 20; runs++ {
		ctx, cancel := context.WithCancel(t.Context())
		r.Say = func(text string) { // one line a run
			done = strings.HasPrefix(text, "4.")
			cancel()
		}
		r.Wait = time.Hour * time.Duration(runs%2) // every second run ends in a wait
		err := r.Run(ctx)
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if kids := served(t, d); !slices.Contains(kids, d.SigningKey().ID()) {
			t.Errorf("after run %d %v signs, and %v are served", runs, d.SigningKey(), kids)
		}
	}
	if got := states(t, dir); got != "key-1 retired, key-2 signing" {
		t.Errorf("after %d runs: %s", runs, got)
	}
}

// TestWhatACrashLeaves: the file of a key that was not published yet is used, and that of a retired one is
// deleted.
func TestWhatACrashLeaves(t *testing.T) {
	t.Parallel()
	dir := newDir(t, map[string]string{"key-1.pem": string(pems()[0]), "old.pem": string(pems()[2])})
	put(t, dir, stateFile, `{"keys": [{"kid": "old", "state": "retired"}, {"kid": "key-1", "state": "signing"}]}`)
	r := rotation(t, dir)
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := states(t, dir); got != "old retired, key-1 retired, key-2 signing" {
		t.Errorf("at the end: %s", got)
	}
	left, err := ecw.LoadKey(pems()[1], "key-2")
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := ecw.PublicJWKS(left)
	if err != nil || !bytes.Equal(open(t, dir, quiet()).JWKS(), jwks) {
		t.Errorf("the key was made anew, %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "old.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the retired key is there: %v", err)
	}
}

// TestARefusedKeyDoesNotSign, whether it is eCW or our own JWKS that does not know it.
func TestARefusedKeyDoesNotSign(t *testing.T) {
	t.Parallel()
	refusal := errors.New("invalid_client")
	for name, c := range map[string]struct {
		change func(*Rotation)
		want   string
	}{
		"by eCW": {func(r *Rotation) { r.Accepted = func(context.Context, *ecw.Key) error { return refusal } }, "eCW does not take key-2"},
		"by our JWKS": {func(r *Rotation) { r.Served = func(context.Context, *ecw.Key) error { return refusal } },
			"our public JWKS does not list key-2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDir(t, map[string]string{"key-1.pem": string(pems()[0])})
			r := rotation(t, dir)
			refused := r
			c.change(&refused)
			err := refused.Run(t.Context())
			if !errors.Is(err, refusal) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "key-1 goes on signing") {
				t.Errorf("got %v", err)
			}
			if got := states(t, dir); got != "key-1 signing, key-2 next" {
				t.Errorf("the keys are %s", got)
			}
			if err := r.Run(t.Context()); err != nil || states(t, dir) != "key-1 retired, key-2 signing" {
				t.Errorf("then: %s, %v", states(t, dir), err)
			}
		})
	}
}

func TestTwoRotationsAtOnceAreRefused(t *testing.T) {
	t.Parallel()
	dir := newDir(t, map[string]string{"key-1.pem": string(pems()[0])})
	r := rotation(t, dir)
	second, other := r, r
	other.KID = "another"
	r.Accepted = func(ctx context.Context, _ *ecw.Key) error {
		if err := second.Run(ctx); err == nil || !strings.Contains(err.Error(), "another rotation") {
			t.Errorf("the second one: %v", err)
		}
		return errors.New("stop here")
	}
	if err := r.Run(t.Context()); err == nil {
		t.Fatal("the first one has ended")
	}

	if err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "a rotation is under way") {
		t.Errorf("one to another key: %v", err)
	}
	if err := second.Run(t.Context()); err != nil {
		t.Error(err)
	}

	again := second
	again.KID = "key-1"
	if err := again.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "has been used") {
		t.Errorf("a kid that was retired: %v", err)
	}
}

func TestNextID(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]string{
		"vantrexia-ecw-key-1": "vantrexia-ecw-key-2",
		"key-9":               "key-10",
		"key-2026":            "key-2027",
		"vantrexia":           "vantrexia-2",
		"key-41":              "key-43",
	} {
		keys := []Key{{ID: from, State: Signing}, {ID: "key-42", State: Retired}}
		if got := NextID("", keys); got != want {
			t.Errorf("after %s comes %s, want %s", from, got, want)
		}
	}
}

func groupOf(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Gid }
