package main

import (
	"context"
	"errors"
	"log/slog"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/vantrexia/vantrexia/worker"
)

// fitMemory makes the process fit the memory that it may use, GOMEMLIMIT or nine tenths of its container's limit: the
// garbage collector works harder before the kernel would end the process, and waiting workflows are kept as far as there is
// room.
func fitMemory(ctx context.Context, log *slog.Logger) {
	limit, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrCgroupsNotSupported) && !errors.Is(err, memlimit.ErrNoCgroup) {
		log.WarnContext(ctx, "the memory limit could not be read; set GOMEMLIMIT", "error", err)
	}
	cached := worker.CacheSize(limit)
	worker.SetCacheSize(cached)
	known := slog.Int64("limit_mib", limit>>20)
	if limit == math.MaxInt64 {
		known = slog.String("limit", "none")
	}
	log.InfoContext(ctx, "memory", known, "cached_workflows", cached)
}
