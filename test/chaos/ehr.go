package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// fault is the body of the sandbox's POST /admin/faults; it lasts for a number of requests or for a time.
type fault struct {
	Kind       string `json:"kind"`
	Target     string `json:"target"`
	Count      int    `json:"count,omitempty"`
	For        string `json:"for,omitempty"`
	Delay      string `json:"delay,omitempty"`
	Work       string `json:"work,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
	Location   string `json:"location,omitempty"`
	Number     string `json:"number,omitempty"`
}

// ehr is the kind of EHR that a run has from beginning to end.
type ehr struct {
	Kind      string
	WriteMode string // ECW_WRITE_MODE
	Habits    []fault
	Clock     time.Duration // how far its clock is ahead of ours, or behind: its rate limit then counts other minutes than ours
}

const (
	writeObservation = "observation"
	writeBundle      = "bundle"
)

// The kinds of EHR. Delivery exactly once is promised with all of them.
const (
	ehrStandard            = "standard"              // does as FHIR asks
	ehrNoConditionalCreate = "no_conditional_create" // refuses a condition
	ehrIgnoresCondition    = "ignores_condition"     // stores again whatever it is sent again
	ehrAlreadyExist        = "already_exist"         // ignores a condition, but refuses a known identifier with eCW's 201; in a Bundle only
	ehrSharedCapacity      = "shared_capacity"       // gets slower with every request under way, and works for those who gave up
)

func ehrKinds() []string {
	return []string{ehrStandard, ehrNoConditionalCreate, ehrIgnoresCondition, ehrAlreadyExist, ehrSharedCapacity}
}

// ehrWork is the time that an EHR with shared capacity works on a request: it can do five in a second. A
// reading every 300 ms takes two thirds of that, and our own limit lets four fifths through. But with fifteen
// requests at once each takes three seconds, which is ECW_TIMEOUT: from then on the EHR works only on
// requests that we have given up.
const ehrWork = "200ms"

// newEHR chooses the EHR's kind, unless one is given, and its habits. It draws the same random numbers for
// every kind, so that the rest of the plan does not depend on the kind.
func newEHR(random *rand.Rand, kind string) ehr {
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	chosen, writeMode := one(ehrKinds()...), one(writeObservation, writeBundle)
	e := ehr{Kind: cmp.Or(kind, chosen), WriteMode: writeMode}
	habit := func(kind, target string) fault { return fault{Kind: kind, Target: target, For: "24h"} }
	switch e.Kind {
	case ehrNoConditionalCreate:
		e.Habits = append(e.Habits, habit("reject_if_none_exist", "create"))
	case ehrIgnoresCondition:
		e.Habits = append(e.Habits, habit("store_again", "create"))
	case ehrAlreadyExist:
		e.WriteMode = writeBundle
		e.Habits = append(e.Habits, habit("ignore_if_none_exist", "create"))
	case ehrSharedCapacity:
		limited := habit("shared_capacity", "any")
		limited.Work = ehrWork
		e.Habits = append(e.Habits, limited)
	}

	if search := one("", "refuse_identifier", "ignore_identifier", "strict_search"); search != "" {
		e.Habits = append(e.Habits, habit(search, "search"))
	}

	e.Clock = time.Second
	if random.IntN(2) == 0 {
		e.Clock = -time.Second
	}
	return e
}

func (e ehr) String() string {
	said := []string{e.Kind, "write mode " + e.WriteMode, fmt.Sprintf("clock %+gs", e.Clock.Seconds())}
	for _, habit := range e.Habits {
		said = append(said, strings.TrimSpace(habit.Kind+" "+habit.Work))
	}
	return strings.Join(said, ", ")
}

// recognisesRepeats reports whether the EHR stores an identifier once, however often it is sent. With other
// kinds our look-up has to find an earlier delivery, and cannot find one that is stored after the look-up.
func (e ehr) recognisesRepeats() bool {
	switch e.Kind {
	case ehrIgnoresCondition:
		return false
	case ehrNoConditionalCreate:
		return e.WriteMode == writeBundle // there a known identifier is refused
	}
	return true
}

// passing lists the faults that end within seconds, or after a number of requests where they have a count.
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

// lasting lists outages, and a block until the next full minute.
func lasting() []fault {
	return []fault{
		{Kind: "reset_before", Target: "any"},
		{Kind: "error_503", Target: "any"},
		{Kind: "forbidden", Target: "create"},
		{Kind: "throttle", Target: "any", Count: 1},
	}
}
