package ecw

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clock is a clock that tests move.
type clock struct{ nanos atomic.Int64 }

func newClock(at time.Time) *clock {
	c := &clock{}
	c.nanos.Store(at.UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func withClock(c *clock) func(*Config) { return func(cfg *Config) { cfg.Now = c.now } }

func TestTokenIsRenewedBeforeItExpires(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		expiresIn string
		renewed   time.Duration
	}{
		{`,"expires_in":3600`, 3570 * time.Second},
		{`,"expires_in":300`, 270 * time.Second},
		{`,"expires_in":"300"`, 270 * time.Second},
		{`,"expires_in":100`, 80 * time.Second},
		{``, 48 * time.Second},
		{`,"expires_in":null`, 48 * time.Second},
		{`,"expires_in":0`, 48 * time.Second},
		{`,"expires_in":-5`, 48 * time.Second},
		{`,"expires_in":1e300`, 24*time.Hour - 30*time.Second},
	} {
		t.Run(tc.expiresIn, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.token = grant(`{"access_token":"tok-1","token_type":"bearer"` + tc.expiresIn + `}`)
			clk := newClock(time.Now())
			c := e.client(t, withClock(clk))
			mustAuthenticate(t, c)
			clk.advance(tc.renewed - time.Nanosecond)
			mustAuthenticate(t, c)

			if n := len(e.requests("token")); n != 1 {
				t.Fatalf("%d token requests before %s", n, tc.renewed)
			}

			clk.advance(time.Nanosecond)
			mustAuthenticate(t, c)
			if n := len(e.requests("token")); n != 2 {
				t.Errorf("%d token requests after %s", n, tc.renewed)
			}
		})
	}
}

func TestTokenRequestsAreShared(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	clk := newClock(time.Now())
	c := e.client(t, withClock(clk))

	for want := 1; want <= 2; want++ { // the first token, and its renewal
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := c.Authenticate(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}

		wg.Wait()
		if n := len(e.requests("token")); n != want {
			t.Errorf("%d token requests, want %d", n, want)
		}

		clk.advance(270 * time.Second)
	}
}

// TestRefusedTokenIsRenewedOnce: many deliveries are refused with the same token, and one renewal serves them
// all.
func TestRefusedTokenIsRenewedOnce(t *testing.T) {
	t.Parallel()
	const n = 10
	e := newEHR(t)
	var issued atomic.Int32

	e.token = func(w http.ResponseWriter, r *http.Request) {
		grant(fmt.Sprintf(`{"access_token":"tok-%d","token_type":"Bearer","expires_in":300}`, issued.Add(1)))(w, r)
	}
	var arrived sync.WaitGroup
	arrived.Add(n)

	e.write = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer tok-1" {
			arrived.Done()
			arrived.Wait() // all of them carry the old token
			reply(401, "", "")(w, r)
			return
		}
		reply(201, "Location: Observation/obs-1", "")(w, r)
	}

	c := e.client(t)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := c.CreateObservation(context.Background(), testResource, testID); err != nil {
				t.Error(err)
			}
		})
	}

	wg.Wait()
	if issued.Load() != 2 {
		t.Errorf("%d tokens issued, want 2", issued.Load())
	}

	e.checkLogs(t)
}

// TestLateRefusalKeepsTheNewToken: a 401 for the old token that arrives after the renewal does not drop the
// new token.
func TestLateRefusalKeepsTheNewToken(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	c := e.client(t)
	old, err := c.tokens.get(context.Background())
	if err != nil {
		t.Fatal(err)
	}

	c.tokens.drop(old)
	mustAuthenticate(t, c)
	c.tokens.drop(old)
	mustAuthenticate(t, c)

	if n := len(e.requests("token")); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
}

