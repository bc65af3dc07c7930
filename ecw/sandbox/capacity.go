package sandbox

import (
	"container/heap"
	"math"
	"sync"
	"time"
)

// capacity is the work that a server can do, shared equally by the requests under way (processor sharing):
// each of n requests advances at 1/n of full speed, even if its client has gone. It runs on the real clock,
// because requests wait for it.
type capacity struct {
	mu     sync.Mutex
	shared sharing
	timer  *time.Timer // fires when the next request is done
	closed bool
}

func newCapacity() *capacity {
	c := &capacity{}
	c.timer = time.AfterFunc(time.Hour, c.proceed)
	c.timer.Stop() // until there is work
	return c
}

// use returns when the server has done that much work for the caller, or when all requests are released.
func (c *capacity) use(work time.Duration) {
	if done := c.enter(work); done != nil {
		<-done
	}
}

func (c *capacity) enter(work time.Duration) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	done := c.shared.enter(time.Now(), work)
	c.rearm()
	return done
}

// proceed ends the requests whose work is done.
func (c *capacity) proceed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shared.advance(time.Now())
	c.rearm()
}

// rearm sets the timer to the end of the next request. If the timer has fired already and proceed waits for
// the lock, proceed finds nothing to do.
func (c *capacity) rearm() {
	if left, busy := c.shared.next(); busy {
		c.timer.Reset(left)
	} else {
		c.timer.Stop()
	}
}

// release ends all requests under way.
func (c *capacity) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shared.release(time.Now())
	c.timer.Stop()
}

// close releases all requests, and from then on use does not wait.
func (c *capacity) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.release()
}

// busy is how long there was work since the start or the last call of forget. It equals the work done.
func (c *capacity) busy() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shared.advance(time.Now())
	c.rearm()
	return c.shared.busy
}

func (c *capacity) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shared.advance(time.Now())
	c.rearm()
	c.shared.busy = 0
}

// sharing is the arithmetic of a capacity. Its virtual time runs at 1/n of real time while n requests are
// under way, so it measures the work that each of them gets. A request is done when virtual time has advanced
// by the request's work since its arrival, however many other requests come and go meanwhile.
type sharing struct {
	under   shares
	virtual float64   // nanoseconds; a time.Duration would lose a fraction with every division
	at      time.Time // the real time of virtual
	busy    time.Duration
}

// share is a request under way.
type share struct {
	due  float64 // virtual time
	done chan struct{}
}

// enter adds a request. The channel is closed when its work is done.
func (s *sharing) enter(now time.Time, work time.Duration) <-chan struct{} {
	s.advance(now)
	done := make(chan struct{})
	heap.Push(&s.under, share{due: s.virtual + float64(work), done: done})
	return done
}

// advance does the work of the time that has passed, and ends the requests that are done. After each end the
// others advance faster.
func (s *sharing) advance(now time.Time) {
	for len(s.under) > 0 {
		passed := now.Sub(s.at)
		left, _ := s.next()
		if passed < left {
			s.virtual += float64(passed) / float64(len(s.under))
			s.busy += passed
			break
		}

		first := heap.Pop(&s.under).(share)
		close(first.done)
		s.virtual = first.due
		s.at = s.at.Add(left)
		s.busy += left
	}

	if len(s.under) == 0 {
		s.virtual = 0 // a float is most precise near zero
	}

	s.at = now
}

// next is how long it takes from the last advance until a request is done, if no other comes meanwhile.
func (s *sharing) next() (left time.Duration, busy bool) {
	if len(s.under) == 0 {
		return 0, false
	}
	return time.Duration(math.Ceil(max(0, s.under[0].due-s.virtual) * float64(len(s.under)))), true
}

func (s *sharing) release(now time.Time) {
	s.advance(now)
	for _, one := range s.under {
		close(one.done)
	}
	s.under, s.virtual = nil, 0
}

// shares is a heap whose first element is done first.
type shares []share

func (s shares) Len() int           { return len(s) }
func (s shares) Less(i, j int) bool { return s[i].due < s[j].due }
func (s shares) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *shares) Push(x any)        { *s = append(*s, x.(share)) }

func (s *shares) Pop() any {
	last := len(*s) - 1
	popped := (*s)[last]
	*s = (*s)[:last]
	return popped
}
