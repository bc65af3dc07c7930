// Package ecw is the client of eClinicalWorks (eCW): it proves who we are (SMART Backend Services), creates
// FHIR R4 Observations there, looks them up again, reads the practice's patients, and says of every failure
// what it means for the reading (see [Class]).
//
// It never repeats a write on its own, except once after a 401, which eCW answers before it stores anything,
// and once when eCW refuses the condition of a conditional create. Whether, when and after what a delivery is
// repeated is the caller's decision, and [Error.Class] is all it needs to take it.
//
// Nothing here was checked against the live eCW service; where public sources and FHIR's specification
// differ, the comment at that place says so.
package ecw

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// Client talks to one practice of eCW. It is safe for concurrent use and meant to be shared: the access token
// and the connections live in it, in memory only.
type Client struct {
	wire      *wire
	tokens    *tokenSource
	baseURL   string // without a trailing slash
	writeMode WriteMode
	habits    *habits
	log       *slog.Logger
	now       func() time.Time
}

// Identifier is the business identifier that makes a reading recognisable in the EHR: a URI of ours and a
// value fixed before the first delivery.
type Identifier struct {
	System string
	Value  string
}

// Delivered says where a reading is in the EHR.
type Delivered struct {
	// ID is the id of the FHIR Observation in eCW.
	ID string
	// HTTPStatus is that of the answer that showed it (in bundle mode the transaction's, not the entry's).
	HTTPStatus int
	// Existing is true when eCW had the Observation already: an earlier delivery had arrived. In bundle mode
	// eCW's "1" does not tell, and Existing is false; a "200 OK" does.
	Existing bool
}

// New checks cfg, fills in what its environment defines, and returns a client. It sends nothing. The error
// names every setting that is wrong by its environment variable, one a line.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}

	w := newWire(cfg)
	logger := cfg.Logger.With(slog.String("practice", cfg.PracticeCode))
	return &Client{
		wire:      w,
		tokens:    newTokenSource(cfg, w, logger),
		baseURL:   cfg.FHIRBaseURL,
		writeMode: cfg.WriteMode,
		habits:    &habits{now: cfg.Now},
		log:       logger,
		now:       cfg.Now,
	}, nil
}

// String says where the client writes to; the credentials inside it are never printed.
func (c *Client) String() string { return "eCW client for " + c.baseURL }

// GoString keeps the credentials out of %#v.
func (c *Client) GoString() string { return c.String() }

// Authenticate makes sure that a valid access token with the scope asked for is held, and asks eCW for one if
// not. Concurrent callers share one request; each waits no longer than its own ctx. The token stays inside
// the client. The error is an [*Error] with Op "token".
func (c *Client) Authenticate(ctx context.Context) error {
	_, err := c.tokens.get(ctx)
	return err
}

// CreateObservation stores resource, an Observation that carries id among its identifiers, unless eCW holds
// one with that identifier already (conditional create; see [Delivered.Existing]). When eCW reports a
// duplicate, the result is confirmed by reading it back.
//
// A server that does not support conditional create ("not-supported") is asked whether it holds the
// Observation, and if not, to create it without the condition; for an hour after that the condition is left
// out at once. That leaves a small window: a write that arrives between the two requests, or is not yet
// visible to the search, is not seen, and the reading would stand in the chart twice.
//
// One call makes one request as a rule, two where conditional create is not supported, and 12 when eCW
// refuses all but the last form of everything; after a 401 each is made once more, with a new token. Each is
// bounded by [Config.Timeout], their sum by ctx. The error is an [*Error] and has Op "create", or "token"
// when no token could be had and so nothing was sent, or "find" when nothing was stored because the search in
// place of the condition failed, or when reading a duplicate back was throttled. After [ClassUnknown] the
// caller must ask [Client.FindDelivered] before the next call.
func (c *Client) CreateObservation(ctx context.Context, resource json.RawMessage, id Identifier) (Delivered, error) {
	start := c.now()
	d, err := c.create(ctx, resource, id)
	c.logResult(ctx, OpCreate, id, d, err, c.now().Sub(start))
	return d, err
}

