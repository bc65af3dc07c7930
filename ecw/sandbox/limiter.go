package sandbox

import (
	"sync"
	"time"
)

// limiter is eCW's limit on requests: a number in a clock minute, token and FHIR requests together. After the
// first request too many, all requests are refused until the next minute begins.
type limiter struct {
	mu           sync.Mutex
	perMinute    int // 0 = no limit
	minute       time.Time
	used         int
	blockedUntil time.Time
	seen         LimitStats
}

func (l *limiter) allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	if now.Before(l.blockedUntil) {
		return false
	}
	if minute := now.Truncate(time.Minute); !minute.Equal(l.minute) {
		l.minute, l.used = minute, 0
	}

	if l.perMinute > 0 && l.used >= l.perMinute {
		l.blockedUntil = l.minute.Add(time.Minute)
		l.seen.Exceeded++
		return false
	}

	l.used++
	l.seen.BusiestMinute = max(l.seen.BusiestMinute, l.used)
	return true
}

func (l *limiter) stats() LimitStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// block refuses all requests until that time.
func (l *limiter) block(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blockedUntil = until
}

func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.minute, l.used, l.blockedUntil, l.seen = time.Time{}, 0, time.Time{}, LimitStats{}
}
