package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// observation is a stored Observation with the fields that searches use.
type observation struct {
	id       string
	received time.Time
	resource json.RawMessage // as sent, with the server's id, versionId and lastUpdated
	body     observationBody
	patient  string // id
	when     span
	indexed  time.Time // when searches begin to find it, zero = at once; not kept in the file
}

func (o *observation) findable(now time.Time) bool { return !now.Before(o.indexed) }

// store holds the accepted Observations in the order of their arrival, and keeps them in a file if there is
// one. A line is written before the create is answered, so that an accepted Observation survives the end of
// the process. It may not survive a power cut, because there is no fsync.
type store struct {
	mu           sync.RWMutex
	now          func() time.Time
	file         *os.File // nil = memory only
	size         int64    // of the file's complete lines
	closed       bool
	list         []*observation
	byID         map[string]*observation
	byIdentifier map[string][]*observation // by identifier.key
	next         int                       // number of the next id
}

// record is a line of observations.ndjson.
type record struct {
	ID       string          `json:"id"`
	Received time.Time       `json:"received"`
	Resource json.RawMessage `json:"resource"`
}

const (
	storeFile     = "observations.ndjson"
	firstNumber   = 10001
	idPrefix      = "obs-fhir-"
	ownerReadable = 0o600
)

func openStore(dir string, now func() time.Time) (*store, error) {
	st := &store{now: now}
	st.empty()
	if dir == "" {
		return st, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}

	file, err := os.OpenFile(filepath.Join(dir, storeFile), os.O_RDWR|os.O_CREATE, ownerReadable)
	if err != nil {
		return nil, err
	}

	st.file = file
	if err := st.replay(); err != nil {
		return nil, errors.Join(err, file.Close())
	}

	return st, nil
}

func (st *store) empty() {
	st.list, st.byID, st.byIdentifier, st.next = nil, map[string]*observation{}, map[string][]*observation{}, firstNumber
}

// replay reads the file. A last line without a line break is the remains of a write that a crash interrupted.
// It is dropped, because its create was never answered. Any other line that cannot be read is an error.
func (st *store) replay() error {
	data, err := io.ReadAll(st.file)
	if err != nil {
		return err
	}

	for number := 1; ; number++ {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			break
		}

		o, err := parseRecord(line)
		if err != nil {
			return fmt.Errorf("%s, line %d: %w; correct or remove the file", st.file.Name(), number, err)
		}

		st.add(o)
		st.size += int64(len(line)) + 1
		data = rest
	}

	return st.rewind()
}

// rewind drops everything after the last complete line.
func (st *store) rewind() error {
	if err := st.file.Truncate(st.size); err != nil {
		return err
	}
	_, err := st.file.Seek(st.size, io.SeekStart)
	return err
}

func parseRecord(line []byte) (*observation, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, err
	}
	return newObservation(r)
}

func newObservation(r record) (*observation, error) {
	o := &observation{id: r.ID, received: r.Received, resource: r.Resource}
	if err := json.Unmarshal(r.Resource, &o.body); err != nil {
		return nil, err
	}
	if o.body.Subject == nil || o.body.Code == nil {
		return nil, errors.New("an Observation without subject or code")
	}

	_, o.patient, _ = strings.Cut(o.body.Subject.Reference, "Patient/") // relative or absolute; it was checked on arrival
	var err error
	o.when, err = parseDate(o.body.EffectiveDateTime)
	return o, err
}

func (st *store) add(o *observation) {
	st.list = append(st.list, o)
	st.byID[o.id] = o
	for _, id := range o.body.Identifier {
		st.byIdentifier[id.key()] = append(st.byIdentifier[id.key()], o)
	}

	var number int
	if _, err := fmt.Sscanf(o.id, idPrefix+"%d", &number); err == nil && number >= st.next {
		st.next = number + 1
	}
}

// creation is an Observation to store under a condition.
type creation struct {
	resource  json.RawMessage
	body      observationBody
	unless    *query[*observation] // store nothing if something matches (If-None-Exist)
	uniqueIDs bool                 // store nothing if an identifier is taken

	indexDelay time.Duration // until searches find it
}

