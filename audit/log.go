package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

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
func sealOf(n int64, rows []db.AuditEvent) db.AddAuditSealParams {
	first, last := rows[0], rows[len(rows)-1]
	seal := db.AddAuditSealParams{
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

// digestOf returns the digest of the row with that sequence.
func digestOf(s db.AuditSeal, sequence int64) [sha256.Size]byte {
	at := (sequence - s.FirstSequence) * sha256.Size
	return [sha256.Size]byte(s.Digests[at : at+sha256.Size])
}

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
			found[row.Position] = tlog.Hash(row.Hash)
		}
	}

	list := make([]tlog.Hash, len(positions))
	for i, p := range positions {
		hash, ok := found[p]
		if !ok {
			return nil, fmt.Errorf("the audit log lacks its hash %d: run `vantrexia audit verify`", p)
		}
		list[i] = hash
	}
	return list, nil
}

// add appends a leaf.
func (h *hashes) add(n int64, content []byte) error {
	made, err := tlog.StoredHashes(n, content, h)
	if err != nil {
		return err
	}
	at := tlog.StoredHashIndex(0, n)
	for i, hash := range made {
		h.added[at+int64(i)] = hash
	}
	return nil
}

// store writes what was added.
func (h *hashes) store() error {
	var rows db.AddAuditHashesParams
	for position, hash := range h.added {
		rows.Positions = append(rows.Positions, position)
		rows.Hashes = append(rows.Hashes, hash[:])
	}
	return h.q.AddAuditHashes(h.ctx, rows)
}
