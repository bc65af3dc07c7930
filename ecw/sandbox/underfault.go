package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// underFault handles a request as the decisive fault demands, if there is one.
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
	case kindRedirect:
		rep := gatewayPage(http.StatusTemporaryRedirect)
		rep.header.Set("Location", f.Location)
		return rep
	case kindNumber:
		return refuseByNumber(c, f.Number)
	default: // kindHTML
		return gatewayPage(http.StatusOK)
	}
}

// refuseByNumber gives no reason but the number, as eCW does in a Bundle's entry.
func refuseByNumber(c *call, number string) reply {
	if strings.HasSuffix(c.URL.Path, "/Observation") {
		return problem{
			status: http.StatusBadRequest,
			code:   "processing",
			number: number,
			detail: "a fault asked for",
		}.outcome()
	}
	return entryReply(entryResponse{Status: number})
}

// unauthorizedByFault also revokes the token, so that a client is refused until it gets a new one.
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

// announce adds Retry-After in whole seconds, rounded up.
func announce(rep reply, after time.Duration) reply {
	if after > 0 {
		rep.header.Set("Retry-After", strconv.Itoa(int((after+time.Second-1)/time.Second)))
	}
	return rep
}

func gatewayPage(status int) reply {
	const page = "<!DOCTYPE html><html><head><title>%[1]d</title></head><body><h1>%[1]d %[2]s</h1><p>gateway</p></body></html>\n"
	body := fmt.Sprintf(page, status, http.StatusText(status))
	return reply{
		status:      status,
		contentType: typeHTML,
		header:      http.Header{},
		body:        []byte(body),
	}
}

// largeBody is many times the size of any sound answer.
const largeBody = 10 << 20

// spoil removes from a successful answer what the client would need. A refusal stays as it is, unless the
// connection is cut.
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
	case kindLarge:
		rep.body = append(bytes.Clone(rep.body), bytes.Repeat([]byte("\n"), largeBody)...)
	case kindWrongType:
		rep.contentType = "text/plain; charset=utf-8"
	}

	return rep
}

// withoutID is the answer to a create without the id.
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