// create stores the Observation and returns it, or stores nothing and returns the Observations that prevent
// it. Of two creates with the same condition only one stores.
func (st *store) create(c creation) (*observation, []*observation, error) {
	st.mu.Lock()
	defer st.mu.Unlock()

	if c.unless != nil {
		if found := st.find(*c.unless); len(found) > 0 {
			return nil, found, nil
		}
	}

	if c.uniqueIDs {
		for _, id := range c.body.Identifier {
			if found := st.carrying(id); len(found) > 0 {
				return nil, found, nil
			}
		}
	}

	if st.closed {
		return nil, nil, errors.New("the sandbox is closed")
	}

	r := record{ID: fmt.Sprintf("%s%d", idPrefix, st.next), Received: st.now().UTC()}
	var err error
	if r.Resource, err = withServerElements(c.resource, r.ID, r.Received); err != nil {
		return nil, nil, err
	}

	o, err := newObservation(r)
	if err != nil {
		return nil, nil, err
	}

	if c.indexDelay > 0 {
		o.indexed = r.Received.Add(c.indexDelay)
	}
	if err := st.write(r); err != nil {
		return nil, nil, err
	}

	st.add(o)
	return o, nil, nil
}

func (st *store) write(r record) error {
	if st.file == nil {
		return nil
	}
	line, err := encode(r) // ends with a line break
	if err != nil {
		return err
	}
	if _, err := st.file.Write(line); err != nil {
		return errors.Join(err, st.rewind())
	}
	st.size += int64(len(line))
	return nil
}

// carrying returns the Observations with the identifier, without those that are not indexed yet.
func (st *store) carrying(id identifier) []*observation {
	now := st.now()
	late := func(o *observation) bool { return !o.findable(now) }
	return slices.DeleteFunc(slices.Clone(st.byIdentifier[id.key()]), late)
}

func (st *store) find(q query[*observation]) []*observation {
	candidates := st.list
	if q.identifier != nil {
		candidates = st.byIdentifier[q.identifier.key()]
	}
	var found []*observation
	now := st.now()
	for _, o := range candidates {
		if o.findable(now) && q.matches(o) {
			found = append(found, o)
		}
	}
	return found
}

// search returns the matches in the order of their arrival.
func (st *store) search(q query[*observation]) []*observation {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.find(q)
}

func (st *store) get(id string) (*observation, bool) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	o, ok := st.byID[id]
	return o, ok
}

// all returns the Observations in the order of their arrival. The slice is the caller's.
func (st *store) all() []*observation {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return slices.Clone(st.list)
}

// counts returns how many Observations carry each identifier, and how many there are.
func (st *store) counts() (map[string]int, int) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	counts := make(map[string]int, len(st.byIdentifier))
	for key, list := range st.byIdentifier {
		counts[key] = len(list)
	}
	return counts, len(st.list)
}

// reset forgets everything and empties the file.
func (st *store) reset() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.empty()
	if st.file == nil || st.closed {
		return nil
	}
	st.size = 0
	return st.rewind()
}

func (st *store) close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closed = true
	if st.file == nil {
		return nil
	}
	return st.file.Close()
}

// withServerElements adds the elements that a server assigns. The others stay as they were sent, including
// their decimals and the order of the elements inside them.
func withServerElements(resource json.RawMessage, id string, at time.Time) (json.RawMessage, error) {
	var elements map[string]json.RawMessage
	if err := json.Unmarshal(resource, &elements); err != nil {
		return nil, err
	}

	m := map[string]json.RawMessage{}
	if sent, ok := elements["meta"]; ok {
		if err := json.Unmarshal(sent, &m); err != nil {
			return nil, err
		}
	}

	m["versionId"] = json.RawMessage(`"1"`)
	m["lastUpdated"] = json.RawMessage(`"` + at.Format("2006-01-02T15:04:05.000Z07:00") + `"`)
	metaJSON, err := encode(m)
	if err != nil {
		return nil, err
	}

	for _, name := range []string{"resourceType", "id", "meta"} {
		delete(elements, name)
	}

	var b bytes.Buffer
	fmt.Fprintf(&b, `{"resourceType":"Observation","id":%q,"meta":%s`, id, bytes.TrimSpace(metaJSON))
	for _, name := range sortedKeys(elements) {
		fmt.Fprintf(&b, `,%q:`, name)
		if err := json.Compact(&b, elements[name]); err != nil {
			return nil, err
		}
	}

	b.WriteByte('}')
	return b.Bytes(), nil
}
