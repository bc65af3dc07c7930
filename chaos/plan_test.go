package main

import (
	"reflect"
	"testing"
	"time"
)

func TestPlanIsDerivedFromItsSeed(t *testing.T) {
	t.Parallel()
	const duration = 3 * time.Minute
	one := plan(1, duration)
	if again := plan(1, duration); !reflect.DeepEqual(one, again) {
		t.Error("the same seed gives another plan")
	}
	if other := plan(2, duration); reflect.DeepEqual(one, other) {
		t.Error("another seed gives the same plan")
	}
}

func TestPlanKillsEveryProcessAndEndsInTime(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		for _, duration := range []time.Duration{30 * time.Second, 3 * time.Minute} {
			killed, broken := map[string]int{}, 0
			var last time.Duration
			for _, e := range plan(seed, duration) {
				if e.At < last {
					t.Fatalf("seed %d: %s comes after %s", seed, e, last)
				}
				last = e.At
				if e.Fault == nil {
					killed[e.Kill]++
					if e.At+e.Down > duration {
						t.Errorf("seed %d: %s outlasts %s", seed, e, duration)
					}
					continue
				}
				broken++
				lasts, _ := time.ParseDuration(e.Fault.For) // 0 for one that is counted
				if (lasts > 0) == (e.Fault.Count > 0) || e.At+lasts > duration {
					t.Errorf("seed %d: %s does not end within %s", seed, e, duration)
				}
			}
			for _, name := range []string{postgresPart, temporalPart, apiPart, workerPart} {
				if killed[name] == 0 {
					t.Errorf("seed %d: %s is not killed in %s", seed, name, duration)
				}
			}
			if broken == 0 {
				t.Errorf("seed %d: no fault in %s", seed, duration)
			}
		}
	}
}
