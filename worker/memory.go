package worker

import "go.temporal.io/sdk/worker"

const (
	// cachedBytes is what a waiting workflow takes in the cache, with its goroutines and its part of the garbage collector's
	// slack: 43 to 60 KiB were measured.
	cachedBytes = 64 << 10

	minCached = 500
	// maxCached is what a worker keeps however much memory there is: readings that are delivered at once need no cache, and
	// those that wait are replayed in a few milliseconds when they go on.
	maxCached = 1000
)

// CacheSize returns how many waiting workflows to keep in memory when the Go runtime may use limit bytes: as many as fit
// into half of it. One that is not kept costs no attempt and no delay that matters: it is replayed from its history when it
// goes on.
func CacheSize(limit int64) int {
	return int(min(max(limit/2/cachedBytes, minCached), maxCached))
}

// SetCacheSize is for all workers of the process, before the first of them starts.
func SetCacheSize(workflows int) { worker.SetStickyWorkflowCacheSize(workflows) }
