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
		0:             500, // never so few that every step is a replay
		32 * mib:      500,
		100 * mib:     800,
		128 * mib:     1000,
		512 * mib:     1000,
		math.MaxInt64: 1000, // no limit is known
	} {
		if got := worker.CacheSize(limit); got != want {
			t.Errorf("with %d MiB: %d workflows, want %d", limit/mib, got, want)
		}
	}
}
