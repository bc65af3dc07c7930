package ecw

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	// MaxPatientPageSize bounds [PatientQuery.PageSize], and what eCW is asked for at a time.
	MaxPatientPageSize = 200
	// maxPatientDepth is how many patients into the list a page may reach. FHIR has no way to go to a page
	// but over all pages before it, and every request counts towards the practice's limit of 250 a minute,
	// which deliveries share.
	maxPatientDepth = 20_000
	// maxPatientRequests holds the same where eCW's pages are smaller than asked for.
	maxPatientRequests = 100
)

// CodeInvalidPage is the [Error.Code] of a page that does not exist or lies too deep: the caller's mistake,
// not eCW's.
const CodeInvalidPage = "invalid_page"

// PatientQuery selects patients and one page of them.
type PatientQuery struct {
	Name     string // the start of any part of the name (FHIR's search parameter "name"); "" is everybody
	Page     int    // the first is 1
	PageSize int    // 1 to MaxPatientPageSize
}

// PatientPage is one page of eCW's patients.
type PatientPage struct {
	Patients []json.RawMessage // FHIR Patient resources, as eCW sent them
	Total    int               // of all pages; -1 when eCW does not say
	More     bool              // eCW has patients beyond this page, or at least a link to some
	// Cut is true when eCW counts more patients than it lets anybody list: it gives neither a link to its
	// next page nor takes an offset. Total is the number that it lists then.
	Cut bool
}

// patientBundle is as much of a search's result as we need.
type patientBundle struct {
	Total *int         `json:"total"`
	Link  short[link]  `json:"link"`
	Entry short[match] `json:"entry"`
}

type match struct {
	Resource json.RawMessage `json:"resource"`
}

// SearchPatients returns a page of the patients that q selects, in eCW's order. A page beyond the end is
// empty. eCW's own pages may be of another size: as many of them are read as the page asked for takes. They
// are found by eCW's links, or, when it gives none and counts more patients than it has shown, by offset, if
// it is seen to take one.
//
// The error is an [*Error] with Op "patients" or "token". A page or a page size out of bounds is of
// [ClassPermanentData] with Code [CodeInvalidPage].
func (c *Client) SearchPatients(ctx context.Context, q PatientQuery) (PatientPage, error) {
	if err := q.check(); err != nil {
		return PatientPage{}, err
	}

	page := PatientPage{Patients: []json.RawMessage{}, Total: -1}
	start := (q.Page - 1) * q.PageSize
	at, linked := 0, false // where eCW's page begins, and whether a link led there
	var seen []string
	bundle, err := c.patientsFrom(ctx, q, c.firstCount(q), 0)

	for requests := 1; err == nil; requests++ {
		page.Total = max(page.Total, bundle.total())
		found, ids := bundle.patients()
		seen = append(seen, ids...)
		skipped := min(max(start+len(page.Patients)-at, 0), len(found))
		found = found[skipped:]
		missing := q.PageSize - len(page.Patients)
		taken := min(missing, len(found))
		page.Patients = append(page.Patients, found[:taken]...)
		missing -= taken
		at += len(ids)

		next, hasNext := bundle.next()
		linked = linked || hasNext
		ended := linked || page.Total <= at
		page.More = hasNext || taken < len(found) || !ended

		if missing == 0 && (ended || c.habits.offsets() == takesOffset) || ended && !hasNext {
			return page, nil
		}

		if requests == maxPatientRequests {
			return PatientPage{}, invalidPage(fmt.Sprintf(
				"page %d is too far into eCW's list, whose own pages are small; narrow it with a name", q.Page))
		}

		if hasNext {
			bundle, err = c.nextPatients(ctx, next)
			continue
		}

		beyond := start >= page.Total
		switch c.habits.offsets() {
		case ignoresOffset:
			page.Total, page.Cut, page.More = at, true, taken < len(found)
			return page, nil
		case takesOffset:
			if beyond {
				page.More = false
				return page, nil
			}
		}

		if !beyond {
			at = max(at, start)
		}

		bundle, err = c.patientsFrom(ctx, q, max(missing, 1), at)
		if err != nil && !refusedAsInvalid(err) {
			return PatientPage{}, err
		}

		if err != nil || !bundle.goesOn(seen) {
			c.habits.noteOffsets(ignoresOffset)
			return c.SearchPatients(ctx, q) // from the start, with the largest page there is
		}

		c.habits.noteOffsets(takesOffset)
		if missing == 0 || beyond {
			page.More = missing == 0
			return page, nil
		}
	}

	return PatientPage{}, err
}

