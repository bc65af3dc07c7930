// Package keydir keeps the RSA keys for eCW in a directory (ECW_KEYS_DIR), from which they are exchanged while
// the processes run.
//
// Each key is a file, <kid>.pem. The file keys.json says what each key is for, and since when. It is replaced
// in one step, after the files of the keys that it names are there, so that every process finds a set that
// fits together, at any moment. A directory with one key needs no keys.json: that key signs.
package keydir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/secretfile"
)

// State is what a key is for.
type State string

const (
	// Next keys are published and sign nothing yet.
	Next State = "next"
	// Signing is the state of the one key that signs our assertions.
	Signing State = "signing"
	// Former keys sign no more. They stay published, for assertions that they have signed.
	Former State = "former"
	// Retired keys are not published, and their files are deleted. Their ids are never used again.
	Retired State = "retired"
)

// Key is one key of the directory.
type Key struct {
	ID    string    `json:"kid"`
	State State     `json:"state"`
	Since time.Time `json:"since"` // when it got its state; UTC
	Made  time.Time `json:"made"`  // UTC
	Bits  int       `json:"bits"`
}

const (
	stateFile = "keys.json"
	suffix    = ".pem"
)

// idForm is what a kid may be, because it is also the name of a file.
var idForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)

// Dir is the directory as a process uses it. It is safe for concurrent use.
//
// Whenever a key is asked for, it looks whether keys.json is another file than before, which costs
// microseconds, and reads the keys again if so. So a change is taken up at once, without a restart. If the
// directory cannot be read then, that is logged, and the keys that were read before stay in use.
type Dir struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	read   content
	failed string // the error that was logged last
}

// content is what the directory holds.
type content struct {
	file    os.FileInfo // of keys.json; nil without one
	keys    []Key       // all of them, in the order of keys.json
	private map[string]*ecw.Key
	jwks    []byte
}

// Open reads the directory. An error says what is wrong with it.
func Open(path string, log *slog.Logger) (*Dir, error) {
	read, err := load(path)
	if err != nil {
		return nil, err
	}
	return &Dir{path: path, log: log, read: read}, nil
}

// SigningKey returns the key that signs now.
func (d *Dir) SigningKey() *ecw.Key { return d.current().signing() }

// JWKS returns the public halves of all keys that are published now, as [ecw.PublicJWKS] does.
func (d *Dir) JWKS() []byte { return d.current().jwks }

// Keys lists the keys that the directory at path has or had, in the order in which they were made.
func Keys(path string) ([]Key, error) {
	read, err := load(path)
	return read.keys, err
}

func (d *Dir) current() content {
	d.mu.Lock()
	defer d.mu.Unlock()

	file, err := statState(d.path)
	if err == nil && isSame(file, d.read.file) {
		return d.read
	}

	var read content
	if err == nil {
		read, err = load(d.path)
	}
	if err != nil {
		d.complain(err)
		return d.read
	}

	d.read, d.failed = read, ""
	d.log.InfoContext(context.Background(), "the keys for eCW have changed", "signing", read.signing().ID(), "published", read.published())
	return d.read
}

// complain logs each error once, and not with every request for the JWKS.
func (d *Dir) complain(err error) {
	if err.Error() == d.failed {
		return
	}
	d.failed = err.Error()
	d.log.ErrorContext(context.Background(), "the keys for eCW have changed and cannot be read; those from before stay in use", "error", err)
}

// statState returns nil without an error if there is no keys.json.
func statState(dir string) (os.FileInfo, error) {
	file, err := os.Stat(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(dir)
		return nil, err
	}
	return file, err
}

// isSame reports whether keys.json was not replaced between the two.
func isSame(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// load reads the directory. It begins again when keys.json is replaced meanwhile, because the file of a key
// may then be gone that it named.
func load(dir string) (content, error) {
	if err := checkDir(dir); err != nil {
		return content{}, err
	}

	for tries := 3; ; tries-- {
		file, err := statState(dir)
		if err != nil {
			return content{}, err
		}

		read, err := loadOnce(dir, file)
		if err == nil || tries == 1 {
			return read, err
		}
		if now, statErr := statState(dir); statErr != nil || isSame(file, now) {
			return content{}, err
		}
	}
}

// checkDir refuses a directory in which every account could put a key of its own, which we would then publish.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if mode := info.Mode().Perm(); mode&0o002 != 0 {
		return fmt.Errorf("%s has the mode %#o: every account may put keys there; run: chmod 700 %s", dir, mode, dir)
	}
	return nil
}

