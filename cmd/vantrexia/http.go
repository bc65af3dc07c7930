package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// listen opens a TCP port. setting is the setting that holds the address, for the error.
func listen(address, setting string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken: stop what listens there, or choose another address with %s", address, setting)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q is not an address to listen on; use host:port or :port: %w", setting, address, err)
	}
	return listener, nil
}

// patienceWith is how long a server waits for a caller. None of these times begins anew with each byte, so a
// caller that is slow on purpose cannot stretch them.
type patienceWith struct {
	header time.Duration // the whole header of a request, from the connection on
	body   time.Duration // the whole body of a request
	idle   time.Duration // the next request on a connection
	// write is for each write of an answer. The whole answer has no deadline: a stream may go on for hours.
	write time.Duration
}

func usualPatience() patienceWith {
	return patienceWith{
		header: 10 * time.Second,
		body:   30 * time.Second,
		idle:   2 * time.Minute,
		write:  30 * time.Second,
	}
}

// maxHeaderBytes is the largest header that is taken, all fields together.
const maxHeaderBytes = 32 << 10

// newServer returns a server that no slow caller can hold up.
func newServer(handler http.Handler, patience patienceWith) *http.Server {
	return &http.Server{
		Handler:           patience.with(handler),
		ReadHeaderTimeout: patience.header,
		IdleTimeout:       patience.idle,
		MaxHeaderBytes:    maxHeaderBytes,
	}
}

// with sets the deadlines of the body and of each write. ReadTimeout and WriteTimeout of http.Server would end
// every stream: the former cancels a request whose answer takes longer than its body may.
func (p patienceWith) with(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetWriteDeadline(time.Time{}) // that of the answer before, on the same connection
		if r.Body != nil && r.Body != http.NoBody {
			_ = control.SetReadDeadline(time.Now().Add(p.body))
			r.Body = &timedBody{ReadCloser: r.Body, control: control}
		}
		handler.ServeHTTP(&timedWriter{ResponseWriter: w, control: control, timeout: p.write}, r)
	})
}

// timedBody takes the deadline of a body away when it was read whole.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *timedBody) Read(into []byte) (int, error) {
	n, err := b.ReadCloser.Read(into)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// timedWriter gives each write of an answer a deadline.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func (w *timedWriter) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) }

func (w *timedWriter) WriteHeader(status int) {
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *timedWriter) Write(data []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(data)
}

// FlushError is what http.ResponseController calls.
func (w *timedWriter) FlushError() error {
	w.extend()
	return w.control.Flush()
}

// Unwrap leads http.ResponseController to the connection.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// connectionLog takes what net/http says of connections. Handshakes that fail are everyday: anybody may try.
type connectionLog struct{ log *slog.Logger }

func (l connectionLog) Write(line []byte) (int, error) {
	level, text := slog.LevelWarn, strings.TrimSpace(string(line))
	if strings.Contains(text, "TLS handshake error") {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "the HTTP server reports", "error", text)
	return len(line), nil
}

// serveHTTP serves until ctx ends. Then it waits for the requests under way, for as long as drain.
func serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler, drain time.Duration) error {
	return serveOn(ctx, listener, newServer(handler, usualPatience()), drain)
}

// serveOn is serveHTTP for a server that was made already. It serves TLS when the server has a configuration
// of it.
func serveOn(ctx context.Context, listener net.Listener, server *http.Server, drain time.Duration) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		err := server.Shutdown(limited)
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.Join(fmt.Errorf("requests that had not ended after %s (DRAIN_TIMEOUT) were cut off", drain), server.Close())
		}
		stopped <- err
	})

	serve := server.Serve
	if server.TLSConfig != nil {
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") } // the configuration has the certificate
	}
	if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	return <-stopped
}

// localURL returns the URL under which this machine reaches a server of its own that listens on address.
func localURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://" + address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
