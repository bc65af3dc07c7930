package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
)

// checkCheckpoints returns an error when the sealer could not write to AUDIT_CHECKPOINTS_FILE, and warns of a practice that
// has none.
func (c config) checkCheckpoints(log *slog.Logger) error {
	if c.CheckpointsFile == "" {
		if ecw.Environment(c.ECW.Environment) == ecw.Production {
			log.Warn("the signed checkpoints of the audit trail are in the database and in this log only: have the log kept on another " +
				"machine, or set AUDIT_CHECKPOINTS_FILE")
		}
		return nil
	}

	file, err := os.OpenFile(c.CheckpointsFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("AUDIT_CHECKPOINTS_FILE: %w: name a file in a directory that exists, and that this account may write to", err)
	}
	return file.Close()
}

// sealTrail seals the audit trail until ctx ends, and once more then: it has to start before those that write to the trail, so
// that it ends after them.
func sealTrail(ctx context.Context, d dependencies) error {
	log := d.log.With("component", "audit")
	if _, err := d.store.AddAuditMonths(ctx, audit.MonthsAhead); err != nil && ctx.Err() == nil {
		log.WarnContext(ctx, "the audit trail got no room for the months to come, which the daily prune makes too", "error", db.Cause(err))
	}
	sealer := audit.Sealer{
		Store:        d.store,
		Keys:         d.keys,
		PracticeCode: d.cfg.ECW.PracticeCode,
		Checkpoints:  d.cfg.CheckpointsFile,
		Logger:       log,
	}
	sealer.Run(ctx)
	return nil
}
