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

// searchForm is a form of the search by identifier. Each is tried when the server refuses the one before it.
type searchForm int

const (
	// byIdentifierAlone looks at all patients, so that it also finds what was delivered before the patient
	// was linked to another chart.
	byIdentifierAlone searchForm = iota
	byIdentifierAndCategory
	byIdentifierCategoryAndPatient
)

// codeIncompleteSearch is the [Error.Code] of a search that listed others, and from which absence cannot be
// concluded.
const codeIncompleteSearch = "incomplete_search"

// lookUp asks whether the reading about, which carries id, is in eCW: by identifier, and where that cannot
// tell, by patient, time and content. thorough also asks the second time when the first found nothing, until
// the server has once shown that it finds by identifier: one that drops identifiers finds nothing either. A
// server that could not search by identifier, but otherwise, is asked otherwise at once.
func (c *Client) lookUp(ctx context.Context, id Identifier, about observation, thorough bool) (Delivered, bool, error) {
	if about.recognisable() && c.habits.cannotSearchByIdentifier() {
		return c.findByContent(ctx, id, about)
	}

	d, found, err := c.findByIdentifier(ctx, id, about)
	cannotTell := cannotSearch(err) || err == nil && thorough && !c.habits.findsByIdentifier()
	if found || !cannotTell || !about.recognisable() {
		return d, found, err
	}

	d, found, contentErr := c.findByContent(ctx, id, about)
	if cannotSearch(contentErr) {
		return Delivered{}, false, err
	}
	if err != nil && contentErr == nil {
		c.habits.noteNoIdentifierSearch()
	}

	return d, found, contentErr
}

// cannotSearch reports whether the error is about the search itself, which may do in another form.
func cannotSearch(err error) bool {
	var e *Error
	return refusedAsInvalid(err) || errors.As(err, &e) && e.Code == codeIncompleteSearch
}

// refusedAsInvalid reports whether eCW refused a request for what it asks, which it may not do in another
// form.
func refusedAsInvalid(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == ClassPermanentData &&
		(e.HTTPStatus == http.StatusBadRequest || e.HTTPStatus == http.StatusUnprocessableEntity)
}

// findByIdentifier searches in the simplest form that the server takes. The error is that of the last form if
// all are refused.
func (c *Client) findByIdentifier(ctx context.Context, id Identifier, about observation) (d Delivered, found bool, err error) {
	last := byIdentifierCategoryAndPatient
	if about.patientID() == "" {
		last = byIdentifierAndCategory
	}

	for form := min(c.habits.firstForm(), last); form <= last; form++ {
		d, found, err = c.findInForm(ctx, id, about, form)
		if refusedAsInvalid(err) {
			continue
		}
		if err == nil && form != byIdentifierAlone {
			c.habits.noteForm(form)
		}
		break
	}

	if found {
		c.habits.noteFound()
	}

	return d, found, err
}

// findInForm searches by identifier, once, or once for each category that we write if the reading's is not
// known (laboratory is glucose's). One search with both would be shorter, but a server that does not know the
// list form could answer it with nothing found.
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
			// The server has ignored the identifier, so that ours may be missing among those shown.
			return Delivered{}, false, list.incomplete()
		}
	}

	return Delivered{}, false, nil
}

// findByContent searches by patient and time. Of what it finds only an Observation counts that carries id, or
// none of our identifiers and the very same content (see sameReading). The code is compared here: a pulse
// oximetry has two, of which the server may have kept either.
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

// searchAround lists what the patient has of the reading's time. US Core obliges servers to search by
// patient, category and date; by patient, code and date they should.
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

// listing is the first page of a search's result. One is enough: what we search for has one result.
type listing struct {
	status       int // HTTP
	observations []observation
	more         bool // there are further pages
}

// search asks once.
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
		return listing{}, &Error{
			Class:      ClassRetryable,
			Op:         OpFind,
			Code:       "malformed_response",
			HTTPStatus: res.status,
			Message:    "eCW's answer to the search is not a Bundle; check ECW_FHIR_BASE_URL",
		}
	}

	list := listing{status: res.status, more: a.hasNext()}
	for _, e := range a.Entry {
		var o observation
		if json.Unmarshal(e.Resource, &o.head) != nil || o.ResourceType != "Observation" || !idForm.MatchString(o.ID) {
			continue
		}

		if h := o.head; json.Unmarshal(e.Resource, &o) != nil {
			// A form that we do not know does not hide the identifier, but nothing can be compared.
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

// sameReading leaves out what carries another identifier of that system: it is another reading of ours.
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
		Message:    "eCW's search listed other Observations, so that this one cannot be looked up; look at the chart",
	}
}

// warnOfOddities tells a person what should not be: the look-up goes on with the first one held.
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

// searchValue writes a value with FHIR's own escapes (FHIR R4 §3.1.1.5.7), so that a comma in it is not an
// "or".
func searchValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `|`, `\|`, `,`, `\,`, `$`, `\$`).Replace(s)
}
