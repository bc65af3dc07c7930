package workflows

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/gate"
)

// sweep stands in for the activities of ProcessPending, with a database that shows so many readings as pending. The real
// activities run in the tests of package worker.
type sweep struct {
	env     *testsuite.TestWorkflowEnvironment
	pending int
	circuit activities.CircuitState

	mu       sync.Mutex
	queries  []activities.PendingQuery
	started  []TransmissionInput
	breakers int
	rest     []PendingInput
	called   int
	summed   int
}

func newSweep(pending int) *sweep {
	s := &sweep{env: newEnvironment(), pending: pending, circuit: activities.CircuitState{State: gate.Closed}}
	s.env.RegisterActivity(s.FindPending)
	s.env.RegisterActivity(s.SumUp)
	s.env.RegisterActivity(s.LookAtCircuit)
	s.env.RegisterActivity(s.CallNext)
	s.env.RegisterWorkflowWithOptions(s.transmission, workflow.RegisterOptions{Name: "Transmission"})
	s.env.RegisterWorkflowWithOptions(s.breaker, workflow.RegisterOptions{Name: "CircuitBreaker"})
	return s
}

// reading is the id of the nth reading that is pending, from 1 on, which was stored in its second.
func (s *sweep) reading(n int) activities.PendingCursor {
	var id uuid.UUID
	binary.BigEndian.PutUint32(id[:], uint32(n))
	return activities.PendingCursor{CreatedAt: time.Date(2026, 2, 6, 8, 0, n, 0, time.UTC), ObservationID: id}
}

func (s *sweep) FindPending(_ context.Context, q activities.PendingQuery) (page activities.PendingPage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, q)
	for n := 1; n <= s.pending && len(page.ObservationIDs) < q.Limit; n++ {
		if at := s.reading(n); at.CreatedAt.After(q.After.CreatedAt) {
			page.ObservationIDs, page.Last = append(page.ObservationIDs, at.ObservationID), at
		}
	}
	return page, nil
}

func (s *sweep) SumUp(_ context.Context, list activities.ObservationList) (activities.PendingResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.summed++
	return activities.PendingResult{Transmitted: len(list.ObservationIDs)}, nil
}

func (s *sweep) LookAtCircuit(context.Context, string) (activities.CircuitState, error) {
	return s.circuit, nil
}

func (s *sweep) CallNext(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.called++
	return nil
}

func (s *sweep) transmission(_ workflow.Context, in TransmissionInput) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = append(s.started, in)
	return nil
}

func (s *sweep) breaker(workflow.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakers++
	return nil
}

func (s *sweep) takeRest(_ workflow.Context, in PendingInput) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, in)
	return nil
}

// run runs one part of the sweep, and returns what it continues as, if it does.
func (s *sweep) run(t *testing.T, in PendingInput) (next *PendingInput) {
	t.Helper()
	s.env.ExecuteWorkflow(ProcessPending, in)
	err := s.env.GetWorkflowError()
	var again *workflow.ContinueAsNewError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &again):
		t.Fatal(err)
	}
	next = &PendingInput{}
	if err := converter.GetDefaultDataConverter().FromPayloads(again.Input, next); err != nil {
		t.Fatal(err)
	}
	return next
}

// As many as one run starts may be stuck for ever, so that each sweep meets them again: it goes on to those behind them.
func TestASweepGoesOnToTheEnd(t *testing.T) {
	t.Parallel()
	in, seen := &PendingInput{PracticeCode: "FFHEDD", Grace: time.Minute}, map[uuid.UUID]bool{}
	for runs := 1; in != nil; runs++ {
		if runs > 3 {
			t.Fatalf("it goes on for ever, with %+v", in)
		}
		s := newSweep(2*pendingLimit + 3)
		in = s.run(t, *in)
		if q := s.queries[0]; q.PracticeCode != "FFHEDD" || q.Grace != time.Minute {
			t.Errorf("run %d asks for %+v", runs, q)
		}
		for _, started := range s.started {
			if !started.Unasked || !started.LookUp || started.PracticeCode != "FFHEDD" || seen[started.ObservationID] {
				t.Fatalf("run %d starts %+v", runs, started)
			}
			seen[started.ObservationID] = true
		}
	}
	if want := 2*pendingLimit + 3; len(seen) != want {
		t.Errorf("it started %d of %d", len(seen), want)
	}
}

// Whoever asks for a sweep gets the outcomes of its first part, and need not wait for the rest.
func TestASweepThatSomebodyWaitsFor(t *testing.T) {
	t.Parallel()
	s := newSweep(pendingLimit + 1)
	s.env.RegisterWorkflowWithOptions(s.takeRest, workflow.RegisterOptions{Name: "ProcessPending"})
	s.env.ExecuteWorkflow(func(ctx workflow.Context, in PendingInput) (activities.PendingResult, error) {
		return ProcessPending(ctx, in)
	}, PendingInput{PracticeCode: "FFHEDD", Wait: 20 * time.Second})
	var result activities.PendingResult
	if err := s.env.GetWorkflowResult(&result); err != nil || result.Transmitted != pendingLimit {
		t.Errorf("answers %+v, %v, want the outcomes of the first %d", result, err, pendingLimit)
	}
	want := PendingInput{PracticeCode: "FFHEDD", After: s.reading(pendingLimit)}
	if len(s.rest) != 1 || s.rest[0].Wait != 0 || s.rest[0].After != want.After {
		t.Errorf("the rest is started as %+v, want %+v", s.rest, want)
	}
}

// What the API has just stored is started as new, and nothing else is.
func TestABatchIsStarted(t *testing.T) {
	t.Parallel()
	s := newSweep(5)
	ids := []uuid.UUID{s.reading(7).ObservationID, s.reading(8).ObservationID}
	s.env.ExecuteWorkflow(StartTransmissions, Batch{PracticeCode: "FFHEDD", ObservationIDs: ids})
	if err := s.env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if len(s.started) != 2 || len(s.queries) != 0 || s.started[0].LookUp || !s.started[0].Unasked {
		t.Errorf("started %+v after asking for %+v", s.started, s.queries)
	}
}

// A circuit breaker that was lost, and a call that was lost, are made good by the next sweep.
func TestASweepRepairsTheCircuit(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		circuit  activities.CircuitState
		breakers int
	}{
		"closed":                     {activities.CircuitState{State: gate.Closed, Held: 3}, 0},
		"open":                       {activities.CircuitState{State: gate.Open}, 1},
		"half-open":                  {activities.CircuitState{State: gate.HalfOpen, Held: 1}, 1},
		"half-open, and nobody held": {activities.CircuitState{State: gate.HalfOpen}, 0}, // the next to come is the trial
	} {
		s := newSweep(0)
		s.circuit = tc.circuit
		s.run(t, PendingInput{PracticeCode: "FFHEDD"})
		if s.breakers != tc.breakers || s.called != 1 {
			t.Errorf("%s: %d circuit breakers started, want %d; the queue called %d times, want once", name, s.breakers, tc.breakers, s.called)
		}
	}
}
