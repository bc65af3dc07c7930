package worker_test

import (
	"math"
	"testing"

	"github.com/vantrexia/vantrexia/worker"
)

func TestCacheSizeFitsTheMemory(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for limit, want := range map[int64]int{
		0:                  500, // never so few that every step is a replay
		32 * mib:           500,
		128 * mib:          1024,
		512 * mib:          4096,
		512 * mib / 10 * 9: 3686, // what a container of 512 MiB leaves to Go
		1024 * mib:         8192,
		2048 * mib:         10_000,
		math.MaxInt64:      10_000, // no limit is known
	} {
		if got := worker.CacheSize(limit); got != want {
			t.Errorf("with %d MiB: %d workflows, want %d", limit/mib, got, want)
		}
	}
}
