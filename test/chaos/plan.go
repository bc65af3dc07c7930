package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// The processes that a run disturbs.
const (
	postgresPart = "postgres"
	temporalPart = "temporal"
	firstAPI     = "api-1"
	secondAPI    = "api-2"
	firstWorker  = "worker-1"
	secondWorker = "worker-2"
)

func disturbed() []string {
	return []string{postgresPart, temporalPart, firstAPI, secondAPI, firstWorker, secondWorker}
}

// event is one disturbance: a process that ends, or a fault of the sandbox EHR.
type event struct {
	At     time.Duration // since the beginning of the run
	End    string        // the process, or "" for a fault
	Gently bool          // SIGTERM, as in a deploy, in place of SIGKILL
	Down   time.Duration // until the process is started again
	Fault  *fault
}

func (e event) String() string {
	switch {
	case e.Fault == nil && e.Gently:
		return fmt.Sprintf("%6.1fs SIGTERM %s, back after %s", e.At.Seconds(), e.End, e.Down)
	case e.Fault == nil:
		return fmt.Sprintf("%6.1fs kill -9 %s, back after %s", e.At.Seconds(), e.End, e.Down)
	}
	return fmt.Sprintf("%6.1fs EHR: %s", e.At.Seconds(), e.Fault)
}

func (f fault) String() string {
	if f.Count > 0 {
		return fmt.Sprintf("%s (%s) %d times", f.Kind, f.Target, f.Count)
	}
	return fmt.Sprintf("%s (%s) for %s", f.Kind, f.Target, f.For)
}

// plan is everything that a run does, except for sending readings.
type plan struct {
	EHR    ehr
	Events []event // in the order of their time
}

// newPlan derives a plan from a seed. The same seed, duration and kind of EHR give the same plan; without a
// kind, the seed chooses it. Each process ends at least once if there is time, and every disturbance is over
// at the end of the duration.
func newPlan(seed uint64, duration time.Duration, kind string) plan {
	random := rand.New(rand.NewPCG(seed, 0))
	p := plan{EHR: newEHR(random, kind)}
	p.Events = slices.Concat(ends(random, duration), shortFaults(random, duration, p.EHR), longFaults(random, duration))
	slices.SortStableFunc(p.Events, func(a, b event) int { return int(a.At - b.At) })
	return p
}

func between(random *rand.Rand, low, high time.Duration) time.Duration {
	return (low + time.Duration(random.Int64N(int64(high-low)))).Truncate(10 * time.Millisecond)
}

// longestGap is the longest time between two disturbances of a kind. It is longer in a long run, so that
// readings are delivered meanwhile.
func longestGap(duration time.Duration) time.Duration {
	return min(max(duration/25, 4*time.Second), 8*time.Second)
}

// ends chooses when each process ends.
func ends(random *rand.Rand, duration time.Duration) (events []event) {
	const longestDown = 4 * time.Second
	parts := disturbed()
	random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	at := between(random, time.Second, 3*time.Second)
	for n := 0; at < duration-longestDown; n++ {
		e := event{At: at, Down: between(random, 0, longestDown)}
		if n < len(parts) {
			e.End = parts[n]
		} else {
			e.End = parts[random.IntN(len(parts))]
		}
		ours := e.End != postgresPart && e.End != temporalPart
		e.Gently = ours && random.IntN(2) == 0
		events = append(events, e)
		at += between(random, time.Second, longestGap(duration))
	}

	return events
}

func shortFaults(random *rand.Rand, duration time.Duration, ehr ehr) (events []event) {
	kinds := passing(ehr)
	const longest = 3 * time.Second
	for at := between(random, 0, 2*time.Second); at < duration-longest; at += between(random, 500*time.Millisecond, longestGap(duration)) {
		next := kinds[random.IntN(len(kinds))]
		if next.Count == 0 {
			next.For = between(random, 300*time.Millisecond, longest).String()
		}
		events = append(events, event{At: at, Fault: &next})
	}
	return events
}

// longFaults chooses one long fault for each minute and a half. Readings wait meanwhile.
func longFaults(random *rand.Rand, duration time.Duration) (events []event) {
	kinds := lasting()
	const each, longest = 90 * time.Second, 25 * time.Second
	for from := time.Duration(0); from+each <= duration; from += each {
		next := kinds[random.IntN(len(kinds))]
		if next.Count == 0 {
			next.For = between(random, 8*time.Second, longest).String()
		}
		events = append(events, event{At: from + between(random, 0, each-longest), Fault: &next})
	}
	return events
}
