package ecw

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// create sends a conditional create. If the server refuses the condition, it searches for the Observation
// instead, and creates it without the condition if it is not found.
func (c *Client) create(ctx context.Context, resource json.RawMessage, id Identifier) (Delivered, error) {
	about, err := readable(resource, id)
	if err != nil {
		return Delivered{}, err
	}

	conditional := !c.habits.refusesConditions.get(c.now())
	if conditional {
		d, err := c.post(ctx, resource, ifNoneExist(id))
		if !refusesCondition(err) {
			return c.confirmed(ctx, id, about, d, err)
		}
		c.log.WarnContext(ctx, "eCW refuses a conditional create; looking the Observation up instead",
			slog.String("observation_id", id.Value))
	}

	if d, found, err := c.lookUp(ctx, id, about, false); found || err != nil {
		return d, err
	}

	d, err := c.post(ctx, resource, "")
	if conditional && err == nil {
		c.habits.refusesConditions.learn(true, c.now()) // without the condition it worked, so the condition was refused
	}

	return c.confirmed(ctx, id, about, d, err)
}

// readable decodes the resource to send, and refuses one that does not carry id: it could never be looked up.
func readable(resource json.RawMessage, id Identifier) (observation, error) {
	var o observation
	if json.Unmarshal(resource, &o) != nil || o.ResourceType != "Observation" || id.Value == "" || !carries(o.Identifier, id) {
		return observation{}, invalidResource()
	}
	return o, nil
}

func invalidResource() *Error {
	return &Error{
		Class:   ClassPermanentData,
		Op:      OpCreate,
		Code:    "invalid_resource",
		Message: "the resource is not an Observation that carries its identifier; transform the reading again",
	}
}

// refusesCondition reports whether eCW may have refused a create because of its condition. If so, it has
// stored nothing.
func refusesCondition(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Code != "not-supported" {
		return false
	}
	switch e.HTTPStatus {
	case http.StatusOK, http.StatusBadRequest, http.StatusPreconditionFailed, http.StatusUnprocessableEntity, http.StatusNotImplemented:
		return true
	}
	return false
}

// post sends one create and reads the answer.
func (c *Client) post(ctx context.Context, resource json.RawMessage, condition string) (Delivered, error) {
	req, err := c.createRequest(resource, condition)
	if err != nil {
		return Delivered{}, err
	}

	res, err := c.authorized(ctx, req)
	if err != nil {
		return Delivered{}, err
	}

	d, err := judgeCreate(res, c.now())
	var e *Error
	if errors.As(err, &e) && e.Class == ClassThrottled && res.status != http.StatusTooManyRequests {
		c.wire.pause(ctx, res.header) // send pauses by the HTTP status only, and this refusal came in the body
	}

	return d, err
}

// createRequest prepares a create in the form of the write mode. It is a conditional create (FHIR R4
// §3.1.0.8.1) unless condition is empty.
func (c *Client) createRequest(resource json.RawMessage, condition string) (request, error) {
	req := c.fhirRequest(OpCreate, http.MethodPost, "/Observation", nil)
	req.body = resource
	if c.writeMode == WriteBundle {
		bundle, err := transaction(resource, condition)
		if err != nil {
			return request{}, invalidResource()
		}
		req.url, req.body = c.baseURL, bundle
	} else if condition != "" {
		req.header.Set("If-None-Exist", condition)
	}

	req.header.Set("Content-Type", mediaFHIR)
	// Without this, some servers answer a conditional create that matched with neither Location nor body, and
	// the id would be lost.
	req.header.Set("Prefer", "return=representation")
	return req, nil
}

// ifNoneExist is the condition: the search by which the server finds an Observation that it holds already.
func ifNoneExist(id Identifier) string { return "identifier=" + url.QueryEscape(searchToken(id)) }

// transaction wraps the resource in a Bundle, the form that production contracts of eCW ask for.
func transaction(resource json.RawMessage, condition string) (json.RawMessage, error) {
	type bundleRequest struct {
		Method      string `json:"method"`
		URL         string `json:"url"`
		IfNoneExist string `json:"ifNoneExist,omitempty"`
	}

	type bundleEntry struct {
		FullURL  string          `json:"fullUrl"`
		Resource json.RawMessage `json:"resource"`
		Request  bundleRequest   `json:"request"`
	}

	return json.Marshal(struct {
		ResourceType string        `json:"resourceType"`
		Type         string        `json:"type"`
		Entry        []bundleEntry `json:"entry"`
	}{"Bundle", "transaction", []bundleEntry{{
		FullURL:  "urn:uuid:" + uuid.NewString(),
		Resource: resource,
		Request:  bundleRequest{Method: http.MethodPost, URL: "Observation", IfNoneExist: condition},
	}}})
}

