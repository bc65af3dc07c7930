package ecw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func (c *Client) transport() *http.Transport { return c.wire.http.Transport.(*http.Transport) }

// untrusted is a server whose certificate no client of ours trusts.
func untrusted(t *testing.T) *httptest.Server {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it would report every handshake we refuse
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestSearchWithoutAnswer: a search without an answer is retryable, because it changes nothing. Its error
// does not contain the patient's id, which is part of the URL.
func TestSearchWithoutAnswer(t *testing.T) {
	t.Parallel()
	for _, tc := range lostCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = tc.write
			c := e.client(t)
			mustAuthenticate(t, c)
			c.wire.http.CloseIdleConnections()

			if tc.prepare != nil {
				tc.prepare(t, c)
			}

			c.habits.form.learn(byIdentifierCategoryAndPatient, c.now())
			_, _, err := c.FindDelivered(context.Background(), testResource, testID)
			if ee := asError(t, err); ee.Class != ClassRetryable || ee.Code != tc.code || strings.Contains(ee.Error(), "pat-1") {
				t.Errorf("got %v, want retryable %s", ee, tc.code)
			}
		})
	}
}

func TestTimeoutSaysHowLong(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.write = hang
	c := e.client(t)
	mustAuthenticate(t, c)
	c.wire.timeout = 150 * time.Millisecond
	_, err := c.CreateObservation(context.Background(), testResource, testID)
	if ee := asError(t, err); ee.Message != "eCW connection timeout after 150ms" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", ee)
	}
}

// TestCallerGivesUp: if the caller cancels after the request has left, the outcome is unknown.
func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	ctx, cancel := context.WithCancel(context.Background())
	e.write = func(w http.ResponseWriter, r *http.Request) { cancel(); hang(w, r) }
	_, err := e.client(t).CreateObservation(ctx, testResource, testID)
	if ee := asError(t, err); ee.Class != ClassUnknown || ee.Code != "canceled" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", ee)
	}
	_, err = e.client(t).CreateObservation(ctx, testResource, testID)
	if ee := asError(t, err); ee.Class != ClassRetryable || ee.Op != OpToken {
		t.Errorf("before it left: %v", ee)
	}
}

// TestNothingIsSentTwice: Go's transport does not repeat a POST whose connection breaks.
func TestNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	for name, die := range map[string]http.HandlerFunc{"reset": reset, "closed": hangUp} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.write = die
			c := e.client(t)
			mustAuthenticate(t, c) // leaves a connection for the create to reuse
			_, err := c.CreateObservation(context.Background(), testResource, testID)

			if ee := asError(t, err); ee.Class != ClassUnknown || ee.Code != "reset" {
				t.Errorf("got %v", ee)
			}
			if n := len(e.requests("POST")); n != 1 {
				t.Errorf("%d POSTs", n)
			}
		})
	}
}

// TestRedirectsAreNotFollowed: neither a token nor a reading is sent to a host that was not configured.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var reached atomic.Int32
			stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
			t.Cleanup(stranger.Close)
			e := newEHR(t)
			away := reply(status, "Location: "+stranger.URL+"/Observation/obs-1", "")
			e.write, e.find = away, away
			c := e.client(t)
			_, err := c.CreateObservation(context.Background(), testResource, testID)

			if ee := asError(t, err); ee.Class != ClassUnknown || ee.Code != "redirect" {
				t.Errorf("create: %v", ee)
			}

			_, _, err = c.FindObservation(context.Background(), testID, "")
			if ee := asError(t, err); ee.Class != ClassRetryable || ee.Code != "redirect" {
				t.Errorf("find: %v", ee)
			}

			e.token = away
			err = e.client(t).Authenticate(context.Background())
			if ee := asError(t, err); ee.Class != ClassRetryable {
				t.Errorf("token: %v", ee)
			}
			if reached.Load() != 0 {
				t.Error("the redirect was followed")
			}
		})
	}
}

// TestLargeRefusal: a refusal is classed by its status even when its body is not read.
func TestLargeRefusal(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.write = reply(503, "", strings.Repeat(" ", maxBody+1))
	_, err := e.client(t).CreateObservation(context.Background(), testResource, testID)
	if ee := asError(t, err); ee.Code != "http_503" {
		t.Errorf("got %v", ee)
	}
}

// TestGarbageOnTheWire: an answer that is not HTTP is not quoted in the error.
func TestGarbageOnTheWire(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.write = func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_, _ = io.WriteString(conn, personal+"\r\n\r\n")
		_ = conn.Close()
	}
	_, err := e.client(t).CreateObservation(context.Background(), testResource, testID)
	if ee := asError(t, err); ee.Class != ClassUnknown || ee.Code != "reset" {
		t.Errorf("got %v", ee)
	}
	e.checkLogs(t)
}

// TestTrustedTLS delivers over https, with HTTP/2.
func TestTrustedTLS(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.write = reply(201, "Location: Observation/obs-1", "")
	s := httptest.NewUnstartedServer(e.Config.Handler)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := e.client(t, func(cfg *Config) { cfg.TokenURL, cfg.FHIRBaseURL = s.URL+"/token", s.URL })
	c.transport().TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig

	if d, err := c.CreateObservation(context.Background(), testResource, testID); err != nil || d.ID != "obs-1" {
		t.Fatalf("got %+v %v", d, err)
	}

	e.write = hang
	c.wire.timeout = 150 * time.Millisecond
	_, err := c.CreateObservation(context.Background(), testResource, testID)
	if ee := asError(t, err); ee.Class != ClassUnknown || ee.Code != "timeout" {
		t.Errorf("over HTTP/2: %v", ee)
	}
}
