package sandbox_test

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// load is a number under "load" of GET /admin/stats.
func (r *rig) load(name string) float64 {
	r.t.Helper()
	n, _ := r.do("GET", "/admin/stats", "").get("load", name).(float64)
	return n
}

// until polls until holds returns true, and fails the test after some time.
func (r *rig) until(what string, holds func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestSharedCapacityIsNoQueue: a short request ends before a long one that began earlier; in a queue it could
// not.
func TestSharedCapacityIsNoQueue(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "shared_capacity", "work": "1h", "target": "read", "count": 1}`)
	long := make(chan answer, 1)
	go func() { long <- r.fhirGet(token, "/Patient/"+patientID) }()
	r.until("the long request is under way", func() bool { return r.load("in_flight") == 1 })

	r.fault(`{"kind": "shared_capacity", "work": "40ms", "target": "search"}`)
	begun := time.Now()
	if a := r.fhirGet(token, "/Patient"); a.status != 200 || time.Since(begun) < 80*time.Millisecond {
		t.Errorf("beside another request: got %d after %s, want 80 ms or more", a.status, time.Since(begun))
	}
	if r.load("in_flight") != 1 || r.load("most_in_flight") != 2 {
		t.Errorf("the long request is not under way: %s", r.do("GET", "/admin/stats", "").text)
	}

	if a := r.do("DELETE", "/admin/faults", ""); a.status != 204 {
		t.Fatalf("end of the faults: got %d", a.status)
	}
	if a := <-long; a.status != 200 {
		t.Errorf("the long request at the end of the faults: got %d %v", a.status, a.err)
	}
}

func TestSharedCapacityIsSharedByEverything(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "shared_capacity", "work": "10ms", "for": "1h"}`)
	const each = 20
	begun := time.Now()
	var all sync.WaitGroup

	for i := range each {
		all.Go(func() {
			if a := r.createOnce(token, weight(fmt.Sprint(i)), fmt.Sprint(i)); a.status != 201 {
				t.Errorf("create: got %d %v", a.status, a.err)
			}
		})

		all.Go(func() {
			if a := r.askToken(form(r.assertion(nil), allScopes)); a.status != 200 {
				t.Errorf("token: got %d %v", a.status, a.err)
			}
		})
	}

	all.Wait()
	if took := time.Since(begun); took < 2*each*10*time.Millisecond {
		t.Errorf("%d requests of 10 ms took %s together", 2*each, took)
	}
	if busy := r.load("busy_seconds"); busy < 0.399 || busy > 0.401 {
		t.Errorf("busy for %v s, want 0.4", busy)
	}

	if a := r.do("POST", "/admin/reset", ""); a.status != 204 || r.load("busy_seconds") != 0 || r.load("most_in_flight") != 0 {
		t.Errorf("after a reset: %s", r.do("GET", "/admin/stats", "").text)
	}
}

// TestSharedCapacityServesRequestsGivenUp: a request whose client gave up slows others down, and its
// Observation is stored.
func TestSharedCapacityServesRequestsGivenUp(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "shared_capacity", "work": "200ms", "for": "1h"}`)
	const gone = 5
	begun := time.Now()
	r.client.Timeout = 100 * time.Millisecond // enough for a busy machine to receive the request, too short for its work

	for i := range gone {
		if a := r.createOnce(token, weight(fmt.Sprint(i)), fmt.Sprint(i)); a.err == nil {
			t.Fatalf("got %d", a.status)
		}
	}

	r.client.Timeout = 0
	if a := r.fhirGet(token, "/Patient/"+patientID); a.status != 200 || time.Since(begun) < (gone+1)*200*time.Millisecond {
		t.Errorf("after %d that gave up: got %d %v at %s, want 1.2 s or more", gone, a.status, a.err, time.Since(begun))
	}

	r.until("everything is handled", func() bool { return r.load("in_flight") == 0 })
	for i := range gone {
		if n := r.stored(fmt.Sprint(i)); n != 1 {
			t.Errorf("create %d, whose client gave up: stored %d, want 1", i, n)
		}
	}
}

func TestSharedCapacityEndsWithTheServer(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rig) error{
		"reset": func(r *rig) error { return r.do("POST", "/admin/reset", "").err },
		"close": func(r *rig) error { return r.server.Close() },
	} {
		r := start(t)
		token := r.token(allScopes)
		r.fault(`{"kind": "shared_capacity", "work": "1h", "for": "1h"}`)
		var all sync.WaitGroup

		for range 3 {
			all.Go(func() {
				if a := r.fhirGet(token, "/metadata"); a.status != 200 {
					t.Errorf("%s: got %d %v", name, a.status, a.err)
				}
			})
		}

		r.until("all are under way", func() bool { return r.load("in_flight") == 3 })
		if err := end(r); err != nil {
			t.Error(err)
		}

		all.Wait()
	}
}

func TestSlowStartGetsFaster(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.fault(`{"kind": "slow_start", "delay": "2h", "for": "1h"}`)
	cold := make(chan answer, 1)
	go func() { cold <- r.fhirGet("", "/metadata") }()
	r.until("the cold request is under way", func() bool { return r.load("in_flight") == 1 })

	r.clock.advance(time.Hour - 20*time.Millisecond)
	begun := time.Now()
	if a := r.fhirGet("", "/metadata"); a.status != 200 || time.Since(begun) < 40*time.Millisecond {
		t.Errorf("20 ms before the end: got %d after %s, want 40 ms or more", a.status, time.Since(begun))
	}
	if r.load("in_flight") != 1 {
		t.Error("the cold request did not wait")
	}

	r.clock.advance(20 * time.Millisecond)
	if a := r.fhirGet("", "/metadata"); a.status != 200 || r.do("GET", "/admin/faults", "").get("faults", 0) != nil {
		t.Errorf("after the period: got %d, the fault is still there", a.status)
	}
	if err := r.server.Close(); err != nil {
		t.Fatal(err)
	}
	if a := <-cold; a.status != 200 {
		t.Errorf("the cold request at the end: got %d %v", a.status, a.err)
	}
}

// TestSlowStartIsWorkForASharedCapacity: requests of a slow start slow each other down.
func TestSlowStartIsWorkForASharedCapacity(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "shared_capacity", "work": "20ms", "target": "read", "for": "1h"}`)
	r.fault(`{"kind": "slow_start", "delay": "80ms", "target": "read", "for": "1h"}`)
	begun := time.Now()
	var all sync.WaitGroup

	for range 4 {
		all.Go(func() {
			if a := r.fhirGet(token, "/Patient/"+patientID); a.status != 200 {
				t.Errorf("got %d %v", a.status, a.err)
			}
		})
	}

	all.Wait()
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("four times 100 ms of work took %s", took)
	}
}

func TestMostInFlightIsCountedWithoutAFault(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	for range 3 {
		r.fhirGet(token, "/Patient/"+patientID)
	}
	if r.load("most_in_flight") != 1 || r.load("in_flight") != 0 || r.load("busy_seconds") != 0 {
		t.Errorf("one after the other: %s", r.do("GET", "/admin/stats", "").text)
	}
}
