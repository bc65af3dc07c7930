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

// findPruned reads which months were pruned, as the trail says.
func (v *verifier) findPruned() error {
	months, err := v.q.ListAuditPrunedMonths(v.ctx, string(AuditPrune))
	if err != nil {
		return err
	}
	for _, text := range months {
		month, err := time.Parse(monthFormat, text)
		if err != nil {
			return fmt.Errorf("the trail says that %q was pruned, which is no month", text)
		}
		if end := month.AddDate(0, 1, 0); end.After(v.report.PrunedBefore) {
			v.report.PrunedBefore = end
		}
	}
	return nil
}

// monthFormat is how a pruned month is named.
const monthFormat = "2006-01"

// MonthName is how [AuditPrune] names a month of the trail.
func MonthName(month time.Time) string { return month.UTC().Format(monthFormat) }

// writerCheck walks through one writer's rows.
type writerCheck struct {
	*verifier
	writer uuid.UUID
	rows   *stream[db.AuditEvent]
	seals  *stream[db.AuditSeal]

	last int64         // the sequence of the row before
	code []byte        // its code; nil before the first row
	lost bool          // the code of the row before is unknown: it is missing, or was changed
	seen bool          // a row was there: what is missing from now on was not pruned
	at   time.Time     // when the row before was written
	seal *db.AuditSeal // the last one that was read
}

func (w *writerCheck) check() error {
	for {
		row, ok, err := w.rows.peek()
		if err != nil {
			return err
		}
		if !ok || row.Writer != w.writer {
			break
		}
		w.rows.next()
		if err := w.row(row); err != nil {
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
		if err := w.missing(w.seal.LastSequence); err != nil {
			return err
		}
	}
}

func (w *writerCheck) row(row db.AuditEvent) error {
	name := &Row{row.Writer, row.Sequence, row.RecordedAt}
	w.report.Rows++
	if row.Sequence == w.last {
		w.report.find(name, "added: there is another row with this number")
		return nil
	}
	w.at = row.RecordedAt
	if err := w.missing(row.Sequence - 1); err != nil {
		return err
	}
	sealed, err := w.sealOf(row.Sequence)
	if err != nil {
		return err
	}
	before, lost := w.code, w.lost
	w.last, w.code, w.lost, w.seen = row.Sequence, row.Code, false, true

	switch {
	case sealed:
		w.report.Sealed++
		if row.Digest() != digestOf(*w.seal, row.Sequence) {
			w.report.find(name, "changed, or moved here from another place")
			w.lost = true // so that the row after it is not blamed
			return nil
		}
	case w.report.OldestUnsealed.IsZero() || row.RecordedAt.Before(w.report.OldestUnsealed):
		w.report.OldestUnsealed = row.RecordedAt
	}
	if lost {
		if !sealed {
			w.report.find(name, "cannot be checked, because the row before it is not as it was")
		}
		return nil
	}

	genuine, err := row.Genuine(w.keys, before)
	if err != nil {
		return fmt.Errorf("%s: %w: give KEYRING_FILE a copy that has it", name, err)
	}
	if !genuine {
		w.report.find(name, "changed, or moved here from another place")
		w.lost = !sealed
	}
	return nil
}

// mostNamed is how many missing rows in a row are named one by one.
const mostNamed = 10_000

// missing reports the rows from the last one through the given sequence as removed, if there are any and they were not
// pruned.
func (w *writerCheck) missing(through int64) error {
	for named := 0; w.last < through; {
		sealed, err := w.sealOf(w.last + 1)
		if err != nil {
			return err
		}
		w.last++
		w.lost = true
		name := &Row{w.writer, w.last, w.at}
		if sealed {
			name.RecordedAt = w.seal.RecordedFrom
			if !w.seen && w.seal.RecordedFrom.Before(w.report.PrunedBefore) {
				continue
			}
		}
		if named++; named > mostNamed {
			w.report.find(name, "removed, with all %d rows up to number %d", through-w.last+1, through)
			w.last = through
			return nil
		}
		w.report.find(name, "removed")
	}
	return nil
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
	return w.seal.FirstSequence <= sequence, nil
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