// judgeCreate reads eCW's answer to a create. A 2xx is a success only if its body reports no error and an id
// is found.
func judgeCreate(res *response, now time.Time) (Delivered, error) {
	if res.status/100 != 2 {
		return Delivered{}, refusal(OpCreate, res, res.status, res.issues(), now)
	}

	a, err := res.decode(OpCreate)
	if err != nil {
		return Delivered{}, err
	}

	if bad, is := firstError(a.Issue); is {
		return Delivered{}, issueError(OpCreate, res, bad, now)
	}
	if len(a.Entry) > 0 && a.Entry[0].Response != nil {
		return judgeEntry(res, a.Entry[0], now)
	}

	return delivered(res, res.header.Get("Location"), a, res.status == http.StatusOK)
}

// judgeEntry reads the answer to the one entry of our transaction. Its status is one of eCW's numbers or, as
// FHIR defines it, an HTTP status with its phrase. So "1" is a success, a bare "201" means ALREADY_EXIST, and
// "201 Created" is a success.
func judgeEntry(res *response, e entry, now time.Time) (Delivered, error) {
	issues := e.Response.Outcome.Issue
	number, phrase, _ := strings.Cut(strings.TrimSpace(string(e.Response.Status)), " ")
	status, err := strconv.Atoi(number)
	isHTTP := err == nil && phrase != "" && strings.EqualFold(strings.TrimSpace(phrase), http.StatusText(status))
	rule, known := numberRule(number)
	bad, hasBad := firstError(issues)

	switch {
	case hasBad && number == numberGeneric && bad.name() != "processing",
		hasBad && (number == numberSuccess || isHTTP && status/100 == 2):
		return Delivered{}, issueError(OpCreate, res, bad, now)
	case number == numberSuccess, isHTTP && status/100 == 2:
		return delivered(res, e.Response.Location, e.head(), isHTTP && status == http.StatusOK)
	case isHTTP, status >= 400 && status < 600:
		return Delivered{}, refusal(OpCreate, res, status, issues, now)
	case number == numberExists:
		return Delivered{}, duplicate(OpCreate, res)
	case known:
		return Delivered{}, res.failed(rule.class, OpCreate, number, rule.message)
	}

	code := "unknown_status"
	if err == nil && status > 0 && status <= maxNumber {
		code = strconv.Itoa(status)
	}

	return Delivered{}, res.failed(ClassUnknown, OpCreate, code,
		"eCW answered the transaction with an unknown status; if it lasts, ask eCW's support what it means")
}

// delivered takes the Observation's id from the location, else from the resource itself. Without an id the
// outcome is unknown.
func delivered(res *response, location string, a answer, existing bool) (Delivered, error) {
	id := idFromLocation(location)
	if id == "" && a.ResourceType == "Observation" && isID(a.ID) {
		id = a.ID
	}

	if id == "" {
		return Delivered{}, res.failed(ClassUnknown, OpCreate, "no_id",
			"eCW accepted the Observation but returned no id for it")
	}

	return Delivered{ID: id, HTTPStatus: res.status, Existing: existing}, nil
}

// idFromLocation takes the id out of ".../Observation/{id}", absolute or relative, with or without
// "/_history/{version}".
func idFromLocation(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	path, _, _ := strings.Cut(u.Path, "/_history")
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if n := len(parts); n >= 2 && parts[n-2] == "Observation" && isID(parts[n-1]) {
		return parts[n-1]
	}
	return ""
}

// confirmed returns the outcome of a create. If eCW reported a duplicate, it first looks the Observation up,
// and the outcome is unknown unless that finds it. A throttled search is returned as throttled: that uses up
// no attempt, and if the create is repeated, eCW reports the duplicate again.
func (c *Client) confirmed(ctx context.Context, id Identifier, about observation, created Delivered, err error) (Delivered, error) {
	if !errors.Is(err, errDuplicate) {
		return created, err
	}

	d, found, searchErr := c.lookUp(ctx, id, about, true)
	var search *Error
	switch {
	case found:
		return d, nil
	case errors.As(searchErr, &search) && search.Class == ClassThrottled:
		return Delivered{}, search
	case errors.As(searchErr, &search):
		unknown := *search
		unknown.Class = ClassUnknown
		unknown.Op = OpCreate
		unknown.Message = "eCW reports a duplicate that could not be confirmed: " + search.Message
		return Delivered{}, &unknown
	}

	return Delivered{}, err
}
