package keydir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/vantrexia/vantrexia/ecw"
)

// Rotation replaces the key that signs, while the processes go on. All fields are required, but for KID and
// Served.
type Rotation struct {
	Dir string
	// KID is the id of the new key. The default is that of the present key with the next number.
	KID string
	// Wait is how long the new key is published before it signs, and the former one after it has signed. It has
	// to be longer than anybody keeps our JWKS, and than an assertion lives.
	Wait time.Duration
	// Served returns an error unless our public JWKS lists the key. Nil: nobody looks.
	Served func(context.Context, *ecw.Key) error
	// Accepted returns an error unless eCW takes an assertion that the key has signed.
	Accepted func(context.Context, *ecw.Key) error
	// Say tells a person about each step, in a line of text.
	Say func(string)
}

// Run does the steps: it makes a key and publishes it, waits, lets it sign once eCW has taken it, waits, and
// retires the former one. It may be interrupted at any moment, and then goes on where it was at the next
// call: keys.json says where that is. After an error, the key that signed before still signs. Two at once are
// refused.
func (r Rotation) Run(ctx context.Context) error {
	unlock, err := lock(r.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeRetired(r.Dir); err != nil {
		return err
	}

	for done := false; !done; {
		read, err := load(r.Dir)
		if err != nil {
			return err
		}

		next, begun := read.in(Next)
		former, switched := read.in(Former)
		if (begun || switched) && !r.isOf(read) {
			return fmt.Errorf("a rotation is under way (%v are published): finish it first, by the same command without --kid", read.published())
		}

		switch {
		case switched:
			done, err = true, r.retire(ctx, read, former)
		case begun:
			err = r.switchTo(ctx, read, next)
		default:
			err = r.publish(read)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isOf reports whether the rotation that is under way is the one that is asked for. Its new key is the last
// one in keys.json.
func (r Rotation) isOf(read content) bool {
	return r.KID == "" || r.KID == read.keys[len(read.keys)-1].ID
}

// publish makes the next key.
func (r Rotation) publish(read content) error {
	signing, _ := read.in(Signing)
	id := NextID(r.KID, read.keys)
	if hasID(read.keys, id) {
		return fmt.Errorf("the kid %s has been used: choose another one", id)
	}
	if !idForm.MatchString(id) {
		return fmt.Errorf("%q cannot be a kid: use letters, digits, - and _", id)
	}

	owner, err := os.Stat(keyFile(r.Dir, signing.ID))
	if err != nil {
		return err
	}

	// Without keys.json the directory may have one key only, so it is written before there are two.
	if read.file == nil {
		if err := writeState(r.Dir, owner, read.keys); err != nil {
			return err
		}
	}

	key, err := r.make(id, owner)
	if err != nil {
		return err
	}

	now := moment()
	keys := append(slices.Clone(read.keys), Key{ID: id, State: Next, Since: now, Made: now, Bits: key.Bits()})
	if err := writeState(r.Dir, owner, keys); err != nil {
		return err
	}
	r.Say(fmt.Sprintf("1. Published: %s (%d bits). %s goes on signing.", id, key.Bits(), signing.ID))
	return nil
}

var numbered = regexp.MustCompile(`^(.*?)([0-9]{1,9})$`)

// NextID is the kid of the key that comes after those: wanted, if that is not empty, else the one that signs
// with the next number. No kid is used twice, because somebody may still keep the former key under it.
func NextID(wanted string, keys []Key) string {
	if wanted != "" {
		return wanted
	}

	id := keys[slices.IndexFunc(keys, func(k Key) bool { return k.State == Signing })].ID
	for hasID(keys, id) {
		base, number := id+"-", 1
		if parts := numbered.FindStringSubmatch(id); parts != nil {
			base = parts[1]
			number, _ = strconv.Atoi(parts[2]) // nine digits at most
		}
		id = base + strconv.Itoa(number+1)
	}
	return id
}

func hasID(keys []Key, id string) bool {
	return slices.ContainsFunc(keys, func(k Key) bool { return k.ID == id })
}

// make writes the file of a new key. A file that is there already is the key of a run that was interrupted,
// or one that somebody put there to be the next. It is written again, so that the processes may read it.
func (r Rotation) make(id string, owner os.FileInfo) (*ecw.Key, error) {
	key, err := loadKey(r.Dir, id)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = ecw.GenerateKey(id)
	}
	if err != nil {
		return nil, err
	}

	pem, err := key.PEM()
	if err != nil {
		return nil, err
	}
	return key, write(keyFile(r.Dir, id), owner, owner.Mode().Perm(), pem)
}

// switchTo lets the next key sign, once eCW knows it.
func (r Rotation) switchTo(ctx context.Context, read content, next Key) error {
	signing, _ := read.in(Signing)
	key := read.private[next.ID]

	look := r.looker(ctx, key)
	if err := r.wait(ctx, next.Since, "that nobody keeps a JWKS without "+next.ID, look); err != nil {
		return err
	}
	if err := look(); err != nil {
		return fmt.Errorf("our public JWKS does not list %s, so %s goes on signing: check that each API process has this ECW_KEYS_DIR, "+
			"then run the command again: %w", next.ID, signing.ID, err)
	}
	if err := r.Accepted(ctx, key); err != nil {
		return fmt.Errorf("eCW does not take %s, so %s goes on signing: check that eCW reads our JWKS from its URL, "+
			"then run the command again: %w", next.ID, signing.ID, err)
	}
	r.Say("2. eCW has taken an assertion of " + next.ID + ".")

	if err := r.set(read, map[string]State{next.ID: Signing, signing.ID: Former}); err != nil {
		return err
	}
	r.Say(fmt.Sprintf("3. Switched: %s signs. %s stays published.", next.ID, signing.ID))
	return nil
}

// looker returns a function that looks whether our public JWKS lists the key, until it does. It says so, and
// the first reason why it does not yet.
func (r Rotation) looker(ctx context.Context, key *ecw.Key) func() error {
	if r.Served == nil {
		return func() error { return nil }
	}

	served, complained := false, false
	return func() error {
		if served {
			return nil
		}
		err := r.Served(ctx, key)
		switch {
		case err == nil:
			served = true
			r.Say("   Our public JWKS lists " + key.ID() + ".")
		case !complained:
			complained = true
			r.Say("   Our public JWKS does not list it yet: " + err.Error())
		}
		return err
	}
}

// retire takes the former key away.
func (r Rotation) retire(ctx context.Context, read content, former Key) error {
	nothing := func() error { return nil }
	if err := r.wait(ctx, former.Since, "that no assertion of "+former.ID+" is under way", nothing); err != nil {
		return err
	}

	// The file goes last: it has to be there for as long as keys.json has it published.
	if err := r.set(read, map[string]State{former.ID: Retired}); err != nil {
		return err
	}
	if err := removeRetired(r.Dir); err != nil {
		return err
	}
	r.Say(fmt.Sprintf("4. Retired: %s is published no more, and its file is deleted. The rotation is done.", former.ID))
	return nil
}

// removeRetired deletes the files of the keys that are retired, also one that an interrupted run has left.
func removeRetired(dir string) error {
	read, err := load(dir)
	if err != nil {
		return err
	}
	for _, key := range read.keys {
		if key.State != Retired {
			continue
		}
		if err := os.Remove(keyFile(dir, key.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// set gives keys other states, all in one step.
func (r Rotation) set(read content, states map[string]State) error {
	owner, err := os.Stat(keyFile(r.Dir, read.signing().ID()))
	if err != nil {
		return err
	}

	keys := slices.Clone(read.keys)
	for i, key := range keys {
		if state, ok := states[key.ID]; ok {
			keys[i].State, keys[i].Since = state, moment()
		}
	}
	return writeState(r.Dir, owner, keys)
}

// moment is now, as keys.json shows it.
func moment() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// wait returns when Wait has passed since the moment. Every minute it says how long that still takes, after
// it has called look, whose errors do not end the wait.
func (r Rotation) wait(ctx context.Context, since time.Time, why string, look func() error) error {
	// A clock that was set back must not make the wait longer.
	until := time.Now().Add(min(time.Until(since.Add(r.Wait)), r.Wait))
	if time.Now().Before(until) {
		r.Say(fmt.Sprintf("   Waiting until %s, so %s. Ctrl-C breaks nothing: run the command again, and it goes on.",
			until.Format("15:04:05"), why))
	}

	for {
		left := time.Until(until)
		if left <= 0 {
			return ctx.Err()
		}
		_ = look() // whoever waits looks again at the end

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(left, time.Minute)):
		}
		if left := time.Until(until).Round(time.Second); left > 0 {
			r.Say(fmt.Sprintf("   %s left", left))
		}
	}
}

// lock keeps a second rotation off the directory. The kernel frees it when this process ends.
func lock(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, "rotation.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("a rotation has to write to ECW_KEYS_DIR: %w", err)
	}

	// If root made the file, the next run may be somebody else's.
	if owner, err := os.Stat(dir); err == nil {
		account := owner.Sys().(*syscall.Stat_t)
		_ = file.Chown(int(account.Uid), int(account.Gid)) // only root may
	}

	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another rotation of the keys in %s runs: let it finish", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return func() { _ = file.Close() }, nil
}

func writeState(dir string, owner os.FileInfo, keys []Key) error {
	text, err := json.MarshalIndent(map[string]any{"keys": keys}, "", "  ")
	if err != nil {
		return err
	}
	const readable = 0o644 // there is no secret in it
	return write(filepath.Join(dir, stateFile), owner, readable, append(text, '\n'))
}

// write replaces a file in one step that also survives a loss of power. The file belongs to the account of
// owner's file, because a rotation may run as root and the processes do not.
func write(path string, owner os.FileInfo, mode os.FileMode, text []byte) error {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}

	account := owner.Sys().(*syscall.Stat_t)
	_, err = file.Write(text)
	err = errors.Join(
		err,
		file.Chown(int(account.Uid), int(account.Gid)),
		file.Chmod(mode), // whatever the umask is
		file.Sync(),
		file.Close(),
	)
	if err != nil {
		return fmt.Errorf("%w; run this as the account that %s belongs to, or as root", err, owner.Name())
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	opened, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}
