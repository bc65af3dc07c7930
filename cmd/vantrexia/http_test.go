package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The times of these tests are short, and what they wait for has minutes: a loaded machine makes them late, and
// does not make them fail.
func shortPatience() patienceWith {
	return patienceWith{
		header: 300 * time.Millisecond,
		body:   300 * time.Millisecond,
		idle:   300 * time.Millisecond,
		write:  300 * time.Millisecond,
	}
}

// serveForTest serves a handler on a port of its own until the test ends.
func serveForTest(t *testing.T, server *http.Server, wrap func(net.Listener) net.Listener) (address string) {
	t.Helper()
	listener, err := listen("127.0.0.1:0", "a test")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	if wrap != nil {
		listener = wrap(listener)
	}

	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, listener, server, time.Second) }()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return address
}

// conn is a caller that writes what it likes, when it likes.
type conn struct {
	net.Conn
	t *testing.T
}

func dial(t *testing.T, address string) conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return conn{c, t}
}

func (c conn) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// drip sends a byte now and then, each well within the server's patience, until the server hangs up.
func (c conn) drip(text string) {
	go func() {
		for {
			for i := range len(text) {
				if _, err := c.Write([]byte{text[i]}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
}

// end reads what the server says until it hangs up.
func (c conn) end() string {
	c.t.Helper()
	said, err := io.ReadAll(c.Conn)
	if err, isNet := err.(net.Error); isNet && err.Timeout() {
		c.t.Fatalf("the server does not hang up; it said %q", said)
	}
	return string(said)
}

// A caller that sends slowly is cut off, however steadily its bytes come.
func TestASlowCallerIsCutOff(t *testing.T) {
	t.Parallel()
	read := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	address := serveForTest(t, newServer(read, shortPatience()), nil)

	const start = "POST / HTTP/1.1\r\nHost: a\r\n"
	for name, caller := range map[string]struct {
		send, drip string
		said       string
	}{
		"says nothing":               {"", "", ""},
		"drips the header":           {start, "X-A: b\r\n", ""},
		"stops in the header":        {start, "", ""},
		"drips a body with a length": {start + "Content-Length: 100000\r\n\r\n", "x", "400"},
		"drips chunks":               {start + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", "400"},
		"stops in the body":          {start + "Content-Length: 5\r\n\r\nab", "", "400"},
		"keeps the connection":       {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, address)
			c.send(caller.send)
			if caller.drip != "" {
				c.drip(caller.drip)
			}
			if said := c.end(); caller.said != "" && !strings.HasPrefix(said, "HTTP/1.1 "+caller.said) {
				t.Errorf("the server said %q, want %s", said, caller.said)
			}
		})
	}
}

func TestALargeHeaderIsRefused(t *testing.T) {
	t.Parallel()
	address := serveForTest(t, newServer(http.NotFoundHandler(), usualPatience()), nil)
	c := dial(t, address)
	go func() {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX-A: "+strings.Repeat("a", 2*maxHeaderBytes)+"\r\n\r\n")
	}()
	if said := c.end(); !strings.HasPrefix(said, "HTTP/1.1 431") {
		t.Errorf("the server said %.60q, want 431", said)
	}
}

// A stream may go on for longer than any of the times, as long as its reader takes what it is sent. Neither the
// deadline of the body nor that of a write ends it.
func TestAStreamGoesOn(t *testing.T) {
	t.Parallel()
	const lines = 8
	stream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		for i := range lines {
			fmt.Fprintln(w, i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			time.Sleep(150 * time.Millisecond)
		}
		if err := r.Context().Err(); err != nil {
			t.Errorf("the request was ended: %v", err)
		}
	})
	patience := shortPatience()
	address := serveForTest(t, newServer(stream, patience), nil)

	for _, body := range []string{"", "a body"} {
		res, err := http.Post("http://"+address, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()

		got := 0
		for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
			got++
		}
		if got != lines {
			t.Errorf("%d lines came, want %d", got, lines)
		}
	}
}

// A connection goes on to be used after an answer whose deadlines have passed, with Expect: 100-continue too.
func TestOldDeadlinesEndNoLaterRequest(t *testing.T) {
	t.Parallel()
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	patience := shortPatience()
	patience.idle = time.Minute
	address := serveForTest(t, newServer(echo, patience), nil)
	c := dial(t, address)
	answers := bufio.NewReader(c)
	for range 2 {
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
		if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
			t.Fatalf("got %q, %v", line, err)
		}
		_, _ = answers.ReadString('\n')

		c.send("ab")
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != "ab" {
			t.Fatalf("got %q, %v", got, err)
		}
		time.Sleep(2 * patience.write)
	}
}

// A caller that does not read its answer holds up a write, and no longer.
func TestACallerThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	flood := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for {
			if _, err := w.Write(chunk); err != nil {
				ended <- err
				return
			}
		}
	})
	address := serveForTest(t, newServer(flood, shortPatience()), nil)
	dial(t, address).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the handler still writes")
	}
}

