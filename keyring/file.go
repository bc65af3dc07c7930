package keyring

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// file is a keyring as it is stored.
type file struct {
	Keyring int               `json:"vantrexia_keyring"` // the version of this form
	Keysets map[Keyset]stored `json:"keysets"`
}

const version = 1

// stored is a Tink keyset in JSON, and what Tink does not keep of its keys. Which key is Tink's primary one
// follows from UsedFrom whenever the file is read.
type stored struct {
	Keys   map[string]dates `json:"keys"`
	Keyset json.RawMessage  `json:"keyset"`
}

type dates struct {
	CreatedAt time.Time `json:"created_at"`
	UsedFrom  time.Time `json:"used_from"`
}

// Key describes a key.
type Key struct {
	Keyset    Keyset
	ID        string // eight hexadecimal digits
	CreatedAt time.Time
	// UsedFrom is when the key seals, and those before it only open.
	UsedFrom time.Time
	// InUse reports whether the key seals now.
	InUse bool
}

// keys is what a file holds, at the moment when it was read. It never changes.
type keys struct {
	columns, temporal tink.AEAD
	indexes, audit    *prf.Set
	described         []Key
	ids               map[Keyset]map[uint32]bool
}

func (k *keys) has(set Keyset, id uint32) bool { return k.ids[set][id] }

// Generate returns the content of a new keyring file, with one key in each keyset. Whoever has it can open
// everything.
func Generate() ([]byte, error) {
	f := &file{Keyring: version, Keysets: map[Keyset]stored{}}
	now := time.Now()
	for _, set := range Keysets() {
		if _, err := f.add(set, now, now); err != nil {
			return nil, err
		}
	}
	return f.content()
}

// Rotate adds a key to a keyset, which seals from the given moment on. It returns the new content of the file
// and the new key's id. A keyset of indexes that has two keys is not given a third: each key has a column.
func Rotate(content []byte, set Keyset, from time.Time) (changed []byte, id string, err error) {
	f, err := parse(content)
	if err != nil {
		return nil, "", err
	}
	if set == Indexes && len(f.Keysets[set].Keys) > 1 {
		return nil, "", errors.New("the keyset indexes is being rotated already: " +
			"run `vantrexia keys reencrypt`, and retire its old key, before it is rotated again")
	}
	key, err := f.add(set, time.Now(), from)
	if err != nil {
		return nil, "", err
	}
	changed, err = f.content()
	return changed, keyName(key), err
}

// Retire removes a key. What was sealed with it can never be opened again: the caller makes sure that nothing
// is left. A key that is in use is not removed.
func Retire(content []byte, set Keyset, id string) (changed []byte, err error) {
	f, err := parse(content)
	if err != nil {
		return nil, err
	}
	s, key, err := f.find(set, id)
	if err != nil {
		return nil, err
	}
	if s.primary(time.Now()) == key {
		return nil, fmt.Errorf("the key %s of the keyset %q is in use: rotate the keyset first", id, set)
	}

	handle, err := s.handle()
	if err != nil {
		return nil, err
	}
	manager := keyset.NewManagerFromHandle(handle)
	if err := manager.SetPrimary(s.primary(time.Now())); err != nil {
		return nil, err
	}
	if err := manager.Delete(key); err != nil {
		return nil, err
	}
	s.Keys = maps.Clone(s.Keys)
	delete(s.Keys, id)
	if err := f.put(set, s, manager); err != nil {
		return nil, err
	}
	return f.content()
}

func parse(content []byte) (*file, error) {
	var f file
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return nil, errors.New("is no keyring: make one with `vantrexia keys create`, or restore its escrow copy")
	}
	if f.Keyring != version {
		return nil, fmt.Errorf("is a keyring of version %d, and this binary knows version %d: use a newer binary", f.Keyring, version)
	}
	for _, set := range Keysets() {
		if len(f.Keysets[set].Keys) == 0 {
			return nil, fmt.Errorf("has no keyset %q: restore the file from its escrow copy", set)
		}
	}
	return &f, nil
}

func (f *file) content() ([]byte, error) {
	content, err := json.MarshalIndent(f, "", "  ")
	return append(content, '\n'), err
}

// add makes a key. Those of the indexes are even and odd in turns, see [Index].
func (f *file) add(set Keyset, now, from time.Time) (uint32, error) {
	s := f.Keysets[set]
	manager := keyset.NewManager()
	if len(s.Keys) > 0 {
		handle, err := s.handle()
		if err != nil {
			return 0, err
		}
		manager = keyset.NewManagerFromHandle(handle)
	}

	var id uint32
	for {
		var err error
		if id, err = manager.Add(template(set)); err != nil {
			return 0, err
		}
		if set != Indexes || len(s.Keys) == 0 || id%2 != s.primary(now)%2 {
			break
		}
		if err := manager.Delete(id); err != nil {
			return 0, err
		}
	}

	s.Keys = maps.Clone(s.Keys)
	if s.Keys == nil {
		s.Keys = map[string]dates{}
	}
	s.Keys[keyName(id)] = dates{CreatedAt: now.UTC(), UsedFrom: from.UTC()}
	if err := manager.SetPrimary(s.primary(now)); err != nil {
		return 0, err
	}
	return id, f.put(set, s, manager)
}