// TestWaitingForATokenHonoursTheCaller: any caller may stop waiting, even the first; the request goes on for
// the others.
func TestWaitingForATokenHonoursTheCaller(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	asked, release := make(chan struct{}), make(chan struct{})

	e.token = func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		grant(`{"access_token":"tok-1","token_type":"Bearer","expires_in":300}`)(w, r)
	}

	c := e.client(t)
	ctx, cancel := context.WithCancel(context.Background())
	firstDone, secondDone := make(chan error, 1), make(chan error, 1)
	go func() { firstDone <- c.Authenticate(ctx) }()
	<-asked
	go func() { secondDone <- c.Authenticate(context.Background()) }()
	cancel()
	err := <-firstDone

	if ee := asError(t, err); ee.Class != ClassRetryable || ee.Code != "canceled" || !errors.Is(err, context.Canceled) {
		t.Errorf("first caller: %v", ee)
	}

	close(release)
	if err := <-secondDone; err != nil {
		t.Errorf("second caller: %v", err)
	}
	if n := len(e.requests("token")); n != 1 {
		t.Errorf("%d token requests", n)
	}
}

func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	oauth := func(status int, code string) http.HandlerFunc {
		return reply(status, "", `{"error":"`+code+`","error_description":"`+personal+`"}`)
	}

	for _, tc := range []struct {
		name  string
		token http.HandlerFunc
		class Class
		code  string
	}{
		{"invalid_client", oauth(401, "invalid_client"), ClassPermanentCredentials, "invalid_client"},
		{"invalid_grant", oauth(400, "invalid_grant"), ClassPermanentCredentials, "invalid_grant"},
		{"invalid_scope", oauth(400, "invalid_scope"), ClassPermanentCredentials, "invalid_scope"},
		{"unauthorized_client", oauth(400, "unauthorized_client"), ClassPermanentCredentials, "unauthorized_client"},
		{"key_not_found", oauth(401, "key_not_found"), ClassPermanentCredentials, "key_not_found"},
		{"invalid_client as 500", oauth(500, "invalid_client"), ClassPermanentCredentials, "invalid_client"},
		{"access_denied as 500", oauth(500, "access_denied"), ClassRetryable, "access_denied"},
		{"server_error", oauth(500, "server_error"), ClassRetryable, "server_error"},
		{"a word that is none of OAuth's", oauth(400, "john_smith"), ClassPermanentCredentials, "http_400"},
		{"personal code", oauth(400, personal), ClassPermanentCredentials, "http_400"},
		{"401 bare", reply(401, "", ""), ClassPermanentCredentials, "http_401"},
		{"404", reply(404, "Content-Type: text/html", "<html>"), ClassRetryable, "http_404"},
		{"408", reply(408, "", ""), ClassRetryable, "http_408"},
		{"429", reply(429, "", ""), ClassThrottled, "throttled"},
		{"502", reply(502, "Content-Type: text/html", "<html>"), ClassRetryable, "http_502"},
		{"503", reply(503, "", ""), ClassRetryable, "http_503"},
		{"204", reply(204, "", ""), ClassRetryable, "http_204"},
		{"reset", reset, ClassRetryable, "reset"},
		{"HTML", grant("<html>"), ClassRetryable, "malformed_response"},
		{
			"wrong content type",
			reply(200, "Content-Type: text/html", `{"access_token":"tok-1","token_type":"bearer"}`),
			ClassRetryable,
			"malformed_response",
		},
		{"truncated", grant(`{"access_token":"tok-1"`), ClassRetryable, "malformed_response"},
		{"no token", grant(`{"token_type":"bearer"}`), ClassRetryable, "malformed_response"},
		{"token that breaks a header", grant(`{"access_token":"tok\r\nX: y","token_type":"bearer"}`), ClassRetryable, "malformed_response"},
		{"no token type", grant(`{"access_token":"tok-1"}`), ClassPermanentCredentials, "unsupported_token_type"},
		{"mac token", grant(`{"access_token":"tok-1","token_type":"mac"}`), ClassPermanentCredentials, "unsupported_token_type"},
		{
			"narrower scope",
			grant(`{"access_token":"tok-1","token_type":"bearer","scope":"system/Patient.read system/Observation.read"}`),
			ClassPermanentCredentials,
			"insufficient_scope",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.token = tc.token
			_, err := e.client(t).CreateObservation(context.Background(), testResource, testID)
			ee := asError(t, err)
			if ee.Class != tc.class || ee.Code != tc.code || ee.Op != OpToken {
				t.Errorf("got %v, want %s %s", ee, tc.class, tc.code)
			}

			if len(e.requests("POST")) != 0 {
				t.Error("written without a token")
			}
			if tc.code == "insufficient_scope" && !strings.Contains(ee.Message, "system/Observation.write is missing") {
				t.Errorf("the message does not name the scope: %s", ee.Message)
			}

			e.checkLogs(t)
		})
	}
}

