package sandbox

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"
)

// maxBody is more than any Observation needs.
const maxBody = 1 << 20

// operation is a kind of request, as the target of a fault.
type operation string

const (
	opToken  operation = "token"
	opCreate operation = "create" // an Observation, alone or in a Bundle
	opSearch operation = "search"
	opRead   operation = "read" // a resource by id, metadata, and everything else
)

// call is a request with its body and the effects of the faults that match it.
type call struct {
	*http.Request
	op      operation
	body    []byte
	effects effects
}

// reply is an answer before it is sent, so that a fault can still spoil it.
type reply struct {
	status      int
	contentType string
	header      http.Header
	body        []byte

	reset bool // cut the connection instead of answering
	cut   bool // announce the whole body and send half of it
}

const (
	typeJSON = "application/json"
	typeFHIR = "application/fhir+json; charset=utf-8"
	typeHTML = "text/html; charset=utf-8"
)

type endpoint func(*call) reply

// ehr makes a handler of an endpoint of the EHR itself. Its requests are counted, limited and subject to
// faults.
func (s *Server) ehr(route string, op operation, next endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.now()
		s.stats.begin()
		rep := s.answer(w, r, op, next)
		s.stats.end(route, rep)
		s.log.LogAttrs(r.Context(), slog.LevelDebug, "sandbox request", slog.String("route", route),
			slog.Int("status", rep.status), slog.Bool("reset", rep.reset), slog.Duration("took", s.now().Sub(start)))
		s.send(w, rep)
	})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, op operation, next endpoint) reply {
	// The body is read first, because a real server handles a request even if its client gives up after
	// sending it.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	c := &call{Request: r, op: op, body: body}
	var tooLarge *http.MaxBytesError

	switch {
	case errors.As(err, &tooLarge):
		return c.fail(problem{
			status: http.StatusRequestEntityTooLarge,
			code:   "too-long",
			number: numberTooLarge,
			detail: "the body is larger than 1 MiB",
		})
	case err != nil:
		return c.fail(problem{status: http.StatusBadRequest, code: "structure", detail: "the body ended early"})
	}

	if rep, ok := s.admit(c); !ok {
		return rep
	}

	c.effects = s.faults.take(op, s.now())
	if c.effects.work > 0 {
		s.capacity.use(c.effects.work)
	}

	s.wait(c.effects.delay)
	rep := withText(s.underFault(c, next), c.effects.text)
	s.wait(c.effects.delayAfter)
	return rep
}

// admit applies the limit on requests.
func (s *Server) admit(c *call) (reply, bool) {
	if s.limiter.allow(s.now()) {
		return reply{}, true
	}
	return c.fail(throttled()), false
}

// wait sleeps until the time is over or the server closes. It does not end with the request, because a slow
// server goes on working after its client has given up.
func (s *Server) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.closing:
	}
}

func (s *Server) send(w http.ResponseWriter, rep reply) {
	if rep.reset {
		s.cutConnection(w)
		return
	}

	for name, values := range rep.header {
		w.Header()[name] = values
	}

	if rep.contentType != "" {
		w.Header().Set("Content-Type", rep.contentType)
	}

	w.Header().Set("Content-Length", strconv.Itoa(len(rep.body)))
	w.WriteHeader(rep.status)
	body := rep.body
	if rep.cut {
		body = body[:len(body)/2] // net/http closes the connection of an answer shorter than its Content-Length
	}

	_, _ = w.Write(body) // an error means that the client has gone, which does not matter here
}

// cutConnection ends the connection with a TCP reset, as a crashed server or a firewall does.
func (s *Server) cutConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.log.Error("sandbox cannot reset this connection", "error", err)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// jsonReply answers with v as JSON. v is of this package's own types, whose encoding cannot fail.
func jsonReply(status int, contentType string, v any) reply {
	body, err := encode(v)
	if err != nil {
		return reply{status: http.StatusInternalServerError}
	}
	return reply{
		status:      status,
		contentType: contentType,
		header:      http.Header{},
		body:        body,
	}
}

// fail answers with the error in the form of the endpoint: that of OAuth or that of FHIR.
func (c *call) fail(p problem) reply {
	if c.op == opToken {
		return p.oauth()
	}
	return p.outcome()
}
