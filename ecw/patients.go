package ecw

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
)

const (
	// MaxPatientPageSize bounds [PatientQuery.PageSize], and what eCW is asked for at a time.
	MaxPatientPageSize = 200
	// maxPatientDepth is how many patients into the list a page may reach. FHIR has no way to go to a page but over all
	// pages before it, and every request counts towards the practice's limit of 250 a minute, which deliveries share.
	maxPatientDepth = 20_000
	// maxPatientRequests holds the same where eCW's pages are smaller than asked for.
	maxPatientRequests = 100
)

// CodeInvalidPage is the [Error.Code] of a page that does not exist or lies too deep: the caller's mistake, not eCW's.
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

// SearchPatients returns a page of the patients that q selects, in eCW's order. A page beyond the end is empty. eCW's own
// pages may be of another size: as many of them are read as the page asked for takes.
//
// The error is an [*Error] with Op "patients" or "token". A page or a page size out of bounds is of [ClassPermanentData]
// with Code [CodeInvalidPage].
func (c *Client) SearchPatients(ctx context.Context, q PatientQuery) (PatientPage, error) {
	if err := q.check(); err != nil {
		return PatientPage{}, err
	}
	page := PatientPage{Patients: []json.RawMessage{}, Total: -1}
	skip := (q.Page - 1) * q.PageSize
	bundle, err := c.firstPatients(ctx, q)
	for requests := 1; err == nil; requests++ {
		page.Total = max(page.Total, bundle.total())
		found := bundle.patients()
		skipped := min(skip, len(found))
		skip -= skipped
		found = found[skipped:]
		taken := min(q.PageSize-len(page.Patients), len(found))
		page.Patients = append(page.Patients, found[:taken]...)
		next, hasNext := bundle.next()
		full := len(page.Patients) == q.PageSize
		if full || !hasNext {
			page.More = hasNext || taken < len(found)
			return page, nil
		}
		if requests == maxPatientRequests {
			return PatientPage{}, invalidPage(fmt.Sprintf("page %d is too far into eCW's list, whose own pages are small; narrow it with a name", q.Page))
		}
		bundle, err = c.nextPatients(ctx, next)
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
	return &Error{Class: ClassPermanentData, Op: OpPatients, Code: CodeInvalidPage, Message: message}
}

// firstPatients asks for all patients up to the page's end at once, as far as one request may: fewer requests than pages
// of the page's size would take. A server that refuses _count, as eCW's does in places, chooses the size itself.
func (c *Client) firstPatients(ctx context.Context, q PatientQuery) (patientBundle, error) {
	query := url.Values{"_count": {strconv.Itoa(min(q.Page*q.PageSize, MaxPatientPageSize))}}
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
		return patientBundle{}, &Error{Class: ClassPermanentData, Op: OpPatients, Code: "foreign_link", HTTPStatus: http.StatusOK,
			Message: "eCW's next page lies outside of ECW_FHIR_BASE_URL and was not asked for; set the URL that eCW itself uses"}
	}
	req := c.readRequest(OpPatients, "", nil)
	req.url = target
	return c.patients(ctx, req)
}

// below resolves a link of eCW's and tells whether it stays below the FHIR base URL, so that the access token goes
// nowhere else.
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
func (b patientBundle) patients() []json.RawMessage {
	var list []json.RawMessage
	for _, e := range b.Entry {
		var head struct {
			ResourceType string `json:"resourceType"`
			ID           string `json:"id"`
		}
		if json.Unmarshal(e.Resource, &head) == nil && head.ResourceType == "Patient" && isPatientID(head.ID) {
			list = append(list, e.Resource)
		}
	}
	return list
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
	page, err := c.SearchPatients(ctx, PatientQuery{Page: 1, PageSize: 1})
	if err != nil || page.Total >= 0 {
		return page.Total, err
	}
	// Servers that find it costly to count do so only when asked (FHIR R4 §3.1.1.5.11).
	bundle, err := c.patients(ctx, c.readRequest(OpPatients, "/Patient", url.Values{"_summary": {"count"}}))
	if err != nil && !refusedAsInvalid(err) {
		return 0, err
	}
	return bundle.total(), nil
}