func TestTokenRequestTimeout(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.token = hang
	err := e.client(t, func(cfg *Config) { cfg.Timeout = 20 * time.Millisecond }).Authenticate(context.Background())
	if ee := asError(t, err); ee.Class != ClassRetryable || ee.Code != "timeout" {
		t.Errorf("got %v", ee)
	}
}

func TestTokenRequestForm(t *testing.T) {
	t.Parallel()
	send := func(change func(*Config)) (url.Values, http.Header) {
		e := newEHR(t)
		mustAuthenticate(t, e.client(t, change))
		r := e.requests("token")[0]
		form, err := url.ParseQuery(string(r.body))
		if err != nil {
			t.Fatal(err)
		}

		if ct := r.header.Get("Content-Type"); ct != "application/x-www-form-urlencoded" || r.method != http.MethodPost {
			t.Errorf("%s %s", r.method, ct)
		}
		if form.Get("grant_type") != "client_credentials" || form.Get("scope") != DefaultScope {
			t.Errorf("form %v", form)
		}

		return form, r.header
	}

	form, header := send(func(*Config) {})
	if form.Get("client_assertion_type") != assertionType || form.Get("client_assertion") == "" ||
		form.Has("client_secret") || header.Get("Authorization") != "" {
		t.Errorf("backend service: %v %v", form, header)
	}

	form, header = send(func(cfg *Config) { cfg.AppType, cfg.Key, cfg.ClientSecret = ConfidentialClient, nil, "a b:c" })
	r := http.Request{Header: header}
	if id, secret, _ := r.BasicAuth(); id != "client-1" || secret != "a+b%3Ac" || form.Has("client_assertion") {
		t.Errorf("confidential client: %s %s %v", id, secret, form)
	}
}

func TestClockDriftIsLogged(t *testing.T) {
	t.Parallel()
	for drift, warned := range map[time.Duration]bool{0: false, 30 * time.Second: false, 3 * time.Minute: true, -3 * time.Minute: true} {
		e := newEHR(t)
		mustAuthenticate(t, e.client(t, withClock(newClock(time.Now().Add(drift)))))
		if got := strings.Contains(e.logs.String(), "our clock differs"); got != warned {
			t.Errorf("drift %s: warned %v", drift, got)
		}
	}
}

// TestSecretsDoNotPrint: a value that contains a token, a key or the client secret can be printed without
// showing it.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	c := e.client(t)
	mustAuthenticate(t, c)
	held, _ := c.tokens.held()
	cfg := e.config()
	out := &syncBuffer{}
	log := slog.New(slog.NewJSONHandler(out, nil))

	for _, v := range []any{held, &held, struct{ T token }{held}, struct{ t token }{held}, cfg, &cfg, testKey(), c} {
		fmt.Fprintf(out, "%v %+v %#v %s\n", v, v, v, v)
		log.Info("x", "v", v)
		if b, err := json.Marshal(v); err == nil {
			_, _ = out.Write(b)
		}
	}

	for _, secret := range []string{"tok-1", "the-secret", testKey().private.D.String()} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("printed %.10s…:\n%s", secret, out)
		}
	}
}
