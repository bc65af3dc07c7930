package audit

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
)

// sealEvery is how often new rows are sealed. Those of a process that dies before it can be removed without being
// noticed, if all of its rows since the last seal are.
const sealEvery = time.Minute

const (
	// sealBatch is how many rows a leaf has at most.
	sealBatch = 1000
	// longestTransaction bounds how late a row may appear after the time that it bears: the difference between two clocks
	// (AddAuditEvents allows five minutes), and a transaction's length.
	longestTransaction = 15 * time.Minute
	// lastSealTimeout is for the seal that a process makes when it ends.
	lastSealTimeout = 5 * time.Second
)

// Sealer appends new rows of the trail to the Merkle log. Every process runs one; they take turns.
type Sealer struct {
	Store        *db.Store
	Keys         *keyring.Keyring
	PracticeCode string
	// Checkpoints is a file to which signed checkpoints are appended, outside of the database; empty: they go to the log
	// only.
	Checkpoints string
	Logger      *slog.Logger
}

// Run seals every minute until ctx is done, and once more then, so that a process which ends in order leaves nothing
// unsealed.
func (s *Sealer) Run(ctx context.Context) {
	tick := time.NewTicker(sealEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.sealAndLog(ctx)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSealTimeout)
			defer cancel()
			s.sealAndLog(ctx)
			return
		}
	}
}

func (s *Sealer) sealAndLog(ctx context.Context) {
	_, err := s.Seal(ctx)
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, errChanged):
		s.Logger.ErrorContext(ctx, "the audit trail cannot be sealed any more", "error", err)
	default:
		s.Logger.WarnContext(ctx, "the audit trail could not be sealed, it is tried again in a minute", "error", db.Cause(err))
		s.Logger.DebugContext(ctx, "the audit trail could not be sealed", "error", err)
	}
}

// Seal seals all rows that are not sealed yet, unless another process is about it, and returns how many it sealed. Then it
// publishes the newest checkpoint, whoever has made it: a process may have died before it could.
func (s *Sealer) Seal(ctx context.Context) (rows int, err error) {
	err = s.Store.InTx(ctx, func(q *db.Queries) error {
		mine, err := q.LockAuditLog(ctx)
		if err != nil || !mine {
			return err
		}
		rows, err = s.sealIn(ctx, q)
		return err
	})
	if err != nil {
		rows = 0
	}
	return rows, errors.Join(err, s.publish(ctx, rows > 0))
}

func (s *Sealer) sealIn(ctx context.Context, q *db.Queries) (rows int, err error) {
	next, since, err := s.end(ctx, q)
	if err != nil {
		return 0, err
	}
	writers, err := q.ListAuditWritersToSeal(ctx, since)
	if err != nil || len(writers) == 0 {
		return 0, err
	}

	log := &hashes{ctx: ctx, q: q, added: map[int64]tlog.Hash{}}
	for _, w := range writers {
		for sealed := w.Sealed; sealed < w.Newest; {
			events, err := q.ListAuditEventsToSeal(ctx, db.ListAuditEventsToSealParams{
				Writer: w.Writer,
				Sealed: sealed,
				Batch:  sealBatch,
			})
			if err != nil {
				return 0, err
			}
			if len(events) == 0 {
				break
			}
			seal := sealOf(next, wholeSeal(events))
			if err := log.append(seal); err != nil {
				return 0, err
			}
			rows += int(seal.LastSequence - seal.FirstSequence + 1)
			sealed, next = seal.LastSequence, next+1
		}
	}
	if rows == 0 {
		return 0, nil
	}

	root, err := tlog.TreeHash(next, log)
	if err != nil {
		return 0, err
	}
	if err := log.store(); err != nil {
		return 0, err
	}
	point := Checkpoint{Origin: originOf(s.PracticeCode), Tree: tlog.Tree{N: next, Hash: root}}
	signed, keyID, err := point.sign(s.Keys)
	if err != nil {
		return 0, err
	}
	return rows, changed(q.AddAuditCheckpoint(ctx, db.AddAuditCheckpointParams{Size: next, Note: signed, KeyID: keyID}))
}

// end returns the number of the next leaf, and since when there may be rows that are not sealed.
func (s *Sealer) end(ctx context.Context, q *db.Queries) (next int64, since time.Time, err error) {
	newest, err := q.NewestAuditSeal(ctx)
	if db.IsNotFound(err) {
		return 0, time.Time{}, nil
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	return newest.Leaf + 1, newest.SealedAt.Add(-longestTransaction), nil
}