// isOpen reports whether the server answers on a connection.
func (c conn) isOpen() bool {
	c.t.Helper()
	_, _ = io.WriteString(c.Conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	line, _ := bufio.NewReader(c.Conn).ReadString('\n')
	return strings.HasPrefix(line, "HTTP/1.1")
}

func TestAnAddressHasSomeConnections(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	for name, tc := range map[string]struct {
		trusted []netip.Prefix
		open    int
	}{
		"anybody": {nil, 2},
		"a proxy": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := doorConfig{Connections: 100, PerAddress: 2, TrustedProxies: tc.trusted}
			address := serveForTest(t, newServer(http.NotFoundHandler(), usualPatience()),
				func(l net.Listener) net.Listener { return limitConnections(l, cfg, log) })

			var all []conn
			for i := range 4 {
				c := dial(t, address)
				if open := c.isOpen(); open != (i < tc.open) {
					t.Errorf("connection %d is open: %t", i, open)
				}
				all = append(all, c)
			}

			_ = all[0].Close() // another may come in its place, as soon as the server has noticed
			deadline := time.Now().Add(patience)
			for !dial(t, address).isOpen() {
				if time.Now().After(deadline) {
					t.Fatal("a closed connection still counts")
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// Beyond the most connections a caller waits until another one is closed.
func TestThereAreSoManyConnectionsAltogether(t *testing.T) {
	t.Parallel()
	cfg := doorConfig{Connections: 1, PerAddress: 10}
	address := serveForTest(t, newServer(http.NotFoundHandler(), usualPatience()),
		func(l net.Listener) net.Listener { return limitConnections(l, cfg, slog.New(slog.DiscardHandler)) })

	first, second := dial(t, address), dial(t, address)
	if !first.isOpen() {
		t.Fatal("the first connection is not served")
	}
	_ = second.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if second.isOpen() {
		t.Fatal("the second is served beside the first")
	}

	_ = first.Close()
	_ = second.SetReadDeadline(time.Now().Add(patience))
	if line, err := bufio.NewReader(second).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1") {
		t.Errorf("the second is not served after the first: %q, %v", line, err)
	}
}

// Handshakes that fail are no news at the level that an installation logs, other troubles are.
func TestFailedHandshakesAreNoNews(t *testing.T) {
	t.Parallel()
	var out output
	said := log.New(connectionLog{slog.New(slog.NewTextHandler(&out, nil))}, "", 0)
	said.Print("http: TLS handshake error from 192.0.2.1:40000: EOF")
	if text := out.text(); text != "" {
		t.Errorf("logged: %s", text)
	}
	said.Print("http: Accept error: too many open files; retrying in 1s")
	if text := out.text(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "too many open files") {
		t.Errorf("logged: %s", text)
	}
}
