package audit

import (
	"bytes"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
)

// checkRows walks through all rows, writer by writer, and through the seals beside them.
func (v *verifier) checkRows() error {
	if err := v.findPruned(); err != nil {
		return err
	}

	seals := stream[db.AuditSeal]{read: func(after db.AuditSeal) ([]db.AuditSeal, error) {
		return v.q.ListAuditSealsOfWriter(v.ctx, db.ListAuditSealsOfWriterParams{
			Writer: after.Writer, Sequence: after.LastSequence, Batch: verifyBatch,
		})
	}}
	rows := stream[db.AuditEvent]{read: func(after db.AuditEvent) ([]db.AuditEvent, error) {
		return v.q.ListAuditEventsOfWriter(v.ctx, db.ListAuditEventsOfWriterParams{
			Writer: after.Writer, Sequence: after.Sequence, RecordedAt: after.RecordedAt, Batch: verifyBatch,
		})
	}}

	for {
		writer, more, err := nextWriter(&rows, &seals)
		if err != nil || !more {
			return err
		}
		w := writerCheck{verifier: v, writer: writer, rows: &rows, seals: &seals}
		if err := w.check(); err != nil {
			return err
		}
	}
}

// keptAlways is how long the database keeps a month, whoever asks it to drop it (audit_drop_month).
const keptAlways = 2192 * 24 * time.Hour

// findPruned reads which months were pruned, as the trail says: in rows that are genuine, and not before their time.
func (v *verifier) findPruned() error {
	rows, err := v.q.ListAuditPrunes(v.ctx, string(AuditPrune))
	if err != nil {
		return err
	}
	for _, row := range rows {
		if v.judge(row) != genuine {
			continue // the walk through the rows says so
		}
		for _, text := range row.ResourceIDs {
			month, err := time.Parse(monthFormat, text)
			if err != nil {
				return fmt.Errorf("the trail says that %q was pruned, which is no month", text)
			}
			end := month.AddDate(0, 1, 0)
			if row.RecordedAt.Sub(end) >= keptAlways && end.After(v.report.PrunedBefore) {
				v.report.PrunedBefore = end
			}
		}
	}
	return nil
}

// verdict says what a row's code tells of it.
type verdict int

const (
	genuine verdict = iota
	forged          // it is not as it was written
	keyless         // the keyring lacks the key that the row names
)

func (v *verifier) judge(row db.AuditEvent) verdict {
	ok, err := row.Genuine(v.keys)
	switch {
	case ok:
		return genuine
	case err == nil:
		return forged
	}
	for _, key := range v.keys.Keys() { // was only the name of the key changed?
		row.KeyID = key.ID
		if ok, err := row.Genuine(v.keys); ok && err == nil {
			return forged
		}
	}
	return keyless
}

// writerCheck walks through one writer's rows.
type writerCheck struct {
	*verifier
	writer uuid.UUID
	rows   *stream[db.AuditEvent]
	seals  *stream[db.AuditSeal]

	last int64          // the number of the row before
	row  *db.AuditEvent // that row, if it is there and genuine
	at   time.Time      // when the last row that is there was written
	seal *db.AuditSeal  // the last one that was read
	gaps []gap          // before a row that may have been added: perhaps they never had a row
}

// gap is numbers without a row and without a seal.
type gap struct {
	from, to int64
	at       time.Time
}

func (w *writerCheck) check() error {
	for {
		same, err := w.nextRows()
		if err != nil {
			return err
		}
		if len(same) == 0 {
			break
		}
		if err := w.checkNumber(same); err != nil {
			return err
		}
	}

	for { // what is sealed and has no row any more
		sealed, err := w.sealOf(w.last + 1)
		if err != nil {
			return err
		}
		if !sealed && (w.seal == nil || w.seal.FirstSequence <= w.last) {
			return nil
		}
		if err := w.skipTo(w.seal.LastSequence); err != nil {
			return err
		}
	}
}

// nextRows takes the writer's next row, and all others that have its number.
func (w *writerCheck) nextRows() (same []db.AuditEvent, err error) {
	for {
		row, ok, err := w.rows.peek()
		if err != nil {
			return nil, err
		}
		if !ok || row.Writer != w.writer || len(same) > 0 && row.Sequence != same[0].Sequence {
			return same, nil
		}
		w.rows.next()
		same = append(same, row)
	}
}

// checkNumber checks the rows that have one number, of which all but one were added.
func (w *writerCheck) checkNumber(same []db.AuditEvent) error {
	w.report.Rows += int64(len(same))
	number := same[0].Sequence
	if number < 1 {
		for _, row := range same {
			w.report.find(nameOf(row), "added: numbers begin with 1")
		}
		return nil
	}
	if err := w.skipTo(number - 1); err != nil {
		return err
	}
	sealed, err := w.sealOf(number)
	if err != nil {
		return err
	}

	chosen := 0
	if len(same) > 1 {
		chosen = w.choose(same, sealed)
	}
	w.checkRow(same[chosen], sealed)
	return nil
}

// choose returns which of the rows with one number is the one that was written, and reports the others.
func (w *writerCheck) choose(same []db.AuditEvent, sealed bool) (chosen int) {
	best := -1
	for i, row := range same {
		rank := 0
		if sealed && w.fits(row) {
			rank += 2
		}
		if w.judge(row) == genuine {
			rank++
		}
		if rank > best {
			chosen, best = i, rank
		}
	}
	for i, row := range same {
		if i != chosen {
			w.report.find(nameOf(row), "added: there is another row with this number")
		}
	}
	return chosen
}

