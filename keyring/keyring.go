// Package keyring holds the keys with which stored data is encrypted, and what is done with them: it seals
// columns and Temporal's payloads, and computes the keyed hashes by which sealed values are found.
//
// A keyring is a file with four Tink keysets, one for each purpose ([Keyset]), so that no key does two things.
// Ciphertexts are XAES-256-GCM (256-bit keys and 192-bit nonces, so that no number of random nonces is too
// many), keyed hashes are HMAC-SHA256. Associated data always says what a ciphertext is, so that one which was
// moved to another place cannot be opened there.
//
// A key is in the file before it is used: all processes read the file again every minute ([Keyring.Watch]), and
// begin to seal with a new key at its moment used_from, by which each of them can open what others seal.
package keyring

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/vantrexia/vantrexia/secretfile"
)

// Keyset names the keys of one purpose.
type Keyset string

// The keysets of a keyring.
const (
	Columns  Keyset = "columns"  // seals columns of the database
	Indexes  Keyset = "indexes"  // computes keyed hashes: blind indexes and digests
	Temporal Keyset = "temporal" // seals the payloads and failures of workflows
	Audit    Keyset = "audit"    // computes the chained codes of the audit trail
)

// Keysets returns all of them, in the order in which they are shown.
func Keysets() []Keyset { return []Keyset{Columns, Indexes, Temporal, Audit} }

// RereadEvery is how often a process reads the file again.
const RereadEvery = time.Minute

// Keyring seals and opens. It is safe for use by many goroutines.
type Keyring struct {
	path    string // empty: it came from no file
	now     func() time.Time
	current atomic.Pointer[keys]
	content []byte // that current was made of
}

// New returns the keyring of a file's content, as [Generate] makes one.
func New(content []byte) (*Keyring, error) {
	k := &Keyring{now: time.Now}
	return k, k.use(content)
}

// Open reads a keyring from its file.
func Open(path string) (*Keyring, error) {
	k := &Keyring{path: path, now: time.Now}
	return k, k.Reread(nil)
}

// Reread reads the file again. A file that has changed is taken when accept, unless that is nil, returns no error for
// its keyring. When Reread returns an error, the keys that were read before are kept, and each is still used from its
// moment on. One goroutine at a time may call it.
func (k *Keyring) Reread(accept func(*Keyring) error) error {
	content, err := k.read(accept)
	if err != nil {
		content = k.content
	}
	return cmp.Or(err, k.use(content))
}

// read returns what the file holds, if that may be used.
func (k *Keyring) read(accept func(*Keyring) error) ([]byte, error) {
	content, err := secretfile.Read(k.path)
	if err != nil || bytes.Equal(content, k.content) {
		return content, err
	}
	changed, err := New(content)
	if err == nil && accept != nil {
		err = accept(changed)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.path, err)
	}
	return content, nil
}

func (k *Keyring) use(content []byte) error {
	f, err := parse(content)
	if err != nil {
		return err
	}
	read, err := f.keys(k.now())
	if err != nil {
		return err
	}
	k.current.Store(read)
	k.content = content
	return nil
}

// Watch reads the file every minute until the context ends, as [Keyring.Reread] does. It says when it cannot, and goes
// on with the keys that it has.
func (k *Keyring) Watch(ctx context.Context, log *slog.Logger, accept func(context.Context, *Keyring) error) {
	ticker := time.NewTicker(RereadEvery)
	defer ticker.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := k.Reread(func(changed *Keyring) error { return accept(ctx, changed) }); err != nil {
				log.Error("the keyring cannot be read again, the keys that were read before are used", "error", err)
			}
		}
	}
}

// Cell is the place of a value in the database, which is the associated data of its ciphertext: a ciphertext
// that was moved to another column, practice or row does not open there.
type Cell struct {
	Table    string
	Column   string
	Practice string
	Row      string // the primary key
}

func (c Cell) data() []byte { return join("column", c.Table, c.Column, c.Practice, c.Row) }

// String names the place without the row's practice.
func (c Cell) String() string { return c.Table + "." + c.Column + " of " + c.Row }

// ErrCorrupt means that a ciphertext was changed, or stands in a place that it was not sealed for.
var ErrCorrupt = errors.New("does not open with its key: it was changed, or moved here from another row")

// MissingKeyError means that something was sealed with a key that the keyring does not have.
type MissingKeyError struct {
	Keyset Keyset
	ID     string // as `vantrexia keys status` shows it
}

// Error says how to get the key back.
func (e *MissingKeyError) Error() string {
	return fmt.Sprintf("the key %s of the keyset %q is not in KEYRING_FILE: restore the file from its escrow copy", e.ID, e.Keyset)
}

// Seal encrypts a value for its place.
func (k *Keyring) Seal(c Cell, plain []byte) ([]byte, error) {
	return k.current.Load().columns.Encrypt(plain, c.data())
}

