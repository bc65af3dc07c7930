package ecw

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"
)

// allowance lets some requests go, then asks for a wait, or fails.
type allowance struct {
	mu     sync.Mutex
	left   int
	err    error
	asked  int
	paused []time.Duration
}

func (a *allowance) Allow(context.Context) (time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if a.asked > a.left {
		return 7 * time.Second, a.err
	}
	return 0, nil
}

func (a *allowance) Pause(_ context.Context, wait time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paused = append(a.paused, wait)
	return nil
}

func limitedBy(a *allowance) func(*Config) { return func(cfg *Config) { cfg.Limiter = a } }

func TestNothingIsSentWithoutTheLimiter(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		left int
		err  error
		op   string
		wait time.Duration
	}{
		"the token":                  {left: 0, op: OpToken, wait: 7 * time.Second},
		"the create":                 {left: 1, op: OpCreate, wait: 7 * time.Second},
		"a limiter that cannot tell": {left: 0, err: errors.New("database away"), op: OpToken, wait: limiterRetry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			clk := newClock(time.Now())
			c := e.client(t, withClock(clk), limitedBy(&allowance{left: tc.left, err: tc.err}))
			_, err := c.CreateObservation(t.Context(), testResource, testID)
			var got *Error
			if !errors.As(err, &got) || got.Class != ClassThrottled || got.Code != CodeRateLimited || got.Op != tc.op {
				t.Fatalf("got %v, want the %s held back", err, tc.op)
			}
			if wait := got.RetryAt.Sub(clk.now()); wait != tc.wait {
				t.Errorf("retry in %s, want %s", wait, tc.wait)
			}
			if sent := len(e.requests("token")) + len(e.requests(http.MethodPost)); sent != tc.left {
				t.Errorf("%d requests left, want %d", sent, tc.left)
			}
		})
	}
}

// TestRepeatsOfTheTransportCount: Go's transport sends a search again by itself when a connection that it kept breaks.
func TestRepeatsOfTheTransportCount(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	a := &allowance{left: 10}
	c := e.client(t, limitedBy(a))
	mustAuthenticate(t, c)
	e.find = bundleOf(false)
	if _, _, err := c.FindObservation(t.Context(), testID, "pat-1"); err != nil {
		t.Fatal(err)
	}
	e.find = reset
	if _, _, err := c.FindObservation(t.Context(), testID, "pat-1"); err == nil {
		t.Fatal("found, though every connection breaks")
	}
	tokens, searches := len(e.requests("token")), len(e.requests(http.MethodGet))
	if searches < 3 || a.asked != tokens+searches {
		t.Errorf("%d requests counted, but %d tokens and %d searches were asked for; want every one counted, repeated ones too", a.asked, tokens, searches)
	}
}

func TestThrottlingPausesEverybody(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.write = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "9")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	a := &allowance{left: 10}
	_, err := e.client(t, limitedBy(a)).CreateObservation(t.Context(), testResource, testID)
	var got *Error
	if !errors.As(err, &got) || got.Code != "throttled" {
		t.Fatalf("got %v, want eCW's own throttling", err)
	}
	if len(a.paused) != 1 || a.paused[0] != 9*time.Second {
		t.Errorf("paused for %v, want once for 9 s", a.paused)
	}
	if a.asked != 2 {
		t.Errorf("the limiter was asked %d times, want once for the token and once for the create", a.asked)
	}
}
