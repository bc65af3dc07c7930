package ecw

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// connectTimeout bounds the dial and, once more, the TLS handshake.
	connectTimeout = 10 * time.Second
	// idleTimeout is shorter than that of servers and load balancers. A POST on a connection that the other
	// side is just closing would have an unknown outcome.
	idleTimeout = 30 * time.Second
	idlePerHost = 32
	// maxBody bounds an answer in bytes; an Observation or the result of a search for one has a few kilobytes.
	maxBody = 1 << 20
	// maxReadBody is the bound of a CapabilityStatement, a page of patients, or a patient with a photograph.
	maxReadBody    = 8 << 20
	maxHeaderBytes = 64 << 10

	userAgent = "vantrexia"
	mediaFHIR = "application/fhir+json"
)

var errTooLarge = errors.New("the answer is too large")

// wire sends single HTTP requests and reads their answers whole. It follows no redirect, so that a token
// never reaches a host that was not configured.
//
// It never carries out a write twice: Go's transport repeats a POST by itself only if nothing of it was
// written, or if an HTTP/2 server says that it did not process it. Never set the header Idempotency-Key: with
// it Go repeats a POST that may have arrived.
type wire struct {
	http    *http.Client
	timeout time.Duration
	limiter Limiter // nil: none
	now     func() time.Time
}

func newWire(cfg Config) *wire {
	return &wire{
		timeout: cfg.Timeout,
		limiter: cfg.Limiter,
		now:     cfg.Now,
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
				TLSHandshakeTimeout:    connectTimeout,
				IdleConnTimeout:        idleTimeout,
				MaxIdleConnsPerHost:    idlePerHost,
				MaxResponseHeaderBytes: maxHeaderBytes,
				ForceAttemptHTTP2:      true,
			},
		},
	}
}

// request is one HTTP request; op is the operation it belongs to.
type request struct {
	op, method, url string
	header          http.Header
	body            []byte
	limit           int64 // of the answer's body in bytes; 0 is maxBody
}

// response is an answer, read to its end.
type response struct {
	status int
	header http.Header
	body   []byte
	// bodyErr is set when the answer could not be read whole.
	bodyErr *Error
}

// send sends req once, if the limiter permits it, and reads the answer, whatever its status. The error is an
// *Error and means that no answer came.
func (w *wire) send(ctx context.Context, req request) (*response, error) {
	end, err := w.begin(ctx, req.op)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	res, repeats, err := w.exchange(ctx, req)
	if err == nil && res.status == http.StatusTooManyRequests {
		w.pause(ctx, res.header)
	}
	end(ctx, observed(time.Since(began), res, err, repeats))
	return res, err
}

// exchange also returns how often Go's transport has sent the request again by itself.
func (w *wire) exchange(ctx context.Context, req request) (out *response, repeats int, err error) {
	limited, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()

	f := &flight{
		op:      req.op,
		caller:  ctx,
		timeout: w.timeout,
		limit:   orDefault(req.limit, maxBody),
	}

	defer func() { repeats = int(f.repeats.Load()) }()
	hr, err := http.NewRequestWithContext(httptrace.WithClientTrace(limited, f.trace()), req.method, req.url, bytes.NewReader(req.body))
	if err != nil {
		return nil, 0, &Error{
			Class:   ClassPermanentCredentials,
			Op:      req.op,
			Code:    "request",
			Message: "the request to eCW cannot be built; check ECW_TOKEN_URL and ECW_FHIR_BASE_URL",
		}
	}

	hr.Header = req.header.Clone()
	hr.Header.Set("User-Agent", userAgent)
	res, err := w.http.Do(hr)
	if err != nil {
		return nil, 0, f.failure(err)
	}
	defer res.Body.Close()
	out = &response{status: res.StatusCode, header: res.Header}
	out.body, err = readAtMost(res.Body, f.limit)
	if err != nil {
		out.bodyErr = f.failure(err)
		out.bodyErr.HTTPStatus = res.StatusCode
	}

	return out, 0, nil
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(body)) > limit:
		return nil, errTooLarge
	}
	return body, nil
}

// isJSON reports whether the answer's content type is JSON. An answer without a content type counts as JSON.
func (r *response) isJSON() bool {
	ct := r.header.Get("Content-Type")
	if ct == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(ct)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

// flight observes one request on its way. Its flags are set by the transport's goroutines.
type flight struct {
	op      string
	caller  context.Context
	timeout time.Duration
	limit   int64

	left      atomic.Bool // the header was written, so the server may have acted on the request
	repeats   atomic.Int32
	tlsFailed atomic.Bool
}

func (f *flight) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		// The transport asks for a second connection if nothing was written to the first, or if the first broke and
		// the request is a GET.
		GetConn: func(string) {
			if f.left.Swap(false) {
				f.repeats.Add(1)
			}
		},
		WroteHeaders: func() { f.left.Store(true) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err != nil {
				f.tlsFailed.Store(true)
			}
		},
	}
}

// failure classes an error of the transport by whether the request had left.
func (f *flight) failure(err error) *Error {
	e := &Error{Class: ClassRetryable, Op: f.op, Err: printable(err)}
	if f.left.Load() {
		e.Class = settle(f.op, ClassUnknown)
	}

	var dns *net.DNSError
	var netErr net.Error
	switch {
	case f.caller.Err() != nil:
		e.Code, e.Message, e.Err = "canceled", "the request was cancelled before eCW answered", f.caller.Err()
	case errors.Is(err, errTooLarge):
		e.Code, e.Message = "response_too_large", fmt.Sprintf("eCW's answer is larger than %d bytes and was not read", f.limit)
	case errors.As(err, &dns) && !f.left.Load():
		e.Code, e.Message = "dns", "eCW's host name cannot be resolved; check the network and the eCW URLs"
	case errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Message = "timeout", "eCW connection timeout after "+f.timeout.String()
	case f.left.Load():
		e.Code, e.Message = "reset", "eCW closed the connection before its answer was complete"
	case errors.As(err, &netErr) && netErr.Timeout():
		e.Code, e.Message = "timeout", "eCW connection timeout after "+connectTimeout.String()
	case f.tlsFailed.Load():
		e.Code, e.Message = "tls", "no secure connection to eCW; check the certificate and any proxy in between"
	default:
		e.Code, e.Message = "connect", "eCW cannot be reached; check the network and the eCW URLs"
	}

	return e
}

// printable returns the part of a transport's error that may be shown. It leaves out the URL, which may
// contain a patient's id, and the server's data, which Go's HTTP parser quotes in its errors.
func printable(err error) error {
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError

	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.As(err, &op):
		return op
	case errors.As(err, &dns):
		return dns
	case errors.As(err, &cert):
		return cert
	case errors.As(err, &authority):
		return authority
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	case errors.Is(err, io.EOF):
		return io.EOF
	}

	return nil
}