func (q PatientQuery) check() error {
	switch {
	case q.PageSize < 1, q.PageSize > MaxPatientPageSize:
		return invalidPage(fmt.Sprintf("page_size %d is outside 1 to %d; use for example 20", q.PageSize, MaxPatientPageSize))
	case q.Page < 1:
		return invalidPage(fmt.Sprintf("page %d does not exist; the first is 1", q.Page))
	case q.Page > maxPatientDepth/q.PageSize:
		return invalidPage(fmt.Sprintf("page %d lies beyond the first %d patients; narrow the list with a name", q.Page, maxPatientDepth))
	}
	return nil
}

func invalidPage(message string) *Error {
	return &Error{
		Class:   ClassPermanentData,
		Op:      OpPatients,
		Code:    CodeInvalidPage,
		Message: message,
	}
}

// firstCount is how many patients to ask for at first: all up to the page's end, as far as one request may,
// which is fewer requests than pages of the page's size would take. A server that has one page only is asked
// for its largest.
func (c *Client) firstCount(q PatientQuery) int {
	if c.habits.offsets() == ignoresOffset {
		return MaxPatientPageSize
	}
	return min(q.Page*q.PageSize, MaxPatientPageSize)
}

// patientsFrom asks for so many patients. The offset is no parameter of FHIR's, but one that servers without
// links know. A server that refuses _count, as eCW's does in places, chooses the size itself.
func (c *Client) patientsFrom(ctx context.Context, q PatientQuery, count, offset int) (patientBundle, error) {
	query := url.Values{"_count": {strconv.Itoa(count)}}
	if offset > 0 {
		query.Set("_offset", strconv.Itoa(offset))
	}
	if name := strings.TrimSpace(q.Name); name != "" {
		query.Set("name", searchValue(name))
	}

	bundle, err := c.patients(ctx, c.readRequest(OpPatients, "/Patient", query))
	if refusedAsInvalid(err) {
		query.Del("_count")
		return c.patients(ctx, c.readRequest(OpPatients, "/Patient", query))
	}

	return bundle, err
}

func (c *Client) nextPatients(ctx context.Context, link string) (patientBundle, error) {
	target, ok := c.below(link)
	if !ok {
		return patientBundle{}, &Error{
			Class:      ClassPermanentData,
			Op:         OpPatients,
			Code:       "foreign_link",
			HTTPStatus: http.StatusOK,
			Message:    "eCW's next page lies outside of ECW_FHIR_BASE_URL and was not asked for; set the URL that eCW itself uses",
		}
	}

	req := c.readRequest(OpPatients, "", nil)
	req.url = target
	return c.patients(ctx, req)
}

// below resolves a link of eCW's and reports whether it stays below the FHIR base URL, so that the access
// token goes nowhere else.
func (c *Client) below(link string) (string, bool) {
	base, err := url.Parse(c.baseURL + "/")
	if err != nil {
		return "", false
	}
	u, err := base.Parse(link)
	if err != nil || u.User != nil || u.Scheme != base.Scheme || !strings.EqualFold(u.Host, base.Host) {
		return "", false
	}
	u.Fragment = ""
	return u.String(), strings.HasPrefix(path.Clean("/"+u.Path)+"/", base.Path)
}

func (c *Client) patients(ctx context.Context, req request) (patientBundle, error) {
	res, err := c.authorized(ctx, req)
	if err != nil {
		return patientBundle{}, err
	}
	var bundle patientBundle
	err = c.judgeRead(res, OpPatients, "Bundle", &bundle)
	return bundle, err
}

