package ecw

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
)

// searchForm is a form of the search by identifier. Each is tried if the server refuses the one before it.
type searchForm int

const (
	// byIdentifierAlone searches all patients. It also finds what was delivered to another chart, before the
	// patient's link was changed.
	byIdentifierAlone searchForm = iota
	byIdentifierAndCategory
	byIdentifierCategoryAndPatient
)

// codeIncompleteSearch is the [Error.Code] of a search that listed other Observations, so that ours may be
// missing from the list although eCW holds it.
const codeIncompleteSearch = "incomplete_search"

// lookUp searches eCW for the reading about, which carries id: by identifier and, if that is not conclusive,
// by patient, time and content. If thorough, a search by identifier that finds nothing is not conclusive
// until the server has once found an Observation by identifier, because a server that drops identifiers finds
// nothing either. A server that is known to search by content only is asked in that way at once.
func (c *Client) lookUp(ctx context.Context, id Identifier, about observation, thorough bool) (Delivered, bool, error) {
	if about.recognisable() && c.habits.searchesByContentOnly.get(c.now()) {
		return c.findByContent(ctx, id, about)
	}

	d, found, err := c.findByIdentifier(ctx, id, about)
	inconclusive := cannotSearch(err) || err == nil && thorough && !c.habits.findsByIdentifier.get(c.now())
	if found || !inconclusive || !about.recognisable() {
		return d, found, err
	}

	d, found, contentErr := c.findByContent(ctx, id, about)
	if cannotSearch(contentErr) {
		return Delivered{}, false, err
	}
	if err != nil && contentErr == nil {
		c.habits.searchesByContentOnly.learn(true, c.now())
	}

	return d, found, contentErr
}

// cannotSearch reports whether the error is about the form of the search, so that another form may succeed.
func cannotSearch(err error) bool {
	var e *Error
	return refusedAsInvalid(err) || errors.As(err, &e) && e.Code == codeIncompleteSearch
}

// refusedAsInvalid reports whether eCW refused the form of a request, so that another form may succeed.
func refusedAsInvalid(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == ClassPermanentData &&
		(e.HTTPStatus == http.StatusBadRequest || e.HTTPStatus == http.StatusUnprocessableEntity)
}

// findByIdentifier searches in the simplest form that the server accepts. If all are refused, the error is
// that of the last form.
func (c *Client) findByIdentifier(ctx context.Context, id Identifier, about observation) (d Delivered, found bool, err error) {
	last := byIdentifierCategoryAndPatient
	if about.patientID() == "" {
		last = byIdentifierAndCategory
	}

	for form := min(c.habits.form.get(c.now()), last); form <= last; form++ {
		d, found, err = c.findInForm(ctx, id, about, form)
		if refusedAsInvalid(err) {
			continue
		}
		if err == nil && form != byIdentifierAlone {
			c.habits.form.learn(form, c.now())
		}
		break
	}

	if found {
		c.habits.findsByIdentifier.learn(true, c.now())
	}

	return d, found, err
}

// findInForm searches by identifier. If the form needs a category and the reading's is not known, it makes
// one search for each category that we write (laboratory is that of glucose). One search with a list of both
// would be shorter, but a server that does not know lists could answer that nothing was found.
func (c *Client) findInForm(ctx context.Context, id Identifier, about observation, form searchForm) (Delivered, bool, error) {
	query := url.Values{"identifier": {searchToken(id)}}
	if form == byIdentifierCategoryAndPatient {
		query.Set("patient", about.patientID())
	}

	categories := []string{"vital-signs", "laboratory"}
	switch known := about.category(); {
	case form == byIdentifierAlone:
		categories = []string{""}
	case known != "":
		categories = []string{known}
	}

	for _, category := range categories {
		if category != "" {
			query.Set("category", category)
		}

		list, err := c.search(ctx, query)
		if err != nil {
			return Delivered{}, false, err
		}

		if held := list.carrying(id); len(held) > 0 {
			c.warnOfOddities(ctx, id, about, held)
			return list.delivered(held[0]), true, nil
		}

		if len(list.observations) > 0 || list.more {
			// The server has ignored the identifier, so ours may be missing from the list.
			return Delivered{}, false, list.incomplete()
		}
	}

	return Delivered{}, false, nil
}

// findByContent searches by patient and time. An Observation that it finds counts if it carries id, or if it
// carries no identifier of ours and has the same content (see sameReading). The code is compared here and is
// not part of the search: a pulse oximetry has two codes, and the server may have kept either.
func (c *Client) findByContent(ctx context.Context, id Identifier, about observation) (Delivered, bool, error) {
	list, err := c.searchAround(ctx, about)
	if err != nil {
		return Delivered{}, false, err
	}

	if held := list.carrying(id); len(held) > 0 {
		return list.delivered(held[0]), true, nil
	}

	if held := list.sameReading(about, id.System); len(held) > 0 {
		c.log.WarnContext(ctx, "eCW has dropped the Observation's identifier; it was recognised by patient, code, time and values",
			slog.String("observation_id", id.Value), slog.String("fhir_observation_id", held[0].ID), slog.Int("alike", len(held)))
		return list.delivered(held[0]), true, nil
	}

	if list.more {
		return Delivered{}, false, list.incomplete()
	}

	return Delivered{}, false, nil
}

