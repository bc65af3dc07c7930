package ecw

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// allowance is a limiter that permits some requests, then asks for a wait or fails. It records what was
// observed.
type allowance struct {
	mu       sync.Mutex
	left     int
	err      error
	asked    int
	under    int // how many are under way
	observed []Observed
	paused   []time.Duration
}

func (a *allowance) Begin(context.Context) (func(context.Context, Observed), time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if a.asked > a.left {
		return nil, 7 * time.Second, a.err
	}
	a.under++
	return a.end, 0, nil
}

func (a *allowance) end(_ context.Context, o Observed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.under--
	a.observed = append(a.observed, o)
}

func (a *allowance) Pause(_ context.Context, wait time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paused = append(a.paused, wait)
	return nil
}

// last is what was observed of the latest request.
func (a *allowance) last(t *testing.T) Observed {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.under != 0 || len(a.observed) == 0 || len(a.observed) != a.asked {
		t.Fatalf("of %d requests that began %d have ended, %d are under way", a.asked, len(a.observed), a.under)
	}
	return a.observed[len(a.observed)-1]
}

// post is a create, to be sent as it is.
func (e *ehr) post() request {
	return request{
		op:     OpCreate,
		method: http.MethodPost,
		url:    e.URL + "/Observation",
		header: http.Header{},
	}
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
		"the token":                      {left: 0, op: OpToken, wait: 7 * time.Second},
		"the create":                     {left: 1, op: OpCreate, wait: 7 * time.Second},
		"a limiter that cannot be asked": {left: 0, err: errors.New("database away"), op: OpToken, wait: limiterRetry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			clk := newClock(time.Now())
			a := &allowance{left: tc.left, err: tc.err}
			c := e.client(t, withClock(clk), limitedBy(a))

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
			if len(a.observed) != tc.left || a.under != 0 {
				t.Errorf("%d requests ended and %d are under way, want %d and none", len(a.observed), a.under, tc.left)
			}
		})
	}
}

// The observations decide how many requests may be under way at once: only trouble of the server reduces the
// number, and only its answers raise it.
func TestWhatIsObserved(t *testing.T) {
	t.Parallel()
	cutOff := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "{")
		reset(w, r)
	}

	stall := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_ = http.NewResponseController(w).Flush()
		hang(w, r)
	}

	for name, tc := range map[string]struct {
		write   http.HandlerFunc
		timeout time.Duration
		want    Observed
	}{
		"created":                      {write: reply(201, "Location: /Observation/obs-1", ""), want: Observed{Answered: true}},
		"a bad resource":               {write: reply(422, "", outcome("error", "invalid")), want: Observed{Answered: true}},
		"forbidden":                    {write: reply(403, "", outcome("error", "forbidden")), want: Observed{Answered: true}},
		"a redirect":                   {write: reply(302, "Location: /elsewhere", ""), want: Observed{Answered: true}},
		"429":                          {write: reply(429, "Retry-After: 9", ""), want: Observed{}},
		"500":                          {write: reply(500, "", outcome("error", "exception")), want: Observed{Overloaded: true}},
		"502":                          {write: reply(502, "", ""), want: Observed{Overloaded: true}},
		"503":                          {write: reply(503, "Retry-After: 9", ""), want: Observed{Overloaded: true}},
		"504":                          {write: reply(504, "", ""), want: Observed{Overloaded: true}},
		"no answer":                    {write: hang, timeout: 200 * time.Millisecond, want: Observed{Overloaded: true}},
		"an answer that stalls":        {write: stall, timeout: 200 * time.Millisecond, want: Observed{Overloaded: true}},
		"an answer that is cut off":    {write: cutOff, want: Observed{Answered: true}},
		"a connection that breaks":     {write: reset, want: Observed{}},
		"a connection that is hung up": {write: hangUp, want: Observed{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.write = tc.write
			a := &allowance{left: 100}
			c := e.client(t, limitedBy(a))
			mustAuthenticate(t, c)

			if tc.timeout > 0 {
				c.wire.timeout = tc.timeout
			}

			res, err := c.wire.send(t.Context(), e.post())
			if (res == nil) == (err == nil) {
				t.Fatalf("sent, with the answer %v and the error %v", res, err)
			}

			got, want := a.last(t), tc.want
			if tc.timeout > 0 && got.Took < tc.timeout || tc.timeout == 0 && got.Took > DefaultTimeout/2 || got.Took <= 0 {
				t.Errorf("took %s", got.Took)
			}

			want.Took = got.Took
			if got != want {
				t.Errorf("observed %+v, want %+v", got, want)
			}
		})
	}
}