// patients leaves out what a search may hold beside its matches, such as an OperationOutcome with hints.
func (b patientBundle) patients() (list []json.RawMessage, ids []string) {
	for _, e := range b.Entry {
		var head struct {
			ResourceType string `json:"resourceType"`
			ID           string `json:"id"`
		}
		if json.Unmarshal(e.Resource, &head) == nil && head.ResourceType == "Patient" && isPatientID(head.ID) {
			list, ids = append(list, e.Resource), append(ids, head.ID)
		}
	}
	return list, ids
}

// goesOn reports whether the bundle has patients, and none of those that were seen: a server that ignores the
// offset shows its first ones again.
func (b patientBundle) goesOn(seen []string) bool {
	_, ids := b.patients()
	return len(ids) > 0 && !slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(seen, id) })
}

// total is -1 when eCW does not say.
func (b patientBundle) total() int {
	if b.Total == nil || *b.Total < 0 {
		return -1
	}
	return *b.Total
}

func (b patientBundle) next() (string, bool) {
	for _, l := range b.Link {
		if l.Relation == "next" && l.URL != "" {
			return l.URL, true
		}
	}
	return "", false
}

// CountPatients returns how many patients the practice has, -1 when eCW does not say. The errors are those of
// [Client.SearchPatients].
func (c *Client) CountPatients(ctx context.Context) (int, error) {
	bundle, err := c.patientsFrom(ctx, PatientQuery{}, 1, 0)
	if err != nil || bundle.total() >= 0 {
		return max(bundle.total(), 0), err
	}
	// Servers that find it costly to count do so only when asked (FHIR R4 §3.1.1.5.11).
	bundle, err = c.patients(ctx, c.readRequest(OpPatients, "/Patient", url.Values{"_summary": {"count"}}))
	if err != nil && !refusedAsInvalid(err) {
		return 0, err
	}
	return bundle.total(), nil
}

// ReadPatient returns the FHIR Patient with that id, the resource as eCW sent it. One that does not exist, or
// no longer, is an [*Error] of [ClassPermanentData] with Code "not_found"; an id that cannot be one has Code
// "invalid_id" and is not asked for. Op is "read" or "token".
func (c *Client) ReadPatient(ctx context.Context, id string) (json.RawMessage, error) {
	if !isPatientID(id) {
		return nil, &Error{
			Class:   ClassPermanentData,
			Op:      OpRead,
			Code:    "invalid_id",
			Message: "the id is not one of a FHIR resource; use the id that eCW's patient list shows",
		}
	}

	res, err := c.authorized(ctx, c.readRequest(OpRead, "/Patient/"+id, nil))
	if err != nil {
		return nil, err
	}

	// A page that is not even JSON does not come from the FHIR server, so it says nothing about the patient.
	if res.status == http.StatusGone || res.status == http.StatusNotFound && res.isJSON() {
		return nil, &Error{
			Class:      ClassPermanentData,
			Op:         OpRead,
			Code:       "not_found",
			HTTPStatus: res.status,
			Message:    "Patient not found in eCW; check the id",
		}
	}

	var patient struct {
		ID string `json:"id"`
	}

	if err := c.judgeRead(res, OpRead, "Patient", &patient); err != nil {
		return nil, err
	}

	if patient.ID != id {
		// Linking somebody else's chart would be worse than any failure.
		return nil, &Error{
			Class:      ClassPermanentData,
			Op:         OpRead,
			Code:       "other_patient",
			HTTPStatus: res.status,
			Message:    "eCW answered with another patient than asked for; look at the chart",
		}
	}

	return res.body, nil
}

// isPatientID keeps out what is a path or an operation of FHIR's ("..", "_history").
func isPatientID(id string) bool {
	return idForm.MatchString(id) && strings.Trim(id, ".") != "" && !strings.HasPrefix(id, "_")
}
