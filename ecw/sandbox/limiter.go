package sandbox

import (
	"sync"
	"time"
)

// limiter is eCW's limit on requests: a number in a clock minute, token and FHIR requests together, and after the first
// one too many nothing at all until the top of the next minute.
type limiter struct {
	mu           sync.Mutex
	perMinute    int // 0 = no limit
	minute       time.Time
	used         int
	blockedUntil time.Time
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
		return false
	}
	l.used++
	return true
}

// block refuses everything until that time.
func (l *limiter) block(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blockedUntil = until
}

func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.minute, l.used, l.blockedUntil = time.Time{}, 0, time.Time{}
}
