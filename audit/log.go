package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vantrexia/vantrexia/db"
)

// leaf is what the Merkle log holds of a seal: whose rows they are, which, and the digest of each.
func leaf(s db.AuditSeal) []byte {
	b := []byte("audit seal")
	b = append(b, s.Writer[:]...)
	for _, n := range []int64{s.FirstSequence, s.LastSequence, s.RecordedFrom.UnixMicro(), s.RecordedTo.UnixMicro()} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, s.Digests...)
}

// sealOf makes the seal of rows of one writer, in the order of their sequence.
func sealOf(n int64, rows []db.AuditEvent) db.AuditSeal {
	first, last := rows[0], rows[len(rows)-1]
	seal := db.AuditSeal{
		Leaf:          n,
		Writer:        first.Writer,
		FirstSequence: first.Sequence,
		LastSequence:  last.Sequence,
		RecordedFrom:  first.RecordedAt,
		RecordedTo:    first.RecordedAt,
	}
	for _, row := range rows { // a clock may have been set back between two rows
		if row.RecordedAt.Before(seal.RecordedFrom) {
			seal.RecordedFrom = row.RecordedAt
		}
		if row.RecordedAt.After(seal.RecordedTo) {
			seal.RecordedTo = row.RecordedAt
		}
		digest := row.Digest()
		seal.Digests = append(seal.Digests, digest[:]...)
	}
	return seal
}

// digestIn returns the digest of a row in its seal; nil when somebody has cut it off.
func digestIn(s db.AuditSeal, sequence int64) []byte {
	at := (sequence - s.FirstSequence) * sha256.Size
	if at < 0 || at+sha256.Size > int64(len(s.Digests)) {
		return nil
	}
	return s.Digests[at : at+sha256.Size]
}

// wholeSeal returns the rows at the beginning that one seal takes: none is missing between them, so that [Verify] names the
// one that is, and all are of one month, so that a month which is pruned takes whole seals.
func wholeSeal(events []db.AuditEvent) []db.AuditEvent {
	for i := 1; i < len(events); i++ {
		before, e := events[i-1], events[i]
		if e.Sequence != before.Sequence+1 || MonthName(e.RecordedAt) != MonthName(before.RecordedAt) {
			return events[:i]
		}
	}
	return events
}

// MonthName is how [AuditPrune] names a month of the trail.
func MonthName(month time.Time) string { return month.UTC().Format(monthFormat) }

const monthFormat = "2006-01"

// errChanged means that the log in the database is not as the sealer has left it.
var errChanged = errors.New("the log of the audit trail was changed: run `vantrexia audit verify`")

// hashes reads the stored hashes of the log in a transaction, and remembers those that it adds.
type hashes struct {
	ctx   context.Context
	q     *db.Queries
	added map[int64]tlog.Hash
}

// ReadHashes implements [tlog.HashReader].
func (h *hashes) ReadHashes(positions []int64) ([]tlog.Hash, error) {
	found := map[int64]tlog.Hash{}
	var stored []int64
	for _, p := range positions {
		if hash, ok := h.added[p]; ok {
			found[p] = hash
		} else {
			stored = append(stored, p)
		}
	}
	if len(stored) > 0 {
		rows, err := h.q.ListAuditHashes(h.ctx, stored)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			found[row.Position] = hashOf(row)
		}
	}

	list := make([]tlog.Hash, len(positions))
	for i, p := range positions {
		hash, ok := found[p]
		if !ok {
			return nil, fmt.Errorf("%w: it lacks the hash %d", errChanged, p)
		}
		list[i] = hash
	}
	return list, nil
}

// hashOf returns a stored hash; one that somebody has cut is zero.
func hashOf(row db.AuditHash) (h tlog.Hash) {
	if len(row.Hash) == len(h) {
		copy(h[:], row.Hash)
	}
	return h
}

// append adds a seal as the next leaf.
func (h *hashes) append(seal db.AuditSeal) error {
	err := h.q.AddAuditSeal(h.ctx, db.AddAuditSealParams{
		Leaf:          seal.Leaf,
		Writer:        seal.Writer,
		FirstSequence: seal.FirstSequence,
		LastSequence:  seal.LastSequence,
		RecordedFrom:  seal.RecordedFrom,
		RecordedTo:    seal.RecordedTo,
		Digests:       seal.Digests,
	})
	if err != nil {
		return changed(err)
	}
	made, err := tlog.StoredHashes(seal.Leaf, leaf(seal), h)
	if err != nil {
		return err
	}
	at := tlog.StoredHashIndex(0, seal.Leaf)
	for i, hash := range made {
		h.added[at+int64(i)] = hash
	}
	return nil
}

// store writes the hashes of what was appended.
func (h *hashes) store() error {
	var rows db.AddAuditHashesParams
	for position, hash := range h.added {
		rows.Positions = append(rows.Positions, position)
		rows.Hashes = append(rows.Hashes, hash[:])
	}
	return changed(h.q.AddAuditHashes(h.ctx, rows))
}

// changed explains the error of a place in the log that is taken already: what stood before it was removed.
func changed(err error) error {
	if db.IsUniqueViolation(err) {
		return fmt.Errorf("%w: parts of it were removed (%w)", errChanged, err)
	}
	return err
}
