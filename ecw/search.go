package ecw

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
)

// find asks by identifier; a server that refuses that may want a category, so it is then asked for each that we write
// (laboratory is glucose's). One search with both would be shorter, but a server that does not know the list form could
// answer it with nothing found.
func (c *Client) find(ctx context.Context, id Identifier, ecwPatientID string) (Delivered, bool, error) {
	query := url.Values{"identifier": {searchToken(id)}}
	if ecwPatientID != "" {
		query.Set("patient", ecwPatientID)
	}
	d, found, err := c.search(ctx, id, query)
	if !refusedAsInvalid(err) {
		return d, found, err
	}
	for _, category := range []string{"vital-signs", "laboratory"} {
		query.Set("category", category)
		if d, found, err = c.search(ctx, id, query); found || err != nil {
			break
		}
	}
	return d, found, err
}

// refusedAsInvalid tells whether eCW refused a request for what it asks, which it may not do in another form.
func refusedAsInvalid(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == ClassPermanentData &&
		(e.HTTPStatus == http.StatusBadRequest || e.HTTPStatus == http.StatusUnprocessableEntity)
}

// search asks once. It reads the first page only: a search by identifier has one result, and a server that returns
// pages of others has ignored the identifier, so that absence cannot be concluded.
func (c *Client) search(ctx context.Context, id Identifier, query url.Values) (Delivered, bool, error) {
	res, err := c.authorized(ctx, c.fhirRequest(OpFind, http.MethodGet, "/Observation", query))
	if err != nil {
		return Delivered{}, false, err
	}
	if res.status != http.StatusOK {
		return Delivered{}, false, refusal(OpFind, res, res.status, res.issues(), c.now())
	}
	a, err := res.decode(OpFind)
	if err != nil {
		return Delivered{}, false, err
	}
	if bad, is := firstError(a.Issue); is {
		return Delivered{}, false, issueError(OpFind, res, bad, c.now())
	}
	if a.ResourceType != "Bundle" {
		return Delivered{}, false, &Error{Class: ClassRetryable, Op: OpFind, Code: "malformed_response", HTTPStatus: res.status,
			Message: "eCW's answer to the search is not a Bundle; check ECW_FHIR_BASE_URL"}
	}
	return c.pick(ctx, res, a, id)
}

// pick takes the Observation that carries id out of a search's result.
func (c *Client) pick(ctx context.Context, res *response, bundle answer, id Identifier) (Delivered, bool, error) {
	var ids []string
	for _, e := range bundle.Entry {
		r := e.Resource
		if r.ResourceType == "Observation" && idForm.MatchString(r.ID) && carries(r.Identifier, id) {
			ids = append(ids, r.ID)
		}
	}
	switch {
	case len(ids) > 1:
		c.log.WarnContext(ctx, "eCW holds several Observations with one identifier; look at the chart",
			slog.String("observation_id", id.Value), slog.Any("fhir_observation_ids", ids))
		fallthrough
	case len(ids) == 1:
		return Delivered{ID: ids[0], HTTPStatus: res.status, Existing: true}, true, nil
	case hasNext(bundle):
		return Delivered{}, false, &Error{Class: ClassRetryable, Op: OpFind, Code: "incomplete_search", HTTPStatus: res.status,
			Message: "eCW's search did not keep to the identifier, so the Observation cannot be looked up; look at the chart"}
	}
	return Delivered{}, false, nil
}

func hasNext(bundle answer) bool {
	for _, l := range bundle.Link {
		if l.Relation == "next" {
			return true
		}
	}
	return false
}
