package sandbox_test

import (
	"testing"
	"time"
)

func TestStoreAgainStoresInBothWaysOfWriting(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.createOnce(token, weight("w"), "w")
	r.fault(`{"kind": "store_again", "count": 3}`)

	if a := r.createOnce(token, weight("w"), "w"); a.status != 201 || r.stored("w") != 2 {
		t.Errorf("a create: got %d %s", a.status, a.text)
	}

	for stored, condition := range map[int]string{3: "w", 4: ""} {
		a := r.transact(token, bundle(weight("w"), condition))
		if a.entryStatus() != "1" || a.str("entry", 0, "response", "location") == "" {
			t.Errorf("a Bundle on the way to %d: got %d %s", stored, a.status, a.text)
		}
	}

	if a := r.fhirGet(token, "/Observation?identifier="+idSystem+"|w"); a.num("total") != 4 {
		t.Errorf("the search by identifier: %s", a.text)
	}
	if a := r.createOnce(token, weight("w"), "w"); a.status != 412 {
		t.Errorf("after the fault: got %d", a.status)
	}
}

func TestLateIndexHidesFromSearches(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "late_index", "delay": "10s"}`)
	created := r.createOnce(token, weight("w"), "w")
	if created.status != 201 {
		t.Fatalf("got %d %s", created.status, created.text)
	}

	found := func() [2]int {
		return [2]int{
			r.fhirGet(token, "/Observation?identifier="+idSystem+"|w").num("total"),
			r.fhirGet(token, "/Observation?patient="+patientID).num("total"),
		}
	}

	r.clock.advance(10*time.Second - time.Millisecond)
	if got := found(); got != [2]int{} {
		t.Errorf("searches find it too early: %v", got)
	}
	if a := r.fhirGet(token, "/Observation/"+created.str("id")); a.status != 200 {
		t.Errorf("by its id: got %d", a.status)
	}

	r.clock.advance(time.Millisecond)
	if got := found(); got != [2]int{1, 1} {
		t.Errorf("searches find %v after the delay", got)
	}
	if a := r.createOnce(token, weight("w"), "w"); a.status != 200 {
		t.Errorf("the condition after the delay: got %d", a.status)
	}
}

// TestLateIndexHidesFromTheChecksOfACreate: an Observation that is not indexed yet does not prevent a second
// one.
func TestLateIndexHidesFromTheChecksOfACreate(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.fault(`{"kind": "late_index", "delay": "10s", "count": 4}`)

	for range 2 {
		if a := r.createOnce(token, weight("w"), "w"); a.status != 201 {
			t.Errorf("a create: got %d %s", a.status, a.text)
		}
	}

	for _, condition := range []string{"w", ""} {
		if a := r.transact(token, bundle(weight("w"), condition)); a.entryStatus() != "1" {
			t.Errorf("a Bundle: got %s", a.text)
		}
	}

	if n := r.stored("w"); n != 4 {
		t.Errorf("stored %d", n)
	}
}

func TestTheSandboxHasItsOwnClock(t *testing.T) {
	t.Parallel()
	r := start(t) // on 6 February 2026, at 10:30:15
	a := r.fhirGet(r.token(allScopes), "/metadata")
	if got := a.header.Get("Date"); got != "Fri, 06 Feb 2026 10:30:15 GMT" {
		t.Errorf("the header Date is %q", got)
	}
}
