// Package ecw is the client of eClinicalWorks (eCW). It authenticates with SMART Backend Services, creates
// FHIR R4 Observations, looks them up again, and reads the practice's patients. The error of every failure
// says what it means for the reading (see [Class]).
//
// The client repeats a write by itself in two cases only, in both of which eCW has stored nothing: once after
// a 401, and once when eCW refuses the condition of a conditional create. Whether and when a delivery is
// repeated is the caller's decision, and [Error.Class] is all that it needs for that.
//
// Nothing here was checked against the live eCW service. Where public sources and FHIR's specification
// differ, a comment says so.
package ecw

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// Client talks to one practice of eCW. It is safe for concurrent use and should be shared, because it holds
// the access token and the connections. It keeps both in memory only.
type Client struct {
	wire      *wire
	tokens    *tokenSource
	baseURL   string // without a trailing slash
	writeMode WriteMode
	habits    habits
	log       *slog.Logger
	now       func() time.Time
}

// Identifier is the business identifier by which a reading is recognised in the EHR: a URI of ours as the
// system, and a value that is fixed before the first delivery.
type Identifier struct {
	System string
	Value  string
}

// Delivered says where a reading is in the EHR.
type Delivered struct {
	// ID is the id of the FHIR Observation in eCW.
	ID string
	// HTTPStatus is that of the answer that contained the id (in bundle mode the transaction's, not the
	// entry's).
	HTTPStatus int
	// Existing is true if eCW had the Observation already, from an earlier delivery. In bundle mode it is false
	// after eCW's "1", which does not distinguish the two, and true after "200 OK".
	Existing bool
}

// New checks cfg, fills in the defaults of its environment, and returns a client. It sends nothing. The error
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
		log:       logger,
		now:       cfg.Now,
	}, nil
}

// String names the server; it never prints the credentials.
func (c *Client) String() string { return "eCW client for " + c.baseURL }

// GoString keeps the credentials out of %#v.
func (c *Client) GoString() string { return c.String() }

// Authenticate asks eCW for an access token with the scope of the configuration, unless the client holds a
// valid one. Concurrent callers share one request; each waits no longer than its own ctx. The token stays
// inside the client. The error is an [*Error] with Op "token".
func (c *Client) Authenticate(ctx context.Context) error {
	_, err := c.tokens.get(ctx)
	return err
}

// HoldsToken reports whether [Client.Authenticate] would need no request.
func (c *Client) HoldsToken() bool {
	_, held := c.tokens.held()
	return held
}

// CreateObservation stores resource, an Observation that carries id among its identifiers, unless eCW holds
// one with that identifier already (conditional create; see [Delivered.Existing]). When eCW reports a
// duplicate, the client looks the Observation up to confirm it.
//
// If the server does not support conditional create (it answers "not-supported"), the client searches for the
// Observation and, if it is absent, creates it without the condition. For the next hour it leaves out the
// condition at once. The search does not show a write that arrives between the two requests, or that is not
// indexed yet; the reading would then be in the chart twice.
//
// A call usually makes one request, two if conditional create is not supported, and at most 12, if eCW
// refuses all but the last form of everything. After a 401 a request is repeated once with a new token. Each
// request is bounded by [Config.Timeout], all of them together by ctx.
//
// The error is an [*Error]. Its Op is "create"; "token" if there was no token, and so nothing was sent; or
// "find". With "find" the search in place of the condition failed and nothing was stored, or the look-up of a
// duplicate was throttled. After [ClassUnknown] the caller must ask [Client.FindDelivered] before the next
// call.
func (c *Client) CreateObservation(ctx context.Context, resource json.RawMessage, id Identifier) (Delivered, error) {
	start := c.now()
	d, err := c.create(ctx, resource, id)
	c.logResult(ctx, OpCreate, id, d, err, c.now().Sub(start))
	return d, err
}

// FindDelivered looks for the Observation that an earlier [Client.CreateObservation] of the same resource and
// id has stored in eCW. It searches by id, whatever the patient. If the server cannot search by identifier,
// or has not shown yet that it keeps ours, it also searches by the resource's patient and time. An
// Observation found in that way counts if it carries no identifier of our system and its code, its time and
// every value are the resource's; any other is another reading.
//
// False does not prove absence. eCW may hold a new write in a queue for a while. And a server that wants a
// patient in every search does not show what was delivered to another chart, before the patient's link was
// changed.
//
// An error is an [*Error] with Op "find" or "token", or "create" for a resource that does not carry id.
// Whatever its class, it says nothing about the reading: an outcome that was unknown before the call is still
// unknown.
//
// A call usually makes one or two requests, and at most five.
func (c *Client) FindDelivered(ctx context.Context, resource json.RawMessage, id Identifier) (Delivered, bool, error) {
	about, err := readable(resource, id)
	if err != nil {
		return Delivered{}, false, err
	}
	return c.logged(ctx, id, func() (Delivered, bool, error) { return c.lookUp(ctx, id, about, true) })
}

// FindObservation looks for the Observation that carries id, without its resource. ecwPatientID, the
// Patient's FHIR id in eCW, is used if eCW wants a patient in its searches; it may be "". Absence and errors
// mean the same as those of [Client.FindDelivered].
func (c *Client) FindObservation(ctx context.Context, id Identifier, ecwPatientID string) (Delivered, bool, error) {
	about := observation{head: head{Subject: reference{Reference: "Patient/" + ecwPatientID}}}
	return c.logged(ctx, id, func() (Delivered, bool, error) { return c.findByIdentifier(ctx, id, about) })
}

// logged runs a look-up and logs its result, unless it found nothing.
func (c *Client) logged(ctx context.Context, id Identifier, lookUp func() (Delivered, bool, error)) (Delivered, bool, error) {
	start := c.now()
	d, found, err := lookUp()
	if found || err != nil {
		c.logResult(ctx, OpFind, id, d, err, c.now().Sub(start))
	}
	return d, found, err
}

// authorized sends a FHIR request with the access token. A 401 drops the token. After the first one the
// request is sent once more with a new token, which is safe because a server refuses a token before it stores
// anything.
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

// logResult writes a line with ids and statuses and nothing of the patient. A failure is a warning. A success
// is at level debug, because the caller logs what was delivered.
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