// Token requests count towards the limit like all others.
func TestTokenRequestsAreObserved(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		token http.HandlerFunc
		want  Observed
	}{
		"a token":   {grant(`{"access_token":"tok-1","token_type":"Bearer","expires_in":300}`), Observed{Answered: true}},
		"a refusal": {reply(400, "", `{"error":"invalid_client"}`), Observed{Answered: true}},
		"a fault":   {reply(503, "", ""), Observed{Overloaded: true}},
		"a 429":     {reply(429, "", ""), Observed{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.token = tc.token
			a := &allowance{left: 10}
			_ = e.client(t, limitedBy(a)).Authenticate(t.Context())

			got := a.last(t)
			got.Took = 0
			if got != tc.want {
				t.Errorf("observed %+v, want %+v", got, tc.want)
			}
		})
	}
}

// A request that we cancel, or that finds no server, says nothing about eCW's load.
func TestOurOwnTroubleIsNoLoad(t *testing.T) {
	t.Parallel()
	t.Run("the caller gives up", func(t *testing.T) {
		t.Parallel()
		e := newEHR(t)
		a := &allowance{left: 10}
		c := e.client(t, limitedBy(a))
		mustAuthenticate(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		e.write = func(w http.ResponseWriter, r *http.Request) { cancel(); hang(w, r) }
		_, err := c.wire.send(ctx, e.post())

		if got := a.last(t); err == nil || got.Overloaded || got.Answered {
			t.Errorf("observed %+v (%v), want neither an answer nor load", got, err)
		}
	})

	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		e := newEHR(t)
		a := &allowance{left: 10}
		c := e.client(t, limitedBy(a))
		e.Close()
		err := c.Authenticate(t.Context())

		if got := a.last(t); err == nil || got.Overloaded || got.Answered {
			t.Errorf("observed %+v (%v), want neither an answer nor load", got, err)
		}
	})
}

// Go's transport repeats a search by itself if a kept connection breaks, and eCW counts the repetition.
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
	if got := a.last(t); got.Repeats != 0 {
		t.Errorf("observed %+v of a search that was answered at once", got)
	}

	e.find = reset
	if _, _, err := c.FindObservation(t.Context(), testID, "pat-1"); err == nil {
		t.Fatal("found, though every connection breaks")
	}
	if got := a.last(t); got.Repeats == 0 || got.Answered || got.Overloaded {
		t.Errorf("observed %+v, want it repeated, and nothing answered", got)
	}

	counted := a.asked
	for _, o := range a.observed {
		counted += o.Repeats
	}

	tokens, searches := len(e.requests("token")), len(e.requests(http.MethodGet))
	if searches < 3 || counted != tokens+searches {
		t.Errorf("%d requests counted, but %d tokens and %d searches were asked for; want every one counted", counted, tokens, searches)
	}
}

func TestThrottlingPausesEverybody(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.write = reply(http.StatusTooManyRequests, "Retry-After: 9", "")
	a := &allowance{left: 10}
	_, err := e.client(t, limitedBy(a)).CreateObservation(t.Context(), testResource, testID)
	var got *Error
	if !errors.As(err, &got) || got.Code != "throttled" {
		t.Fatalf("got %v, want eCW's own throttling", err)
	}

	if len(a.paused) != 1 || a.paused[0] != 9*time.Second {
		t.Errorf("paused for %v, want once for 9 s", a.paused)
	}
	if a.asked != 2 || a.under != 0 {
		t.Errorf("the limiter was asked %d times, and %d are under way; want once for the token and once for the create", a.asked, a.under)
	}
}

// Other requests may leave as soon as this one ends, so the pause must be set before that.
func TestThePauseComesBeforeTheEnd(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.token = reply(http.StatusTooManyRequests, "Retry-After: 9", "")
	o := &ordered{}
	_ = e.client(t, func(cfg *Config) { cfg.Limiter = o }).Authenticate(t.Context())
	if len(o.calls) != 2 || o.calls[0] != "pause" || o.calls[1] != "end" {
		t.Errorf("called %v, want the pause first", o.calls)
	}
}

// ordered is a limiter that records the order of its calls.
type ordered struct{ calls []string }

func (o *ordered) Begin(context.Context) (func(context.Context, Observed), time.Duration, error) {
	return func(context.Context, Observed) { o.calls = append(o.calls, "end") }, 0, nil
}

func (o *ordered) Pause(context.Context, time.Duration) error {
	o.calls = append(o.calls, "pause")
	return nil
}