// searchAround lists the patient's Observations of the reading's time. US Core says that a server must search
// by patient, category and date, and should search by patient, code and date.
func (c *Client) searchAround(ctx context.Context, about observation) (list listing, err error) {
	code := about.Code.Coding[0]
	query := url.Values{"patient": {about.patientID()}, "date": {about.EffectiveDateTime}}
	if category := about.category(); category != "" {
		query.Set("category", category)
		if list, err = c.search(ctx, query); !refusedAsInvalid(err) {
			return list, err
		}
		query.Del("category")
	}
	query.Set("code", searchToken(Identifier{code.System, code.Code}))
	return c.search(ctx, query)
}

// listing is the first page of a search's result. One page is enough, because our searches have one result.
type listing struct {
	status       int // HTTP
	observations []observation
	more         bool // there are further pages
}

// search makes one request.
func (c *Client) search(ctx context.Context, query url.Values) (listing, error) {
	res, err := c.authorized(ctx, c.fhirRequest(OpFind, http.MethodGet, "/Observation", query))
	if err != nil {
		return listing{}, err
	}
	if res.status != http.StatusOK {
		return listing{}, refusal(OpFind, res, res.status, res.issues(), c.now())
	}

	a, err := res.decode(OpFind)
	if err != nil {
		return listing{}, err
	}

	if bad, is := firstError(a.Issue); is {
		return listing{}, issueError(OpFind, res, bad, c.now())
	}

	if a.ResourceType != "Bundle" {
		return listing{}, res.failed(ClassRetryable, OpFind, "malformed_response",
			"eCW's answer to the search is not a Bundle; check ECW_FHIR_BASE_URL")
	}

	list := listing{status: res.status, more: a.hasNext()}
	for _, e := range a.Entry {
		var o observation
		if json.Unmarshal(e.Resource, &o.head) != nil || o.ResourceType != "Observation" || !isID(o.ID) {
			continue
		}

		if h := o.head; json.Unmarshal(e.Resource, &o) != nil {
			// The content has a form that we do not know and cannot be compared, but the identifier can.
			o = observation{head: h}
		}

		list.observations = append(list.observations, o)
	}

	return list, nil
}

func (l listing) delivered(o observation) Delivered {
	return Delivered{ID: o.ID, HTTPStatus: l.status, Existing: true}
}

func (l listing) carrying(id Identifier) []observation {
	var held []observation
	for _, o := range l.observations {
		if carries(o.Identifier, id) {
			held = append(held, o)
		}
	}
	return held
}

// sameReading returns those with the content of about. It leaves out those that carry another identifier of
// that system, because each is another reading of ours.
func (l listing) sameReading(about observation, system string) []observation {
	var held []observation
	for _, o := range l.observations {
		if about.sameReading(o) && !mayCarry(o.Identifier, system) {
			held = append(held, o)
		}
	}
	return held
}

func (l listing) incomplete() *Error {
	return &Error{
		Class:      ClassRetryable,
		Op:         OpFind,
		Code:       codeIncompleteSearch,
		HTTPStatus: l.status,
		Message:    "eCW's search listed other Observations, so this one cannot be looked up; look at the chart",
	}
}

// warnOfOddities logs what a person should look at in the chart. The look-up uses the first Observation in
// any case.
func (c *Client) warnOfOddities(ctx context.Context, id Identifier, about observation, held []observation) {
	ids := make([]string, len(held))
	for i, o := range held {
		ids[i] = o.ID
	}

	attrs := []any{slog.String("observation_id", id.Value), slog.Any("fhir_observation_ids", ids)}
	if len(held) > 1 {
		c.log.WarnContext(ctx, "eCW holds several Observations with one identifier; look at the chart", attrs...)
	}

	if linked := about.patientID(); linked != "" && linked != held[0].patientID() {
		c.log.WarnContext(ctx, "eCW holds the Observation in the chart of another patient than the one linked now; "+
			"look at both charts", attrs...)
	}
}

// searchToken is the form system|value of a search parameter.
func searchToken(id Identifier) string { return searchValue(id.System) + "|" + searchValue(id.Value) }

// searchValue writes a value with FHIR's own escapes (FHIR R4 §3.1.1.5.7), so that a comma in it does not
// mean "or".
func searchValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `|`, `\|`, `,`, `\,`, `$`, `\$`).Replace(s)
}
