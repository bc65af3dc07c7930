package db

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/text/collate"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// Names are stored sealed, so that no index of the database gives them away. A directory holds those of a
// practice's patients in the memory of the process, decrypted and in order, and it is what lists are ordered and
// searched with. Before each use it asks the database who has changed, so a list shows what any process wrote
// before. A patient takes some 250 bytes.
type directory struct {
	practice string
	// turn holds a token; whoever has taken it may bring the directory up to date.
	turn     chan struct{}
	collator *collate.Collator

	people map[uuid.UUID]*person
	// asked is the database's time when it was asked last.
	asked time.Time
	// compared is when all patients were last compared, by our clock.
	compared time.Time
	orders   orders
}

const (
	// lateCommits is how long a transaction may take from its beginning, which is a row's updated_at, until others
	// see what it wrote. Ours take milliseconds.
	lateCommits = time.Minute
	// compareEvery is how often all patients are compared, for what updated_at does not show: a restored backup,
	// or a clock that was set back.
	compareEvery = 10 * time.Minute
	// readTogether is how many patients are read with one statement.
	readTogether = 1_000
	// in2000 is the beginning of 2000, from which PostgreSQL counts, in microseconds since 1970.
	in2000 = 946_684_800_000_000
)

// orders are all patients in each order. They are replaced, and never changed.
type orders struct {
	byName, byCreation []*person
}

// person is what lists need of a patient. It is replaced, and never changed.
type person struct {
	id uuid.UUID
	// key sorts by last name and then by first name, as people expect of letters, case and accents.
	key string
	// words are the first name, the last name and the MRN as folded makes them, each with NUL before it.
	words string
	// Times are microseconds since 1970, as exact as the database has them.
	created, updated int64
	archived         bool
	mismatched       bool
}

func (p *person) compareNames(other *person) int {
	return cmp.Or(strings.Compare(p.key, other.key), bytes.Compare(p.id[:], other.id[:]))
}

func (p *person) compareCreation(other *person) int {
	return cmp.Or(cmp.Compare(p.created, other.created), bytes.Compare(p.id[:], other.id[:]))
}

// directories are those of the practices of a database: usually there is one.
type directories struct {
	mu         sync.Mutex
	byPractice map[string]*directory
}

func (d *directories) of(practice string) *directory {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.byPractice[practice]; known != nil {
		return known
	}

	made := &directory{
		practice: practice,
		turn:     make(chan struct{}, 1),
		collator: collate.New(language.Und),
	}
	made.turn <- struct{}{}
	if d.byPractice == nil {
		d.byPractice = map[string]*directory{}
	}
	d.byPractice[practice] = made
	return made
}

// current brings the directory up to date, and returns the patients in each order.
func (d *directory) current(ctx context.Context, q *Queries) (orders, error) {
	select {
	case <-d.turn:
	case <-ctx.Done():
		return orders{}, ctx.Err()
	}
	defer func() { d.turn <- struct{}{} }()

	err := d.update(ctx, q)
	return d.orders, err
}

// update reads who has changed since the last time. When it fails, the directory stays as it was.
func (d *directory) update(ctx context.Context, q *Queries) error {
	all := time.Since(d.compared) > compareEvery
	since := d.asked.Add(-lateCommits)
	if all {
		since = time.Time{}
	}
	began := time.Now()
	written, err := q.listChanged(ctx, listChangedParams{PracticeCode: d.practice, Since: since})
	if err != nil {
		return err
	}

	var changed []uuid.UUID
	listed := map[uuid.UUID]bool{} // of all patients only
	for row := range slices.Chunk(written.Written, 24) {
		id, updated := uuid.UUID(row[:16]), int64(binary.BigEndian.Uint64(row[16:]))+in2000
		if known := d.people[id]; known == nil || known.updated != updated {
			changed = append(changed, id)
		}
		if all {
			listed[id] = true
		}
	}
	read, err := d.read(ctx, q, changed)
	if err != nil {
		return err
	}

	gone := map[uuid.UUID]bool{}
	if all {
		for id := range d.people {
			if !listed[id] {
				gone[id] = true
			}
		}
	}
	d.replace(read, gone)
	d.asked = written.At
	if all {
		d.compared = began
	}
	return nil
}

// read opens the names of patients.
func (d *directory) read(ctx context.Context, q *Queries, ids []uuid.UUID) (people []*person, err error) {
	var keys collate.Buffer
	for some := range slices.Chunk(ids, readTogether) {
		rows, err := q.listNames(ctx, listNamesParams{PracticeCode: d.practice, IDs: some})
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			opened, err := q.openDemographics(d.practice, row.ID, row.Demographics)
			if err != nil {
				return nil, err
			}
			people = append(people, &person{
				id:         row.ID,
				key:        d.sortKey(&keys, opened),
				words:      wordsOf(opened),
				created:    row.CreatedAt.UnixMicro(),
				updated:    row.UpdatedAt.UnixMicro(),
				archived:   row.Archived,
				mismatched: row.Mismatched,
			})
		}
	}
	return people, nil
}

// sortKey joins the keys of both names with what is less than any letter.
func (d *directory) sortKey(keys *collate.Buffer, names Demographics) string {
	defer keys.Reset()
	last := d.collator.KeyFromString(keys, names.LastName)
	first := d.collator.KeyFromString(keys, names.FirstName)
	return string(last) + "\x00\x00" + string(first)
}

func wordsOf(d Demographics) string {
	return folded("\x00" + d.FirstName + "\x00" + d.LastName + "\x00" + d.MRN)
}

// replace puts the patients that were read in the place of those who are known by the same id, and forgets those
// who are gone.
func (d *directory) replace(read []*person, gone map[uuid.UUID]bool) {
	if len(read)+len(gone) == 0 {
		return
	}
	if d.people == nil {
		d.people = make(map[uuid.UUID]*person, len(read))
	}
	for id := range gone {
		delete(d.people, id)
	}
	for _, p := range read {
		d.people[p.id] = p
		gone[p.id] = true
	}
	d.orders = orders{
		byName:     merged(d.orders.byName, gone, read, (*person).compareNames),
		byCreation: merged(d.orders.byCreation, gone, read, (*person).compareCreation),
	}
}

// merged returns an order without those who are gone, and with those who were added in their places.
func merged(order []*person, gone map[uuid.UUID]bool, added []*person, compare func(a, b *person) int) []*person {
	added = slices.SortedFunc(slices.Values(added), compare)
	next := make([]*person, 0, len(order)+len(added))
	for _, p := range order {
		if gone[p.id] {
			continue
		}
		for len(added) > 0 && compare(added[0], p) < 0 {
			next, added = append(next, added[0]), added[1:]
		}
		next = append(next, p)
	}
	return append(next, added...)
}

// beginning is what the words of a person contain when one of them begins with a text, in upper or lower case.
func beginning(text string) string { return "\x00" + folded(text) }

// folded is a text in lower case, with each accent in the same form.
func folded(text string) string { return norm.NFC.String(strings.ToLower(text)) }
