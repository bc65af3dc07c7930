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
	// MaxPatientPageSize bounds [PatientQuery.PageSize] and the number of patients that one request asks for.
	MaxPatientPageSize = 200
	// maxPatientDepth is how far into the list a page may reach. FHIR has no way to reach a page but through
	// all pages before it, and every request counts towards the practice's limit of 250 a minute, which
	// deliveries need.
	maxPatientDepth = 20_000
	// maxPatientRequests has the same purpose, for the case that eCW's pages are smaller than asked for.
	maxPatientRequests = 100
)

// CodeInvalidPage is the [Error.Code] of a page that does not exist or is too far into the list. The mistake
// is the caller's, not eCW's.
const CodeInvalidPage = "invalid_page"

// PatientQuery selects patients and one page of them.
type PatientQuery struct {
	Name     string // the start of any part of the name (FHIR's search parameter "name"); "" selects all patients
	Page     int    // the first is 1
	PageSize int    // 1 to MaxPatientPageSize
}

// PatientPage is one page of eCW's patients.
type PatientPage struct {
	Patients []json.RawMessage // FHIR Patient resources, as eCW sent them
	Total    int               // of all pages; -1 if eCW does not say
	More     bool              // eCW has patients beyond this page, or at least a link to a further page
	// Cut is true if eCW counts more patients than it lists, because it neither gives a link to its next page
	// nor honours an offset. Total is then the number that it lists.
	Cut bool
}

// patientBundle is the part of a search's result that we read.
type patientBundle struct {
	Total *int         `json:"total"`
	Link  short[link]  `json:"link"`
	Entry short[match] `json:"entry"`
}

type match struct {
	Resource json.RawMessage `json:"resource"`
}

// SearchPatients returns a page of the patients that q selects, in eCW's order. A page beyond the end is
// empty. eCW's own pages may have another size, so it reads as many of them as the page takes. It follows
// eCW's links to the next page. If eCW gives no link but counts more patients than it has shown, it asks for
// the rest by offset, provided that eCW is seen to honour one.
//
// The error is an [*Error] with Op "patients" or "token". A page or a page size out of bounds is of
// [ClassPermanentData] with Code [CodeInvalidPage].
func (c *Client) SearchPatients(ctx context.Context, q PatientQuery) (PatientPage, error) {
	if err := q.check(); err != nil {
		return PatientPage{}, err
	}

	w := newPatientWalk(q)
	bundle, err := c.patientsFrom(ctx, q, c.firstCount(q), 0)
	for requests := 1; err == nil; requests++ {
		w.take(bundle)
		next, hasNext := bundle.next()
		w.linked = w.linked || hasNext
		w.page.More = hasNext || w.surplus || !w.needsNoOffset()

		offsets := c.habits.offset.get(c.now())
		switch {
		case w.missing() == 0 && (w.needsNoOffset() || offsets == takesOffset), w.needsNoOffset() && !hasNext:
			return w.page, nil
		case requests == maxPatientRequests:
			return PatientPage{}, invalidPage(fmt.Sprintf(
				"page %d is too far into eCW's list, whose own pages are small; narrow it with a name", q.Page))
		case hasNext:
			bundle, err = c.nextPatients(ctx, next)
			continue
		case offsets == ignoresOffset:
			return w.cut(), nil
		case offsets == takesOffset && w.beyondTheEnd():
			w.page.More = false
			return w.page, nil
		}

		bundle, err = c.patientsFrom(ctx, q, max(w.missing(), 1), w.nextOffset())
		switch {
		case refusedAsInvalid(err), err == nil && !bundle.goesOn(w.seen):
			c.habits.offset.learn(ignoresOffset, c.now())
			return c.SearchPatients(ctx, q) // from the start, with the largest page there is
		case err == nil:
			c.habits.offset.learn(takesOffset, c.now())
			if w.missing() == 0 || w.beyondTheEnd() {
				w.page.More = w.missing() == 0
				return w.page, nil
			}
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

// firstCount is how many patients the first request asks for: all up to the end of the page, as far as one
// request may, because that takes fewer requests than pages of the page's size. From a server that gives one
// page only, the client asks for the largest page.
func (c *Client) firstCount(q PatientQuery) int {
	if c.habits.offset.get(c.now()) == ignoresOffset {
		return MaxPatientPageSize
	}
	return min(q.Page*q.PageSize, MaxPatientPageSize)
}

// patientsFrom asks for count patients from an offset on. The offset is not a parameter of FHIR, but servers
// without links know it.
func (c *Client) patientsFrom(ctx context.Context, q PatientQuery, count, offset int) (patientBundle, error) {
	query := url.Values{"_count": {strconv.Itoa(count)}}
	if offset > 0 {
		query.Set("_offset", strconv.Itoa(offset))
	}
	if name := strings.TrimSpace(q.Name); name != "" {
		query.Set("name", searchValue(name))
	}

	return c.patientsBy(ctx, query)
}

// patientsBy searches for patients. If the server refuses _count, as eCW does for some resources, the request
// is repeated without.
func (c *Client) patientsBy(ctx context.Context, query url.Values) (patientBundle, error) {
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

// below resolves a link of eCW's and reports whether it is below the FHIR base URL. The access token must not
// be sent anywhere else.
func (c *Client) below(link string) (string, bool) {
	base, err := url.Parse(c.baseURL + "/")
	if err != nil {
		return "", false
	}
	u, err := base.Parse(link)
	if err != nil || u.User != nil || u.Scheme != base.Scheme || !strings.EqualFold(u.Host, base.Host) {
		return "", false
	}
	// What was encoded twice, or has a backslash, is no step upwards for us, and may be one for the server.
	if strings.Contains(u.Path, "..") || strings.ContainsAny(u.Path, `%\`) {
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

// patients returns the Patients of a search's result, without what else it may hold, such as an
// OperationOutcome with hints.
func (b patientBundle) patients() (list []json.RawMessage, ids []string) {
	for _, e := range b.Entry {
		var head struct {
			ResourceType string `json:"resourceType"`
			ID           string `json:"id"`
		}
		if json.Unmarshal(e.Resource, &head) == nil && head.ResourceType == "Patient" && isID(head.ID) {
			list, ids = append(list, e.Resource), append(ids, head.ID)
		}
	}
	return list, ids
}

// goesOn reports whether the bundle has patients and none of those seen. A server that ignores the offset
// returns its first patients again.
func (b patientBundle) goesOn(seen []string) bool {
	_, ids := b.patients()
	return len(ids) > 0 && !slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(seen, id) })
}

// total is -1 if eCW does not say.
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

// CountPatients returns how many patients the practice has, -1 if eCW does not say. The errors are those of
// [Client.SearchPatients].
func (c *Client) CountPatients(ctx context.Context) (int, error) {
	bundle, err := c.patientsFrom(ctx, PatientQuery{}, 1, 0)
	if err != nil || bundle.total() >= 0 {
		return max(bundle.total(), 0), err
	}

	// A server to which counting is costly does it only on this request (FHIR R4 §3.1.1.5.11).
	bundle, err = c.patients(ctx, c.readRequest(OpPatients, "/Patient", url.Values{"_summary": {"count"}}))
	if err != nil && !refusedAsInvalid(err) {
		return 0, err
	}
	return bundle.total(), nil
}