func template(set Keyset) *tinkpb.KeyTemplate {
	if set == Columns || set == Temporal {
		return aead.XAES256GCM192BitNonceKeyTemplate()
	}
	return prf.HMACSHA256PRFKeyTemplate()
}

// put stores a keyset that was changed.
func (f *file) put(set Keyset, s stored, manager *keyset.Manager) error {
	handle, err := manager.Handle()
	if err != nil {
		return err
	}
	var written bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&written)); err != nil {
		return err
	}
	s.Keyset = written.Bytes()
	f.Keysets[set] = s
	return nil
}

func (f *file) find(set Keyset, id string) (s stored, key uint32, err error) {
	s = f.Keysets[set]
	if _, known := s.Keys[id]; !known {
		return s, 0, fmt.Errorf("the keyset %q has no key %s: `vantrexia keys status` lists them", set, id)
	}
	return s, keyNumber(id), nil
}

// handle reads the Tink keyset.
func (s stored) handle() (*keyset.Handle, error) {
	return insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(s.Keyset)))
}

// sorted returns the ids of the keys, the oldest first.
func (s stored) sorted() []string {
	return slices.SortedFunc(maps.Keys(s.Keys), func(a, b string) int {
		return slices.Compare(
			[]int64{s.Keys[a].CreatedAt.UnixNano(), s.Keys[a].UsedFrom.UnixNano()},
			[]int64{s.Keys[b].CreatedAt.UnixNano(), s.Keys[b].UsedFrom.UnixNano()})
	})
}

// primary returns the key that seals at a moment: the one whose time came last. Where none has come yet it is
// the oldest.
func (s stored) primary(now time.Time) uint32 {
	ids := s.sorted()
	primary := ids[0]
	for _, id := range ids {
		if from := s.Keys[id].UsedFrom; !from.After(now) && !from.Before(s.Keys[primary].UsedFrom) {
			primary = id
		}
	}
	return keyNumber(primary)
}

// keyNumber is the number that Tink gives a key; 0, which is none, for an id that is not ours.
func keyNumber(id string) uint32 {
	number, err := strconv.ParseUint(id, 16, 32)
	if err != nil {
		return 0
	}
	return uint32(number)
}

// keys makes the primitives, with the keys that are in use at a moment as the primary ones.
func (f *file) keys(now time.Time) (*keys, error) {
	k := &keys{ids: map[Keyset]map[uint32]bool{}}
	for _, set := range Keysets() {
		s := f.Keysets[set]
		primary := s.primary(now)
		k.ids[set] = map[uint32]bool{}
		for _, id := range s.sorted() {
			key := keyNumber(id)
			k.ids[set][key] = true
			k.described = append(k.described, Key{
				Keyset:    set,
				ID:        id,
				CreatedAt: s.Keys[id].CreatedAt,
				UsedFrom:  s.Keys[id].UsedFrom,
				InUse:     key == primary,
			})
		}

		handle, err := s.handle()
		if err == nil {
			manager := keyset.NewManagerFromHandle(handle)
			if err = manager.SetPrimary(primary); err == nil {
				handle, err = manager.Handle()
			}
		}
		if err == nil {
			err = k.make(set, handle)
		}
		if err != nil {
			return nil, fmt.Errorf("the keyset %q cannot be read: restore the file from its escrow copy", set)
		}
	}
	return k, nil
}

func (k *keys) make(set Keyset, handle *keyset.Handle) (err error) {
	switch set {
	case Columns:
		k.columns, err = aead.New(handle)
	case Temporal:
		k.temporal, err = aead.New(handle)
	case Indexes:
		k.indexes, err = prf.NewPRFSet(handle)
	case Audit:
		k.audit, err = prf.NewPRFSet(handle)
	}
	return err
}

// digests returns the keyed hashes of data, that of the primary key first.
func (k *keys) digests(data []byte) [][]byte {
	digests := [][]byte{digest(k.indexes, k.indexes.PrimaryID, data)}
	for _, id := range slices.Sorted(maps.Keys(k.indexes.PRFs)) {
		if id != k.indexes.PrimaryID {
			digests = append(digests, digest(k.indexes, id, data))
		}
	}
	return digests
}

func (k *keys) auditCode(data []byte) ([]byte, string) {
	code, err := k.audit.ComputePrimaryPRF(data, auditCodeLength)
	if err != nil {
		panic("HMAC-SHA256 gives 32 bytes of any input: " + err.Error())
	}
	return code, keyName(k.audit.PrimaryID)
}

func (k *keys) auditCodeWith(key string, data []byte) ([]byte, error) {
	audit, ok := k.audit.PRFs[keyNumber(key)]
	if !ok {
		return nil, &MissingKeyError{Keyset: Audit, ID: key}
	}
	return audit.ComputePRF(data, auditCodeLength)
}

// digest returns the id of a key and the hash under it.
func digest(set *prf.Set, id uint32, data []byte) []byte {
	hash, err := set.PRFs[id].ComputePRF(data, hashLength)
	if err != nil {
		panic("HMAC-SHA256 gives 16 bytes of any input: " + err.Error())
	}
	return append(binary.BigEndian.AppendUint32(nil, id), hash...)
}
