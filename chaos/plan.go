package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// The processes that a run kills.
const (
	postgresPart = "postgres"
	temporalPart = "temporal"
	apiPart      = "api"
	workerPart   = "worker"
)

// event is one disturbance: a process that is killed, or a fault of the sandbox EHR.
type event struct {
	At    time.Duration // since the beginning of the run
	Kill  string        // the process, or "" for a fault
	Down  time.Duration // until the killed process is started again
	Fault *fault
}

func (e event) String() string {
	if e.Fault == nil {
		return fmt.Sprintf("%6.1fs kill -9 %s, back after %s", e.At.Seconds(), e.Kill, e.Down)
	}
	return fmt.Sprintf("%6.1fs EHR: %s", e.At.Seconds(), e.Fault)
}

// fault is the body of the sandbox's POST /admin/faults; it lasts for a number of requests or for a time.
type fault struct {
	Kind       string `json:"kind"`
	Target     string `json:"target"`
	Count      int    `json:"count,omitempty"`
	For        string `json:"for,omitempty"`
	Delay      string `json:"delay,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
}

func (f fault) String() string {
	if f.Count > 0 {
		return fmt.Sprintf("%s (%s) %d times", f.Kind, f.Target, f.Count)
	}
	return fmt.Sprintf("%s (%s) for %s", f.Kind, f.Target, f.For)
}

// faults are what a run switches on. That the EHR ignores If-None-Exist is not among them: nothing is promised there.
func faults() []fault {
	return []fault{
		{Kind: "reset_before", Target: "any"},
		{Kind: "reset_after", Target: "create"},
		{Kind: "reset_after", Target: "any"},
		{Kind: "error_503", Target: "any"},
		{Kind: "error_500", Target: "create"},
		{Kind: "error_500", Target: "any"},
		{Kind: "slow", Target: "create", Delay: "4s"}, // longer than ECW_TIMEOUT: stored after we gave up
		{Kind: "slow_after", Target: "create", Delay: "4s"},
		{Kind: "no_id", Target: "create"},
		{Kind: "truncated", Target: "create"},
		{Kind: "truncated", Target: "search"},
		{Kind: "throttle", Target: "any", Count: 1, RetryAfter: "2s"},
		{Kind: "unauthorized", Target: "create", Count: 1},
		{Kind: "unauthorized", Target: "any", Count: 2},
	}
}

// plan derives every disturbance of a run from its seed: the same seed and duration give the same plan. Each process is
// killed at least once when there is time; everything is over when the duration is.
func plan(seed uint64, duration time.Duration) []event {
	random := rand.New(rand.NewPCG(seed, 0))
	between := func(low, high time.Duration) time.Duration {
		return (low + time.Duration(random.Int64N(int64(high-low)))).Truncate(10 * time.Millisecond)
	}
	var events []event

	parts := []string{postgresPart, temporalPart, apiPart, workerPart}
	random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	parts = append(parts, workerPart, workerPart) // where most of what can break happens
	const longestDown = 4 * time.Second
	for i, at := 0, between(time.Second, 3*time.Second); at < duration-longestDown; i, at = i+1, at+between(time.Second, 6*time.Second) {
		next := parts[i%len(parts)]
		if i >= len(parts) {
			next = parts[random.IntN(len(parts))]
		}
		events = append(events, event{At: at, Kill: next, Down: between(0, longestDown)})
	}

	kinds := faults()
	const longestFault = 3 * time.Second
	for at := between(0, 2*time.Second); at < duration-longestFault; at += between(500*time.Millisecond, 4*time.Second) {
		next := kinds[random.IntN(len(kinds))]
		if next.Count == 0 {
			next.For = between(300*time.Millisecond, longestFault).String()
		}
		events = append(events, event{At: at, Fault: &next})
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.At - b.At) })
	return events
}
