package main

import (
	"reflect"
	"testing"
	"time"
)

func TestPlanIsDerivedFromItsSeed(t *testing.T) {
	t.Parallel()
	const duration = 3 * time.Minute
	one := newPlan(1, duration)
	for range 20 {
		if again := newPlan(1, duration); !reflect.DeepEqual(one, again) {
			t.Fatal("the same seed gives another plan")
		}
	}
	if other := newPlan(2, duration); reflect.DeepEqual(one, other) {
		t.Error("another seed gives the same plan")
	}
}

func TestPlanEndsEveryProcessAndIsOverInTime(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		for _, duration := range []time.Duration{30 * time.Second, 3 * time.Minute} {
			ended, broken := map[string]int{}, 0
			var last time.Duration
			for _, e := range newPlan(seed, duration).Events {
				if e.At < last {
					t.Fatalf("seed %d: %s comes after %s", seed, e, last)
				}
				last = e.At
				if e.Fault == nil {
					ended[e.End]++
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
			for _, name := range disturbed() {
				if ended[name] == 0 {
					t.Errorf("seed %d: %s is not ended in %s", seed, name, duration)
				}
			}
			if broken == 0 {
				t.Errorf("seed %d: no fault in %s", seed, duration)
			}
		}
	}
}

// Every way in which a process ends, every fault and every kind of EHR has to come up in some plan.
func TestPlansTakeInEverything(t *testing.T) {
	t.Parallel()
	gently, brutally, faults, ehrs := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for seed := range uint64(100) {
		p := newPlan(seed, 3*time.Minute)
		ehrs[p.EHR.String()] = true
		for _, e := range p.Events {
			switch {
			case e.Fault != nil:
				faults[e.Fault.Kind+e.Fault.Target] = true
			case e.Gently:
				gently[e.End] = true
			default:
				brutally[e.End] = true
			}
		}
	}
	for _, f := range passing(ehr{}) {
		if !faults[f.Kind+f.Target] {
			t.Errorf("%s (%s) never comes up", f.Kind, f.Target)
		}
	}
	if want := 2 * 3 * 4; len(ehrs) != want {
		t.Errorf("%d kinds of EHR, want %d: %v", len(ehrs), want, ehrs)
	}
	if len(gently) != 4 || len(brutally) != 6 {
		t.Errorf("told to stop: %v, killed: %v", gently, brutally)
	}
}
