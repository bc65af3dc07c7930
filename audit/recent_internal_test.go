package audit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestARowIsClaimedOnceInTheWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRecent(10)
		var first atomic.Int32
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if r.claim("row") == mine {
					first.Add(1)
				}
			})
		}
		group.Wait()
		if first.Load() != 1 {
			t.Errorf("%d are to write it", first.Load())
		}

		time.Sleep(Window - time.Second)
		if !r.Has("row") || r.claim("row") != known {
			t.Error("it is forgotten too early")
		}
		time.Sleep(time.Second)
		if r.Has("row") || r.claim("row") != mine {
			t.Error("it is remembered for too long")
		}

		r.forgetIn("row", time.Second)
		time.Sleep(time.Second)
		if r.claim("row") != mine {
			t.Error("one that could not be written is not tried again")
		}
	})
}

func TestTheMemoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRecent(10)
		for i := range 30 {
			if got, room := r.claim(fmt.Sprint(i)), i < 10; (got == mine) != room || (got == full) == room {
				t.Errorf("the %dth is %v", i, got)
			}
		}
		if len(r.until) != 10 {
			t.Errorf("%d are remembered", len(r.until))
		}

		time.Sleep(Window)
		if r.claim("30") != mine || len(r.until) != 1 {
			t.Errorf("after that there is no room: %d", len(r.until))
		}
	})
}
