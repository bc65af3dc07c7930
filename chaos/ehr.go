package main

import (
	"math/rand/v2"
	"strings"
)

// fault is the body of the sandbox's POST /admin/faults; it lasts for a number of requests or for a time.
type fault struct {
	Kind       string `json:"kind"`
	Target     string `json:"target"`
	Count      int    `json:"count,omitempty"`
	For        string `json:"for,omitempty"`
	Delay      string `json:"delay,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
	Location   string `json:"location,omitempty"`
	Number     string `json:"number,omitempty"`
}

// ehr is what kind of EHR a run has from its beginning to its end.
type ehr struct {
	WriteMode string // ECW_WRITE_MODE
	Habits    []fault
}

const (
	writeObservation = "observation"
	writeBundle      = "bundle"
)

// newEHR chooses one of those with which delivery exactly once is promised. "" is an EHR that does as FHIR asks.
func newEHR(random *rand.Rand) ehr {
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	e := ehr{WriteMode: one(writeObservation, writeBundle)}
	if kind := one("", "ignore_if_none_exist", "reject_if_none_exist"); kind != "" {
		e.Habits = append(e.Habits, fault{Kind: kind, Target: "create", For: "24h"})
	}
	if kind := one("", "refuse_identifier", "ignore_identifier", "strict_search"); kind != "" {
		e.Habits = append(e.Habits, fault{Kind: kind, Target: "search", For: "24h"})
	}
	return e
}

func (e ehr) String() string {
	said := []string{"write mode " + e.WriteMode}
	for _, habit := range e.Habits {
		said = append(said, habit.Kind)
	}
	return strings.Join(said, ", ")
}

// recognisesRepeats tells whether it stores an identifier once, however often it is asked to. Another kind relies on our
// look-up, which cannot see what it stores after that.
func (e ehr) recognisesRepeats() bool {
	return e.WriteMode == writeBundle || len(e.Habits) == 0 || e.Habits[0].Target != "create"
}

// passing are the faults that go by within seconds, for a number of requests where they have a count.
func passing(e ehr) []fault {
	kinds := []fault{
		{Kind: "reset_before", Target: "any"},
		{Kind: "reset_after", Target: "create"},
		{Kind: "reset_after", Target: "any"},
		{Kind: "slow_after", Target: "create", Delay: "4s"}, // longer than ECW_TIMEOUT
		{Kind: "slow_after", Target: "any", Delay: "4s", Count: 2},

		{Kind: "error_503", Target: "any"},
		{Kind: "error_503", Target: "create", RetryAfter: "2s"},
		{Kind: "error_500", Target: "create"},
		{Kind: "error_500", Target: "any"},
		{Kind: "error_502", Target: "any"},
		{Kind: "error_504", Target: "create"},
		{Kind: "token_down", Target: "token"},
		{Kind: "access_denied", Target: "token"},

		{Kind: "throttle", Target: "any", Count: 1, RetryAfter: "2s"},
		{Kind: "throttle", Target: "token", Count: 1, RetryAfter: "1s"},

		{Kind: "unauthorized", Target: "create", Count: 1},
		{Kind: "unauthorized", Target: "any", Count: 2},
		{Kind: "unauthorized", Target: "token"},
		{Kind: "narrow_scope", Target: "token"},
		{Kind: "forbidden", Target: "create", Count: 1},
		{Kind: "forbidden", Target: "create"},

		{Kind: "no_id", Target: "create"},
		{Kind: "duplicate", Target: "create", Count: 2},
		{Kind: "truncated", Target: "create"},
		{Kind: "truncated", Target: "search"},
		{Kind: "malformed_json", Target: "any"},
		{Kind: "wrong_type", Target: "create"},
		{Kind: "large_body", Target: "create", Count: 2},
		{Kind: "html", Target: "any"},
		{Kind: "redirect", Target: "create", Location: "http://192.0.2.1/elsewhere"}, // TEST-NET-1 (RFC 5737): nobody is there
		{Kind: "no_expires_in", Target: "token", Count: 1},
		{Kind: "ecw_number", Target: "create", Number: "2", Count: 2},
		{Kind: "ecw_number", Target: "create", Number: "613", Count: 1}, // these readings fail, truthfully
	}
	if e.recognisesRepeats() {
		kinds = append(kinds,
			fault{Kind: "slow", Target: "create", Delay: "4s"}, // stored after we gave up
			fault{Kind: "empty_search", Target: "search"})      // and found later still
	}
	return kinds
}

// lasting are outages, and a block until the top of the minute.
func lasting() []fault {
	return []fault{
		{Kind: "reset_before", Target: "any"},
		{Kind: "error_503", Target: "any"},
		{Kind: "forbidden", Target: "create"},
		{Kind: "throttle", Target: "any", Count: 1},
	}
}
