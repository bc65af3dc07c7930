package ecw

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
)

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
		c.log.WarnContext(ctx, "eCW refuses a conditional create; looking the Observation up instead", slog.String("observation_id", id.Value))
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

// refusesCondition tells whether eCW may have refused a create for its condition. It has stored nothing then.
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

func invalidResource() *Error {
	return &Error{Class: ClassPermanentData, Op: OpCreate, Code: "invalid_resource",
		Message: "the resource is not an Observation that carries its identifier; transform the reading again"}
}

// createRequest asks for a create in the form of the write mode, a conditional one (FHIR R4 §3.1.0.8.1) unless condition
// is empty.
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
	// Asked for because some servers answer a conditional create that matched with neither Location nor body, and
	// the id would be lost.
	req.header.Set("Prefer", "return=representation")
	return req, nil
}

// ifNoneExist is the search that decides whether the Observation is there already.
func ifNoneExist(id Identifier) string { return "identifier=" + url.QueryEscape(searchToken(id)) }

// searchToken is the form system|value of a search parameter.
func searchToken(id Identifier) string { return searchValue(id.System) + "|" + searchValue(id.Value) }

// searchValue writes a value with FHIR's own escapes (FHIR R4 §3.1.1.5.7), so that a comma in it is not an "or".
func searchValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `|`, `\|`, `,`, `\,`, `$`, `\$`).Replace(s)
}

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

// confirmed passes on what came of a create, except that it reads back what eCW called a duplicate. Until it is seen, the
// outcome stays unknown; only a throttled search is passed on as such, since it costs no attempt and repeating the create
// is refused as a duplicate again.
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

// carries tells whether an Observation's identifiers, as JSON, include want.
func carries(identifiers json.RawMessage, want Identifier) bool {
	var list short[Identifier]
	return json.Unmarshal(identifiers, &list) == nil && slices.Contains(list, want)
}

// mayCarry tells whether an Observation's identifiers, as JSON, include one of that system, or cannot be read.
func mayCarry(identifiers json.RawMessage, system string) bool {
	var list short[Identifier]
	if len(identifiers) == 0 {
		return false
	}
	return json.Unmarshal(identifiers, &list) != nil || slices.ContainsFunc(list, func(i Identifier) bool { return i.System == system })
}
