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

// create sends a conditional create, or, to a server that refuses the condition, looks first and creates
// without.
func (c *Client) create(ctx context.Context, resource json.RawMessage, id Identifier) (Delivered, error) {
	about, err := readable(resource, id)
	if err != nil {
		return Delivered{}, err
	}

	conditional := !c.habits.refusesConditions()
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
		c.habits.noteRefusedCondition() // it was the condition, and nothing else, that was refused
	}

	return c.confirmed(ctx, id, about, d, err)
}

// readable reads what is to be sent. Without its identifier an Observation could never be looked up again.
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

// refusesCondition reports whether eCW may have refused a create for its condition. It has stored nothing
// then.
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
		c.wire.pause(ctx, res.header) // it stood in the body
	}

	return d, err
}

// createRequest asks for a create in the form of the write mode, a conditional one (FHIR R4 §3.1.0.8.1)
// unless condition is empty.
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
	// Asked for because some servers answer a conditional create that matched with neither Location nor body,
	// and the id would be lost.
	req.header.Set("Prefer", "return=representation")
	return req, nil
}

// ifNoneExist is the search that decides whether the Observation is there already.
func ifNoneExist(id Identifier) string { return "identifier=" + url.QueryEscape(searchToken(id)) }

// transaction wraps the resource into the Bundle that production contracts ask for.
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

// judgeCreate reads eCW's answer to a create. A 2xx counts only when the body does not deny it and an id is
// found.
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

// judgeEntry reads the answer to the one entry of our transaction. Its status is one of eCW's numbers ("1" is
// success, and a bare "201" means ALREADY_EXIST) or, as FHIR has it, an HTTP status with its phrase ("201
// Created").
func judgeEntry(res *response, e entry, now time.Time) (Delivered, error) {
	issues := e.Response.Outcome.Issue
	number, phrase, _ := strings.Cut(strings.TrimSpace(string(e.Response.Status)), " ")
	status, err := strconv.Atoi(number)
	isHTTP := err == nil && phrase != "" && strings.EqualFold(strings.TrimSpace(phrase), http.StatusText(status))
	rule, known := numberRule(number)
	bad, hasBad := firstError(issues)

	switch {
	case hasBad && number == numberGeneric && bad.name() == "processing":
		return Delivered{}, genericFailure(res)
	case hasBad && (number == numberSuccess || number == numberGeneric || isHTTP && status/100 == 2):
		return Delivered{}, issueError(OpCreate, res, bad, now)
	case number == numberSuccess, isHTTP && status/100 == 2:
		return delivered(res, e.Response.Location, e.head(), isHTTP && status == http.StatusOK)
	case isHTTP, status >= 400 && status < 600:
		return Delivered{}, refusal(OpCreate, res, status, issues, now)
	case number == numberExists:
		return Delivered{}, duplicate(OpCreate, res)
	case known:
		return Delivered{}, &Error{
			Class:      rule.class,
			Op:         OpCreate,
			Code:       number,
			HTTPStatus: res.status,
			Message:    rule.message,
		}
	}

	code := "unknown_status"
	if err == nil && status > 0 && status <= maxNumber {
		code = strconv.Itoa(status)
	}

	return Delivered{}, &Error{
		Class:      ClassUnknown,
		Op:         OpCreate,
		Code:       code,
		HTTPStatus: res.status,
		Message:    "eCW answered the transaction with a status that is not known to us",
	}
}

// delivered needs the Observation's id: from the location, else from the resource itself.
func delivered(res *response, location string, a answer, existing bool) (Delivered, error) {
	id := idFromLocation(location)
	if id == "" && a.ResourceType == "Observation" && idForm.MatchString(a.ID) {
		id = a.ID
	}

	if id == "" {
		return Delivered{}, &Error{
			Class:      ClassUnknown,
			Op:         OpCreate,
			Code:       "no_id",
			HTTPStatus: res.status,
			Message:    "eCW accepted the Observation but did not say under which id",
		}
	}

	return Delivered{ID: id, HTTPStatus: res.status, Existing: existing}, nil
}

// idFromLocation takes the id out of ".../Observation/{id}" with or without "/_history/{version}", absolute
// or not.
func idFromLocation(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	path, _, _ := strings.Cut(u.Path, "/_history")
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	if n := len(parts); n >= 2 && parts[n-2] == "Observation" && idForm.MatchString(parts[n-1]) {
		return parts[n-1]
	}
	return ""
}

// confirmed passes on what came of a create, except that it reads back what eCW called a duplicate. Until it
// is seen, the outcome stays unknown; only a throttled search is passed on as such, since it costs no attempt
// and repeating the create is refused as a duplicate again.
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
