package audit

import (
	"maps"
	"sync"
	"time"
)

// Window is for how long equal refusals, and automatic refreshes of one view, are one row.
const Window = 5 * time.Minute

// Recent remembers for [Window] which rows were written, as texts that say what makes two of them equal. Its memory is
// bounded.
type Recent struct {
	most int

	mu    sync.Mutex
	until map[string]time.Time
	swept time.Time
}

// sweepEvery is how often room is looked for at most, because that looks at all rows.
const sweepEvery = 10 * time.Second

// NewRecent returns one that remembers so many rows.
func NewRecent(most int) *Recent { return &Recent{most: most, until: map[string]time.Time{}} }

// Has reports whether such a row was written.
func (r *Recent) Has(row string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.until[row])
}

// Add remembers a row, unless there is no room.
func (r *Recent) Add(row string) { r.claim(row) }

// claimed is what became of a row that somebody wants to write.
type claimed int

const (
	mine  claimed = iota // it was not written lately, and the caller is to write it
	known                // it was written lately, or somebody does so now
	full                 // so many others were written lately that this one cannot be remembered
)

// claim finds out whether a row is to be written, and remembers it. Of two callers at the same moment one is to write
// it.
func (r *Recent) claim(row string) claimed {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.until[row]) {
		return known
	}

	delete(r.until, row)
	if len(r.until) >= r.most && now.Sub(r.swept) >= sweepEvery {
		r.swept = now
		maps.DeleteFunc(r.until, func(_ string, until time.Time) bool { return !now.Before(until) })
	}
	if len(r.until) >= r.most {
		return full
	}
	r.until[row] = now.Add(Window)
	return mine
}

// forgetIn has a row forgotten sooner, because it could not be written.
func (r *Recent) forgetIn(row string, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until[row] = time.Now().Add(d)
}