func loadOnce(dir string, file os.FileInfo) (content, error) {
	read := content{file: file, private: map[string]*ecw.Key{}}
	var err error
	if file == nil {
		read.keys, err = onlyKey(dir)
	} else {
		read.keys, err = readState(dir)
	}
	if err != nil {
		return content{}, err
	}

	var published []*ecw.Key
	for i, key := range read.keys {
		if key.State == Retired {
			continue
		}
		private, err := loadKey(dir, key.ID)
		if err != nil {
			return content{}, err
		}
		read.private[key.ID], read.keys[i].Bits = private, private.Bits()
		published = append(published, private)
	}

	read.jwks, err = ecw.PublicJWKS(published...)
	return read, err
}

func readState(dir string) ([]Key, error) {
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}

	var state struct {
		Keys []Key `json:"keys"`
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; restore it, or, if %s has one key, delete it", path, err, dir)
	}
	if err := check(state.Keys); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return state.Keys, nil
}

// check demands one key that signs, and at most one beside it.
func check(keys []Key) error {
	states, ids := map[State]int{}, map[string]bool{}
	for _, key := range keys {
		if !idForm.MatchString(key.ID) {
			return fmt.Errorf("%q cannot be a kid: use letters, digits, - and _", key.ID)
		}
		if ids[key.ID] {
			return fmt.Errorf("it names the key %s twice", key.ID)
		}
		ids[key.ID] = true
		states[key.State]++
	}

	switch {
	case states[Signing] != 1:
		return fmt.Errorf("%d keys are signing: one must be", states[Signing])
	case states[Next]+states[Former] > 1:
		return errors.New("more than one key is next or former")
	case states[Signing]+states[Next]+states[Former]+states[Retired] != len(keys):
		return errors.New("a state is none of next, signing, former and retired")
	}
	return nil
}

// onlyKey is the key of a directory that has no keys.json yet.
func onlyKey(dir string) ([]Key, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return nil, err
	}

	switch len(files) {
	case 0:
		first := filepath.Join(dir, "vantrexia-ecw-key-1"+suffix)
		return nil, fmt.Errorf("%s has no key: run `vantrexia keys generate --out %s`, or copy yours there, with its kid as the file's name",
			dir, first)
	case 1:
	default:
		return nil, fmt.Errorf("%s has %d files of keys, and no %s that says which one signs: leave the one that eCW knows",
			dir, len(files), stateFile)
	}

	info, err := os.Stat(files[0])
	if err != nil {
		return nil, err
	}

	made := info.ModTime().UTC().Truncate(time.Second)
	keys := []Key{{ID: strings.TrimSuffix(filepath.Base(files[0]), suffix), State: Signing, Since: made, Made: made}}
	return keys, check(keys)
}

func loadKey(dir, id string) (*ecw.Key, error) {
	path := keyFile(dir, id)
	text, err := secretfile.Read(path)
	if err != nil {
		return nil, err
	}
	key, err := ecw.LoadKey(text, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func keyFile(dir, id string) string { return filepath.Join(dir, id+suffix) }

// in returns the key in that state; false if there is none.
func (c content) in(state State) (Key, bool) {
	at := slices.IndexFunc(c.keys, func(k Key) bool { return k.State == state })
	if at < 0 {
		return Key{}, false
	}
	return c.keys[at], true
}

func (c content) signing() *ecw.Key {
	key, _ := c.in(Signing) // check demands one
	return c.private[key.ID]
}

// published lists the kids of the JWKS.
func (c content) published() (ids []string) {
	for _, key := range c.keys {
		if key.State != Retired {
			ids = append(ids, key.ID)
		}
	}
	return ids
}
