package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// The kinds of fault. Those of the first group change how a request is handled and may come together; of the second and
// third group the oldest that fits applies.
const (
	kindSlow              = "slow"
	kindSlowAfter         = "slow_after"
	kindIgnoreIfNoneExist = "ignore_if_none_exist"
	kindRejectIfNoneExist = "reject_if_none_exist"
	kindStandardStatus    = "standard_status"
	kindEmptySearch       = "empty_search"
	kindStrictSearch      = "strict_search"
	kindNarrowScope       = "narrow_scope"

	kindResetBefore  = "reset_before"
	kindUnauthorized = "unauthorized"
	kindForbidden    = "forbidden"
	kindThrottle     = "throttle"
	kindError500     = "error_500"
	kindError502     = "error_502"
	kindError503     = "error_503"
	kindError504     = "error_504"
	kindHTML         = "html"
	kindTokenDown    = "token_down"
	kindAccessDenied = "access_denied"

	kindResetAfter = "reset_after"
	kindMalformed  = "malformed_json"
	kindTruncated  = "truncated"
	kindNoID       = "no_id"
	kindDuplicate  = "duplicate"
)

type phase int

const (
	changesHandling phase = iota
	insteadOfHandling
	afterHandling
)

// faultKind is what can be asked for. The first of its targets is the default.
type faultKind struct {
	Kind    string      `json:"kind"`
	Targets []operation `json:"targets"`
	Does    string      `json:"does"`
	phase   phase
}

const opAny operation = "any" // as a target only

func faultKinds() []faultKind {
	every := []operation{opAny, opToken, opCreate, opSearch, opRead}
	create, search, token := []operation{opCreate}, []operation{opSearch}, []operation{opToken}
	return []faultKind{
		{kindSlow, every, "waits for delay, then handles the request, even if the client has gone", changesHandling},
		{kindSlowAfter, every, "handles the request, then waits for delay before the answer", changesHandling},
		{kindIgnoreIfNoneExist, create, "ignores If-None-Exist and creates again", changesHandling},
		{kindRejectIfNoneExist, create, "answers 400 to a create with If-None-Exist", changesHandling},
		{kindStandardStatus, create, `answers a Bundle with "201 Created" in place of "1"`, changesHandling},
		{kindEmptySearch, search, "finds nothing, as while a write waits in a queue", changesHandling},
		{kindStrictSearch, search, "refuses a search for Observations with _count or without category", changesHandling},
		{kindNarrowScope, token, "grants no scope that writes Observations", changesHandling},
		{kindResetBefore, every, "resets the connection, nothing is handled", insteadOfHandling},
		{kindUnauthorized, every, "answers 401 and revokes the access token used", insteadOfHandling},
		{kindForbidden, every, "answers 403", insteadOfHandling},
		{kindThrottle, every, "answers 429 to this and every other request until the top of the minute, or for retry_after, which is then announced", insteadOfHandling},
		{kindError500, every, "answers 500", insteadOfHandling},
		{kindError502, every, "answers 502 with HTML, as a gateway does", insteadOfHandling},
		{kindError503, every, "answers 503, with Retry-After if retry_after is given", insteadOfHandling},
		{kindError504, every, "answers 504 with HTML, as a gateway does", insteadOfHandling},
		{kindHTML, every, "answers 200 with an HTML page of a gateway, nothing is handled", insteadOfHandling},
		{kindTokenDown, token, "answers 503 with HTML: the token server is down", insteadOfHandling},
		{kindAccessDenied, token, "answers access_denied, which eCW sends with status 500", insteadOfHandling},
		{kindResetAfter, every, "handles (stores), then resets the connection", afterHandling},
		{kindMalformed, every, "handles (stores), then answers with broken JSON and no Location", afterHandling},
		{kindTruncated, every, "handles (stores), then sends half of the answer, without Location, and closes", afterHandling},
		{kindNoID, create, "handles (stores), then answers without id and Location", afterHandling},
		{kindDuplicate, create, "handles (stores), then answers 200 with an OperationOutcome duplicate", afterHandling},
	}
}

func kindNamed(name string) (faultKind, bool) {
	kinds := faultKinds()
	i := slices.IndexFunc(kinds, func(k faultKind) bool { return k.Kind == name })
	if i < 0 {
		return faultKind{}, false
	}
	return kinds[i], true
}

// fault is one that was asked for. It ends after a number of requests or at a time, never both.
type fault struct {
	ID         int       `json:"id"`
	Kind       string    `json:"kind"`
	Target     operation `json:"target"`
	Remaining  int       `json:"remaining,omitempty"`
	Until      time.Time `json:"until,omitzero"`
	Delay      string    `json:"delay,omitempty"`
	RetryAfter string    `json:"retry_after,omitempty"`
	Hits       int       `json:"hits"`

	phase      phase
	delay      time.Duration
	retryAfter time.Duration
}

func (f *fault) over(now time.Time) bool {
	if f.Until.IsZero() {
		return f.Remaining == 0
	}
	return !now.Before(f.Until)
}

// faults are the ones in force, oldest first.
type faults struct {
	mu   sync.Mutex
	list []*fault
	last int // id given
}

func (fs *faults) add(f fault) fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.last++
	f.ID = fs.last
	kept := f
	fs.list = append(fs.list, &kept)
	return f
}

func (fs *faults) clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list = nil
}

func (fs *faults) active(now time.Time) []fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.prune(now)
	list := make([]fault, 0, len(fs.list))
	for _, f := range fs.list {
		list = append(list, *f)
	}
	return list
}

