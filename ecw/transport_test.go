package ecw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func (c *Client) transport() *http.Transport { return c.wire.http.Transport.(*http.Transport) }

// TestBeforeTheRequestLeft: nothing was delivered, so every operation may be repeated.
func TestBeforeTheRequestLeft(t *testing.T) {
	t.Parallel()
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // it would report every handshake we refuse
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	dial := func(err error) func(*Client) {
		return func(c *Client) {
			c.transport().DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, err }
		}
	}
	for _, tc := range []struct {
		name, code string
		breakIt    func(*Client)
	}{
		{"dns", "dns", dial(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "ehr.example", IsNotFound: true}})},
		{"connect", "connect", dial(&net.OpError{Op: "dial", Err: errors.New("connection refused")})},
		{"dial timeout", "timeout", dial(&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded})},
		{"tls", "tls", func(c *Client) { c.baseURL = untrusted.URL }},
		{"slow dial", "timeout", func(c *Client) {
			c.wire.timeout = 20 * time.Millisecond
			c.transport().DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}},
	} {
		for _, mode := range []WriteMode{WriteObservation, WriteBundle} {
			t.Run(tc.name+"/"+string(mode), func(t *testing.T) {
				t.Parallel()
				e := newEHR(t)
				c := e.client(t, func(cfg *Config) { cfg.WriteMode = mode })
				mustAuthenticate(t, c)
				c.wire.http.CloseIdleConnections()
				tc.breakIt(c)
				_, err := c.CreateObservation(context.Background(), testResource, testID)
				if ee := asError(t, err); ee.Class != ClassRetryable || ee.Code != tc.code {
					t.Errorf("create: got %v, want retryable %s", ee, tc.code)
				}
				_, _, err = c.FindObservation(context.Background(), testID, "pat-1")
				if ee := asError(t, err); ee.Class != ClassRetryable || strings.Contains(ee.Error(), "pat-1") {
					t.Errorf("find: got %v", ee)
				}
				if len(e.requests("POST")) != 0 {
					t.Error("a request left")
				}
			})
		}
	}
}

func TestTimeoutAfterTheRequestLeft(t *testing.T) {
	t.Parallel()
	for _, mode := range []WriteMode{WriteObservation, WriteBundle} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.write, e.find = hang, hang
			c := e.client(t, func(cfg *Config) { cfg.WriteMode = mode })
			mustAuthenticate(t, c)
			c.wire.timeout = 150 * time.Millisecond
			_, err := c.CreateObservation(context.Background(), testResource, testID)
			ee := asError(t, err)
			if ee.Class != ClassUnknown || ee.Code != "timeout" || ee.Message != "eCW connection timeout after 150ms" || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("create: %v", ee)
			}
			_, _, err = c.FindObservation(context.Background(), testID, "")
			if ee := asError(t, err); ee.Class != ClassRetryable || ee.Code != "timeout" {
				t.Errorf("find: %v", ee)
			}
			if n := len(e.requests("POST")); n > 1 {
				t.Errorf("%d creates", n)
			}
		})
	}
}

// TestCallerGivesUp: cancelling after the request left leaves the outcome unknown.
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

// TestNothingIsSentTwice: a connection that dies under a POST is where a transport may repeat it silently.
func TestNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	for name, die := range map[string]http.HandlerFunc{"reset": reset, "closed": func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_ = conn.Close()
	}} {
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

// TestRedirectsAreNotFollowed: neither a token nor a reading goes to a host that was not configured.
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

// TestLargeAnswersAreNotRead: an endless answer costs a bounded amount of memory.
func TestLargeAnswersAreNotRead(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	var sent atomic.Int64
	flood := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaFHIR)
		chunk := bytes.Repeat([]byte(" "), 64<<10)
		for sent.Load() < size {
			n, err := w.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	e := newEHR(t)
	e.write, e.find = flood, flood
	c := e.client(t)
	_, err := c.CreateObservation(context.Background(), testResource, testID)
	if ee := asError(t, err); ee.Class != ClassUnknown || ee.Code != "response_too_large" || ee.HTTPStatus != 200 {
		t.Errorf("create: %v", ee)
	}
	_, _, err = c.FindObservation(context.Background(), testID, "")
	if ee := asError(t, err); ee.Class != ClassRetryable || ee.Code != "response_too_large" {
		t.Errorf("find: %v", ee)
	}
	e.token = flood
	if ee := asError(t, e.client(t).Authenticate(context.Background())); ee.Class != ClassRetryable || ee.Code != "response_too_large" {
		t.Errorf("token: %v", ee)
	}
	if sent.Load() >= size {
		t.Errorf("the server could send %d bytes", sent.Load())
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

// TestGarbageOnTheWire: what a broken server says in place of HTTP is not repeated in errors.
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

// TestTrustedTLS runs the whole path over https, HTTP/2 included.
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