// FindDelivered looks for what an earlier [Client.CreateObservation] of the same resource and id has left in
// eCW: for an Observation that carries id, whichever patient it belongs to, else, where the server cannot
// search by identifier or has not shown yet that it keeps ours, for one of the resource's patient and time.
// Of the latter, one without an identifier of our system counts if its code, its time and every value are the
// resource's; anything less is another reading.
//
// A server that wants a patient in every search hides what was delivered before the patient was linked to
// another chart. False does not prove absence: eCW may hold a new write in a queue for a while. An error (an
// [*Error] with Op "find" or "token", or "create" for a resource that does not carry id) tells nothing about
// the reading, whatever its class: what was unknown before the call still is.
//
// One call makes one request, as a rule, or two, and at most five.
func (c *Client) FindDelivered(ctx context.Context, resource json.RawMessage, id Identifier) (Delivered, bool, error) {
	about, err := readable(resource, id)
	if err != nil {
		return Delivered{}, false, err
	}
	return c.logged(ctx, id, func() (Delivered, bool, error) { return c.lookUp(ctx, id, about, true) })
}

// FindObservation looks for the Observation that carries id when nothing else is known of it; ecwPatientID
// (the Patient's FHIR id in eCW) is used where eCW wants a patient in its searches, and may be "". What
// [Client.FindDelivered] says of absence and of errors holds here too.
func (c *Client) FindObservation(ctx context.Context, id Identifier, ecwPatientID string) (Delivered, bool, error) {
	about := observation{head: head{Subject: reference{Reference: "Patient/" + ecwPatientID}}}
	return c.logged(ctx, id, func() (Delivered, bool, error) { return c.findByIdentifier(ctx, id, about) })
}

// logged writes down what a look-up found, unless it found nothing.
func (c *Client) logged(ctx context.Context, id Identifier, lookUp func() (Delivered, bool, error)) (Delivered, bool, error) {
	start := c.now()
	d, found, err := lookUp()
	if found || err != nil {
		c.logResult(ctx, OpFind, id, d, err, c.now().Sub(start))
	}
	return d, found, err
}

// authorized sends a FHIR request with the access token. A 401 drops the token; the first one also gets
// another token and sends the request once more at once, which is safe because a server refuses a token
// before it stores anything.
func (c *Client) authorized(ctx context.Context, req request) (*response, error) {
	for again := false; ; again = true {
		t, err := c.tokens.get(ctx)
		if err != nil {
			return nil, err
		}

		req.header.Set("Authorization", "Bearer "+*t.value)
		res, err := c.wire.send(ctx, req)
		if err != nil || res.status != http.StatusUnauthorized {
			return res, err
		}

		c.tokens.drop(t)
		if again {
			return res, nil
		}

		c.log.InfoContext(ctx, "eCW refused the access token; renewing it", slog.String("op", req.op))
	}
}

// fhirRequest prepares a request below the FHIR base URL; path is "" or starts with "/".
func (c *Client) fhirRequest(op, method, path string, query url.Values) request {
	target := c.baseURL + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return request{
		op:     op,
		method: method,
		url:    target,
		header: http.Header{"Accept": {mediaFHIR}},
	}
}

// readRequest prepares a GET below the FHIR base URL.
func (c *Client) readRequest(op, path string, query url.Values) request {
	req := c.fhirRequest(op, http.MethodGet, path, query)
	req.limit = maxReadBody
	return req
}

// logResult writes a line with ids and statuses, nothing of the patient: a warning when the request failed, else for debugging, since
// what was delivered is for the caller to log.
func (c *Client) logResult(ctx context.Context, op string, id Identifier, d Delivered, err error, took time.Duration) {
	attrs := []slog.Attr{
		slog.String("op", op),
		slog.String("observation_id", id.Value),
		slog.Int64("duration_ms", took.Milliseconds()),
	}

	if err == nil {
		attrs = append(attrs, slog.Int("http_status", d.HTTPStatus),
			slog.String("fhir_observation_id", d.ID), slog.Bool("existing", d.Existing))
		c.log.LogAttrs(ctx, slog.LevelDebug, "eCW response", attrs...)
		return
	}

	c.log.LogAttrs(ctx, slog.LevelWarn, "eCW request failed", append(attrs, slog.Any("error", err))...)
}