func (fs *faults) prune(now time.Time) {
	fs.list = slices.DeleteFunc(fs.list, func(f *fault) bool { return f.over(now) })
}

// effects are what the faults do to one request.
type effects struct {
	kinds             []string
	delay, delayAfter time.Duration
	decisive          fault // of the kinds that answer or spoil the answer; Kind "" = none
}

func (e effects) has(kind string) bool { return slices.Contains(e.kinds, kind) }

// take spends the faults that fit a request, whatever becomes of the request then.
func (fs *faults) take(op operation, now time.Time) effects {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.prune(now)
	var e effects
	for _, f := range fs.list {
		if f.Target != opAny && f.Target != op {
			continue
		}
		if f.phase != changesHandling && e.decisive.Kind != "" {
			continue
		}
		f.Hits++
		if f.Until.IsZero() {
			f.Remaining--
		}
		switch {
		case f.Kind == kindSlow:
			e.delay += f.delay
		case f.Kind == kindSlowAfter:
			e.delayAfter += f.delay
		case f.phase == changesHandling:
			e.kinds = append(e.kinds, f.Kind)
		default:
			e.decisive = *f
		}
	}
	return e
}

// underFault handles a request, or not, as the fault in force has it.
func (s *Server) underFault(c *call, next endpoint) reply {
	f := c.effects.decisive
	switch {
	case f.Kind == "":
		return next(c)
	case f.phase == insteadOfHandling:
		return s.refuseByFault(c, f)
	default:
		return spoil(f.Kind, next(c))
	}
}

func (s *Server) refuseByFault(c *call, f fault) reply {
	failure := func(status int, code, detail string) reply {
		return c.fail(problem{status: status, code: code, detail: detail + " (a fault asked for)"})
	}
	switch f.Kind {
	case kindResetBefore:
		return reply{reset: true}
	case kindUnauthorized:
		return s.unauthorizedByFault(c)
	case kindForbidden:
		return failure(http.StatusForbidden, "forbidden", "the app may not do this")
	case kindThrottle:
		return s.throttleByFault(c, f)
	case kindError500:
		return failure(http.StatusInternalServerError, "exception", "internal error")
	case kindError503:
		return announce(failure(http.StatusServiceUnavailable, "transient", "down for maintenance"), f.retryAfter)
	case kindAccessDenied:
		return oauthError(http.StatusInternalServerError, "access_denied", "a fault asked for")
	case kindError502:
		return gatewayPage(http.StatusBadGateway)
	case kindError504:
		return gatewayPage(http.StatusGatewayTimeout)
	case kindTokenDown:
		return gatewayPage(http.StatusServiceUnavailable)
	default: // kindHTML
		return gatewayPage(http.StatusOK)
	}
}

// unauthorizedByFault revokes the token as well: a client that goes on with it stays out, one that mints another gets in.
func (s *Server) unauthorizedByFault(c *call) reply {
	if c.op == opToken {
		return oauthError(http.StatusUnauthorized, "invalid_client", "a fault asked for")
	}
	if token, ok := bearer(c.Request); ok {
		s.tokens.revoke(token)
	}
	return unauthorized("invalid_token", "the access token was revoked (a fault asked for)")
}

func (s *Server) throttleByFault(c *call, f fault) reply {
	now := s.now()
	until := now.Truncate(time.Minute).Add(time.Minute)
	if f.retryAfter > 0 {
		until = now.Add(f.retryAfter)
	}
	s.limiter.block(until)
	return announce(c.fail(throttled()), f.retryAfter)
}

// announce adds Retry-After, in whole seconds and never too early.
func announce(rep reply, after time.Duration) reply {
	if after > 0 {
		rep.header.Set("Retry-After", strconv.Itoa(int((after+time.Second-1)/time.Second)))
	}
	return rep
}

func gatewayPage(status int) reply {
	body := fmt.Sprintf("<!DOCTYPE html><html><head><title>%[1]d</title></head><body><h1>%[1]d %[2]s</h1><p>gateway</p></body></html>\n", status, http.StatusText(status))
	return reply{status: status, contentType: typeHTML, header: http.Header{}, body: []byte(body)}
}

// spoil takes from a good answer what the client would need. An answer that refuses anyway stays as it is, except that the
// connection may be cut.
func spoil(kind string, rep reply) reply {
	switch {
	case kind == kindResetAfter:
		return reply{reset: true}
	case rep.status >= 300:
		return rep
	}
	if rep.header != nil {
		rep.header.Del("Location")
	}
	switch kind {
	case kindMalformed:
		rep.body = bytes.Replace(rep.body, []byte(":"), []byte(" "), 1)
	case kindTruncated:
		rep.cut = true
	case kindNoID:
		rep.body = withoutID(rep.body)
	case kindDuplicate:
		rep = outcomeReply(http.StatusOK, problem{code: "duplicate", detail: "this Observation was received before (a fault asked for)"})
	}
	return rep
}

// withoutID is the answer to a create with everything but the id.
func withoutID(body []byte) []byte {
	var r struct {
		ResourceType string          `json:"resourceType"`
		Type         string          `json:"type,omitempty"`
		Entry        []responseEntry `json:"entry,omitempty"`
	}
	if json.Unmarshal(body, &r) != nil {
		return nil
	}
	for i := range r.Entry {
		r.Entry[i].Response.Location = ""
	}
	stripped, err := encode(r)
	if err != nil {
		return nil
	}
	return stripped
}
