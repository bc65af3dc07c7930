package account

import (
	"sync"
	"time"
)

// rememberFor is how long a process relies on what the database said of a key or a token. One that another
// process revokes is taken for that long at most; in exchange, a reading costs no look at the database for its
// caller.
const rememberFor = 5 * time.Second

// mostRemembered bounds the memory. When it is reached everything is forgotten, which costs a look each.
const mostRemembered = 10_000

// recent remembers keys or tokens that were good a moment ago. Those that were not are never in it. Nobody
// waits in it for the database: when that stalls, each request fails in its own time.
type recent[V any] struct {
	mu     sync.Mutex
	known  map[string]remembered[V]
	forgot time.Time // when something was forgotten last
}

type remembered[V any] struct {
	value V
	until time.Time
}

func newRecent[V any]() *recent[V] {
	return &recent[V]{known: map[string]remembered[V]{}}
}

func (r *recent[V]) get(key string) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.known[key]
	return found.value, ok && time.Now().Before(found.until)
}

// put remembers a value that the database was asked for at that moment, unless something was forgotten since: the
// answer may be from before that.
func (r *recent[V]) put(key string, value V, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if asked.Before(r.forgot) {
		return
	}
	if len(r.known) >= mostRemembered {
		clear(r.known)
	}
	r.known[key] = remembered[V]{value: value, until: asked.Add(rememberFor)}
}

func (r *recent[V]) forget(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, key)
	r.forgot = time.Now()
}
