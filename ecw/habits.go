package ecw

import (
	"sync"
	"time"
)

// rememberFor is how long a client goes by what it has found out about its server. A server that learns better meanwhile
// is asked again soon enough.
const rememberFor = time.Hour

// habits are what a client has found out about its server, so that it does not ask in vain with every reading: each
// request counts towards the practice's limit. It is safe for concurrent use.
type habits struct {
	now func() time.Time

	mu               sync.Mutex
	noConditionUntil time.Time
	findsUntil       time.Time
	contentUntil     time.Time
	form             searchForm
	formUntil        time.Time
	offset           offsetHabit
	offsetUntil      time.Time
}

// offsetHabit is what a server that gives no link to its next page does with an offset.
type offsetHabit int

const (
	unknownOffset offsetHabit = iota
	takesOffset
	ignoresOffset
)

// refusesConditions tells whether the server does not support conditional create.
func (h *habits) refusesConditions() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now().Before(h.noConditionUntil)
}

func (h *habits) noteRefusedCondition() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noConditionUntil = h.now().Add(rememberFor)
}

// findsByIdentifier tells whether the server has shown that it keeps our identifiers and finds by them. Only then a
// search that finds nothing says something.
func (h *habits) findsByIdentifier() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now().Before(h.findsUntil)
}

func (h *habits) noteFound() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.findsUntil = h.now().Add(rememberFor)
}

// cannotSearchByIdentifier tells whether the server has refused every form of that search, or ignored the identifier, and
// has taken the search for content.
func (h *habits) cannotSearchByIdentifier() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now().Before(h.contentUntil)
}

func (h *habits) noteNoIdentifierSearch() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.contentUntil = h.now().Add(rememberFor)
}

// firstForm is the first form of an identifier search that is worth trying.
func (h *habits) firstForm() searchForm {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now().Before(h.formUntil) {
		return h.form
	}
	return byIdentifierAlone
}

// noteForm remembers the form that was taken after simpler ones were refused.
func (h *habits) noteForm(form searchForm) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.form, h.formUntil = form, h.now().Add(rememberFor)
}

func (h *habits) offsets() offsetHabit {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now().Before(h.offsetUntil) {
		return h.offset
	}
	return unknownOffset
}

func (h *habits) noteOffsets(habit offsetHabit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.offset, h.offsetUntil = habit, h.now().Add(rememberFor)
}