// fits reports whether the row is as it was sealed.
func (w *writerCheck) fits(row db.AuditEvent) bool {
	digest := row.Digest()
	return bytes.Equal(digest[:], digestIn(*w.seal, row.Sequence))
}

func nameOf(row db.AuditEvent) *Row { return &Row{row.Writer, row.Sequence, row.RecordedAt} }

func (w *writerCheck) checkRow(row db.AuditEvent, sealed bool) {
	switch {
	case sealed:
		w.report.Sealed++
	case w.report.OldestUnsealed.IsZero() || row.RecordedAt.Before(w.report.OldestUnsealed):
		w.report.OldestUnsealed = row.RecordedAt
	}

	before := w.row
	w.last, w.row, w.at = row.Sequence, nil, row.RecordedAt
	said, fits := w.judge(row), sealed && w.fits(row)

	if said == genuine || sealed && !fits { // its number was given out
		w.reportGaps()
	}
	switch {
	case said == genuine && sealed && !fits:
		w.report.find(nameOf(row), "not as it was sealed, and yet its code is right: its seal was changed, or somebody who has the keyring has "+
			"changed the row")
	case said == keyless && (fits || !sealed):
		w.withoutKey(row)
	case said != genuine && sealed && !fits:
		w.report.find(nameOf(row), "changed, or moved here from another place")
	case said == forged && len(w.gaps) > 0:
		w.report.find(nameOf(row), "added, changed, or moved here from another place; numbers before it have no row, from %d on", w.gaps[0].from)
	case said == forged:
		w.report.find(nameOf(row), "changed, moved here from another place, or added")
	}
	if said != genuine {
		return
	}
	if before != nil && !bytes.Equal(row.CodeBefore, before.Code) {
		w.report.find(nameOf(*before), "not the row that was there when the writer wrote its next one")
	}
	w.row = &row
}

// withoutKey names a row whose key is missing, up to a number that shows which they are.
func (w *writerCheck) withoutKey(row db.AuditEvent) {
	if w.keyless++; w.keyless <= mostNamed {
		w.report.find(nameOf(row), "cannot be checked, because the keyring lacks the key %q: give KEYRING_FILE a copy that has it; if there "+
			"never was such a key, the row was changed", row.KeyID)
	}
}

// mostNamed is how many findings of one kind in a row are named one by one.
const mostNamed = 10_000

// skipTo goes on through numbers that have no row. What was sealed was removed, if it was not pruned. Of what was not sealed
// the next row tells.
func (w *writerCheck) skipTo(through int64) error {
	for w.last < through {
		sealed, err := w.sealOf(w.last + 1)
		if err != nil {
			return err
		}
		w.row = nil
		if sealed {
			w.last++
			if !w.seal.RecordedTo.Before(w.report.PrunedBefore) {
				w.reportGaps()
				w.report.find(&Row{w.writer, w.last, w.seal.RecordedFrom}, "removed")
			}
			continue
		}
		to := through
		if w.seal != nil && w.seal.FirstSequence > w.last+1 {
			to = min(through, w.seal.FirstSequence-1)
		}
		w.gaps = append(w.gaps, gap{w.last + 1, to, w.at})
		w.last = to
	}
	return nil
}

// reportGaps reports numbers as removed, of which it is now known that each had a row.
func (w *writerCheck) reportGaps() {
	for _, g := range w.gaps {
		named := min(g.to, g.from+mostNamed-1)
		for n := g.from; n <= named; n++ {
			w.report.find(&Row{w.writer, n, g.at}, "removed")
		}
		if named < g.to {
			w.report.find(&Row{w.writer, named + 1, g.at}, "removed, with all up to number %d", g.to)
		}
	}
	w.gaps = nil
}

// sealOf reads on to the seal of a row, and reports whether there is one. Afterwards w.seal is the first that ends with
// that row or later, or the writer's last.
func (w *writerCheck) sealOf(sequence int64) (bool, error) {
	for w.seal == nil || w.seal.LastSequence < sequence {
		next, ok, err := w.seals.peek()
		if err != nil {
			return false, err
		}
		if !ok || next.Writer != w.writer {
			return false, nil
		}
		w.seals.next()
		w.seal = &next
	}
	return digestIn(*w.seal, sequence) != nil, nil
}

// nextWriter returns the writer whose rows or seals come next in both streams.
func nextWriter(rows *stream[db.AuditEvent], seals *stream[db.AuditSeal]) (writer uuid.UUID, more bool, err error) {
	row, hasRow, err := rows.peek()
	if err != nil {
		return writer, false, err
	}
	seal, hasSeal, err := seals.peek()
	switch {
	case hasRow && (!hasSeal || bytes.Compare(row.Writer[:], seal.Writer[:]) <= 0):
		writer = row.Writer
	case hasSeal:
		writer = seal.Writer
	}
	return writer, hasRow || hasSeal, err
}

// stream reads a table batch by batch.
type stream[T any] struct {
	read  func(after T) ([]T, error) // the next batch; the zero value: the first
	after T
	batch []T
	ended bool
}

// peek returns the next row without taking it.
func (s *stream[T]) peek() (row T, ok bool, err error) {
	if len(s.batch) == 0 && !s.ended {
		if s.batch, err = s.read(s.after); err != nil {
			return row, false, err
		}
		s.ended = len(s.batch) == 0
	}
	if s.ended {
		return row, false, nil
	}
	return s.batch[0], true, nil
}

// next takes the row that peek returned.
func (s *stream[T]) next() { s.after, s.batch = s.batch[0], s.batch[1:] }
