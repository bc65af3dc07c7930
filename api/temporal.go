package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"
	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/payload"
)

// decodePath is where Temporal's command line and Web UI have payloads decoded: the codec endpoint that they are
// given, and /decode. There is no /encode: whoever could call it would write into workflows.
const decodePath = "/api/v1/temporal/decode"

// headerNamespace is how they say of which namespace the payloads are.
const headerNamespace = "X-Namespace"

// decodePayloads opens payloads of our namespace. What is not sealed comes back as it is, which is the protocol's
// rule, and what the caller has already. Nothing but payloads of workflows can be opened here: columns of the
// database are sealed with other keys.
func (s *server) decodePayloads(c echo.Context) error {
	var sent commonpb.Payloads
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body(c), &sent); err != nil {
		return malformed("The payloads cannot be read: send them as Temporal's protobuf messages in JSON, with bytes in base64.")
	}

	var b broken
	if asked := c.Request().Header.Get(headerNamespace); asked != "" && asked != s.Payloads.Namespace {
		b.add(headerNamespace, "is not the namespace of this installation: use %s", s.Payloads.Namespace)
		return b.err()
	}

	opened := make([]*commonpb.Payload, len(sent.GetPayloads()))
	for i, p := range sent.GetPayloads() {
		opened[i] = p
		if !payload.Sealed(p) {
			continue
		}
		plain, err := s.Payloads.Decode([]*commonpb.Payload{p})
		if err != nil {
			b.add(fmt.Sprintf("payloads[%d]", i), "cannot be opened: %v", err)
			continue
		}
		opened[i] = plain[0]
	}
	if err := b.err(); err != nil {
		return err
	}

	answer, err := protojson.Marshal(&commonpb.Payloads{Payloads: opened})
	if err != nil {
		return err
	}

	e := s.eventOf(callerOf(c), audit.PayloadDecode, payloadResource, nil)
	e.Reason = fmt.Sprintf("%d payloads", len(opened))
	if err := s.showing(c, e); err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, answer)
}

// answerTemporalUI lets the page of our Temporal Web UI, and no other, call decodePath (the Fetch standard's CORS
// protocol). It answers the browser's question before the request, which carries no token.
func (s *server) answerTemporalUI(next echo.HandlerFunc) echo.HandlerFunc {
	ours := OriginOf(s.TemporalUIURL)
	return func(c echo.Context) error {
		if c.Request().URL.Path != decodePath {
			return next(c)
		}

		header := c.Response().Header()
		header.Add(echo.HeaderVary, echo.HeaderOrigin)
		allowed := ours != "" && c.Request().Header.Get(echo.HeaderOrigin) == ours
		if allowed {
			header.Set(echo.HeaderAccessControlAllowOrigin, ours)
		}
		if c.Request().Method != http.MethodOptions {
			return next(c)
		}
		if allowed {
			header.Set(echo.HeaderAccessControlAllowMethods, http.MethodPost)
			header.Set(echo.HeaderAccessControlAllowHeaders, strings.Join([]string{
				echo.HeaderAuthorization, echo.HeaderContentType, headerNamespace,
			}, ", "))
			header.Set(echo.HeaderAccessControlMaxAge, "600")
		}
		return c.NoContent(http.StatusNoContent)
	}
}

// OriginOf is the origin of a page's URL, as browsers write it: in small letters, and without the port that the
// scheme has anyway (RFC 6454 §4 and §6.2). It is empty for what is no http or https URL.
func OriginOf(page string) string {
	u, err := url.Parse(page)
	if err != nil || u.Host == "" {
		return ""
	}

	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	default:
		return ""
	}
	return u.Scheme + "://" + host
}
