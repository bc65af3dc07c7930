package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

// sealAgain is when sealing is tried again that another process does, or that the database has broken off.
const sealAgain = time.Minute

// SealClear seals what an earlier version stored in clear, beside the deliveries, until nothing is left or ctx
// ends. One worker does it; the others look from time to time whether it was lost.
func SealClear(ctx context.Context, store *db.Store, log *slog.Logger) {
	for {
		done, err := sealClear(ctx, store, log)
		switch {
		case done || ctx.Err() != nil:
			return
		case err != nil && !errors.Is(err, db.ErrSealing):
			log.WarnContext(ctx, "old rows are not all sealed yet, it is tried again in a minute", "cause", db.Cause(err))
			log.DebugContext(ctx, "old rows are not all sealed yet", "error", err)
		}

		select {
		case <-ctx.Done():
			return
		case <-time.After(sealAgain):
		}
	}
}

// sealClear reports whether nothing is left.
func sealClear(ctx context.Context, store *db.Store, log *slog.Logger) (done bool, err error) {
	rows, err := store.CountClear(ctx)
	if err != nil || rows == 0 {
		return err == nil, err
	}

	began := time.Now()
	sealed, err := store.SealClear(ctx, func(done, total int64) {
		if done == 0 {
			log.InfoContext(ctx, "old rows that stand in clear are sealed in the background", "rows", total)
		}
	})
	if err != nil {
		return false, err
	}
	log.InfoContext(ctx, "old rows are sealed", "rows", sealed, "duration_ms", time.Since(began).Milliseconds())
	return true, nil
}
