package ecw

import (
	"sync"
	"time"
)

// rememberFor is how long a client relies on what it has learned about its server. After that it tries again,
// because the server may have changed.
const rememberFor = time.Hour

// habits are what a client has learned about its server. Without them each reading would cost requests that
// the server is known to refuse, and every request counts towards the practice's limit.
type habits struct {
	// refusesConditions: the server does not support conditional create.
	refusesConditions habit[bool]
	// findsByIdentifier: a search has found an Observation by our identifier. From then on a search that finds
	// nothing is evidence that the Observation is absent; a server that drops identifiers never finds any.
	findsByIdentifier habit[bool]
	// searchesByContentOnly: the server has refused every form of the search by identifier, or ignored the
	// identifier, and has accepted the search by content.
	searchesByContentOnly habit[bool]
	// form is the first form of the search by identifier that is worth trying; the simpler ones were refused.
	form habit[searchForm]
	// refusesPatientLists: the server refuses a search for patients by a list of ids, or ignores the list.
	refusesPatientLists habit[bool]
	// offset is what the server does with an offset, if it gives no link to its next page.
	offset habit[offsetHabit]
}

// offsetHabit is what a server that gives no link to its next page does with an offset.
type offsetHabit int

const (
	unknownOffset offsetHabit = iota
	takesOffset
	ignoresOffset
)

// habit is one thing learned about the server: the zero T until it is learned, and again after [rememberFor].
// It is safe for concurrent use.
type habit[T any] struct {
	mu    sync.Mutex
	value T
	until time.Time
}

func (h *habit[T]) get(now time.Time) T {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.until) {
		return h.value
	}
	var none T
	return none
}

func (h *habit[T]) learn(value T, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.value, h.until = value, now.Add(rememberFor)
}
