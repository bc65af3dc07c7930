package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPlanIsDerivedFromItsSeed(t *testing.T) {
	t.Parallel()
	const duration = 3 * time.Minute
	one := newPlan(1, duration, "")
	for range 20 {
		if again := newPlan(1, duration, ""); !reflect.DeepEqual(one, again) {
			t.Fatal("the same seed gives another plan")
		}
	}
	if other := newPlan(2, duration, ""); reflect.DeepEqual(one, other) {
		t.Error("another seed gives the same plan")
	}
}

func TestPlanEndsEveryProcessAndIsOverInTime(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		for _, duration := range []time.Duration{30 * time.Second, 3 * time.Minute} {
			ended, broken := map[string]int{}, 0
			var last time.Duration
			for _, e := range newPlan(seed, duration, "").Events {
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

// Every way to end a process, every fault and every kind of EHR is in some plan.
func TestPlansTakeInEverything(t *testing.T) {
	t.Parallel()
	gently, brutally, faults, ehrs := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for seed := range uint64(600) {
		p := newPlan(seed, 3*time.Minute, "")
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

	// One kind is only met in a Bundle; each has one of four ways of searching, and one of two clocks.
	if want := (2*len(ehrKinds()) - 1) * 4 * 2; len(ehrs) != want {
		t.Errorf("%d kinds of EHR, want %d: %v", len(ehrs), want, ehrs)
	}

	if len(gently) != 4 || len(brutally) != 6 {
		t.Errorf("stopped by SIGTERM: %v, killed: %v", gently, brutally)
	}
}

// TestAKindOfEHRCanBeChosen: the rest of the plan stays as the seed has it, except for faults that the kind
// does not allow.
func TestAKindOfEHRCanBeChosen(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		drawn := newPlan(seed, time.Minute, "")
		if again := newPlan(seed, time.Minute, drawn.EHR.Kind); !reflect.DeepEqual(drawn, again) {
			t.Errorf("seed %d with the kind that it gives by itself, %s, is another plan", seed, drawn.EHR.Kind)
		}
		for _, kind := range ehrKinds() {
			if p := newPlan(seed, time.Minute, kind); p.EHR.Kind != kind {
				t.Errorf("seed %d: asked for %s, got %s", seed, kind, p.EHR)
			}
		}
	}

	if err := (config{EHR: "perfect"}).check(); err == nil || !strings.Contains(err.Error(), ehrSharedCapacity) {
		t.Errorf("an unknown kind: %v", err)
	}
}

// TestLateWritesOnlyWhereRepeatsAreRecognised: a fault that delays a write beyond our look-up is planned only
// for an EHR that recognises the repeated delivery. Another EHR would store it twice.
func TestLateWritesOnlyWhereRepeatsAreRecognised(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, writeMode string
		recognises      bool
	}{
		{ehrStandard, writeObservation, true},
		{ehrStandard, writeBundle, true},
		{ehrNoConditionalCreate, writeObservation, false},
		{ehrNoConditionalCreate, writeBundle, true},
		{ehrIgnoresCondition, writeObservation, false},
		{ehrIgnoresCondition, writeBundle, false},
		{ehrAlreadyExist, writeBundle, true},
		{ehrSharedCapacity, writeObservation, true},
		{ehrSharedCapacity, writeBundle, true},
	} {
		e := ehr{Kind: c.kind, WriteMode: c.writeMode}
		late := slices.ContainsFunc(passing(e), func(f fault) bool { return f.Kind == "slow" || f.Kind == "empty_search" })
		if e.recognisesRepeats() != c.recognises || late != c.recognises {
			t.Errorf("%s, %s: recognises repeats %t, late writes %t, want %t", c.kind, c.writeMode, e.recognisesRepeats(), late, c.recognises)
		}
	}
}