// Open decrypts the value of a place. The error is a [MissingKeyError] or wraps [ErrCorrupt].
func (k *Keyring) Open(c Cell, sealed []byte) ([]byte, error) {
	plain, err := k.current.Load().open(Columns, sealed, c.data())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	return plain, nil
}

// SealPayload encrypts a payload of a workflow for its namespace.
func (k *Keyring) SealPayload(namespace string, plain []byte) ([]byte, error) {
	return k.current.Load().temporal.Encrypt(plain, join("temporal", namespace))
}

// OpenPayload decrypts a payload of a workflow. The error is a [MissingKeyError] or wraps [ErrCorrupt].
func (k *Keyring) OpenPayload(namespace string, sealed []byte) ([]byte, error) {
	return k.current.Load().open(Temporal, sealed, join("temporal", namespace))
}

// Index is what a value is found by: a keyed hash with the id of its key before it. While the keys are
// rotated there are two keys, and each has a column of its own: A for keys with an even id, B for those with
// an odd one. A hash without a key is nil.
type Index struct {
	A, B []byte
}

// hashLength is enough: among a billion values two have the same hash with a probability of 10⁻²¹.
const hashLength = 16

// auditCodeLength is the whole of an HMAC-SHA256.
const auditCodeLength = 32

// Index returns the index of a value. What says which kind of value it is, such as "patients.mrn": equal
// values of two kinds or practices have different hashes.
func (k *Keyring) Index(what, practice, value string) Index {
	var index Index
	for _, digest := range k.Digests(what, practice, value) {
		if digest[keyIDLength-1]%2 == 0 {
			index.A = digest
		} else {
			index.B = digest
		}
	}
	return index
}

// Digest returns the keyed hash of a value under the key that is in use now, with the id of that key before it.
func (k *Keyring) Digest(what, practice, value string) []byte {
	return k.Digests(what, practice, value)[0]
}

// Digests returns the keyed hashes of a value under all keys; the first is the [Keyring.Digest]. A stored
// digest that may have been made before the last rotation is looked for with all of them.
func (k *Keyring) Digests(what, practice, value string) [][]byte {
	return k.current.Load().digests(join("index", what, practice, value))
}

// AuditCode returns the code of an entry of the audit trail, and the id of its key.
func (k *Keyring) AuditCode(data []byte) (code []byte, key string) {
	return k.current.Load().auditCode(data)
}

// AuditCodeWith returns the code under the key with that id. It returns a [*MissingKeyError] when the keyring lacks the
// key.
func (k *Keyring) AuditCodeWith(key string, data []byte) ([]byte, error) {
	return k.current.Load().auditCodeWith(key, data)
}

// CheckAuditCode reports whether code is that of data under the key with that id. It returns a [*MissingKeyError]
// when the keyring lacks the key.
func (k *Keyring) CheckAuditCode(key string, code, data []byte) (bool, error) {
	want, err := k.AuditCodeWith(key, data)
	return hmac.Equal(code, want), err
}

// Keys describes the keys of all keysets: the order of [Keysets], and in each the oldest first.
func (k *Keyring) Keys() []Key { return k.current.Load().described }

// keyIDLength is the length of a key's id in bytes.
const keyIDLength = 4

// tinkPrefix is the first byte of a Tink ciphertext, before the id of its key.
const tinkPrefix = 0x01

// open opens a ciphertext, and says which key is missing when one is.
func (k *keys) open(set Keyset, sealed, data []byte) ([]byte, error) {
	primitive := k.columns
	if set == Temporal {
		primitive = k.temporal
	}

	plain, err := primitive.Decrypt(sealed, data)
	if err == nil {
		return plain, nil
	}
	if len(sealed) > keyIDLength && sealed[0] == tinkPrefix {
		if id := binary.BigEndian.Uint32(sealed[1:]); !k.has(set, id) {
			return nil, &MissingKeyError{Keyset: set, ID: keyName(id)}
		}
	}
	return nil, ErrCorrupt
}

// SealedWith returns the id of the key that a ciphertext was sealed with, as [Key.ID] has it.
func SealedWith(sealed []byte) string {
	if len(sealed) <= keyIDLength || sealed[0] != tinkPrefix {
		return ""
	}
	return keyName(binary.BigEndian.Uint32(sealed[1:]))
}

// keyName is the id of a key as people see it.
func keyName(id uint32) string { return fmt.Sprintf("%08x", id) }

// join writes parts one after the other, each with its length before it, so that no two lists give the same
// bytes.
func join(parts ...string) []byte {
	var joined []byte
	for _, part := range parts {
		joined = binary.BigEndian.AppendUint32(joined, uint32(len(part)))
		joined = append(joined, part...)
	}
	return joined
}
