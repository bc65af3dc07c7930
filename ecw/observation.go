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

// outgoing is what must be known of a resource before it is sent.
type outgoing struct {
	ResourceType string          `json:"resourceType"`
	Identifier   json.RawMessage `json:"identifier"`
	Subject      struct {
		Reference string `json:"reference"`
	} `json:"subject"`
}

// patientID is the id in "Patient/{id}", "" if the subject is something else.
func (o outgoing) patientID() string {
	id, isPatient := strings.CutPrefix(o.Subject.Reference, "Patient/")
	if !isPatient {
		return ""
	}
	return id
}

func (c *Client) create(ctx context.Context, resource json.RawMessage, id Identifier) (Delivered, error) {
	var out outgoing
	if json.Unmarshal(resource, &out) != nil || out.ResourceType != "Observation" || id.Value == "" || !carries(out.Identifier, id) {
		// Without its identifier an Observation could never be looked up again.
		return Delivered{}, invalidResource()
	}
	d, err := c.post(ctx, resource, ifNoneExist(id))
	if refusesCondition(err) {
		c.log.WarnContext(ctx, "eCW refuses a conditional create; looking the Observation up instead", slog.String("observation_id", id.Value))
		var found bool
		if d, found, err = c.find(ctx, id, out.patientID()); found || err != nil {
			return d, err
		}
		d, err = c.post(ctx, resource, "")
	}
	if errors.Is(err, errDuplicate) {
		return c.confirm(ctx, id, out.patientID(), err)
	}
	return d, err
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
	return judgeCreate(res, c.now())
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

// confirm reads back what eCW called a duplicate. Until it is seen, the outcome stays unknown; only a throttled search
// is passed on as such, since it costs no attempt and repeating the create is refused as a duplicate again.
func (c *Client) confirm(ctx context.Context, id Identifier, ecwPatientID string, reported error) (Delivered, error) {
	d, found, err := c.find(ctx, id, ecwPatientID)
	var search *Error
	switch {
	case found:
		return d, nil
	case errors.As(err, &search) && search.Class == ClassThrottled:
		return Delivered{}, search
	case errors.As(err, &search):
		unknown := *search
		unknown.Class = ClassUnknown
		unknown.Op = OpCreate
		unknown.Message = "eCW reports a duplicate that could not be confirmed: " + search.Message
		return Delivered{}, &unknown
	}
	return Delivered{}, reported
}

// carries tells whether an Observation's identifiers, as JSON, include want.
func carries(identifiers json.RawMessage, want Identifier) bool {
	var list []Identifier
	return json.Unmarshal(identifiers, &list) == nil && slices.Contains(list, want)
}
