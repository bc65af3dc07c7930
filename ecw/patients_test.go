package ecw

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// practice is a server with a number of patients. Its fields choose among the ways of paging that FHIR
// permits.
type practice struct {
	patients    int
	largest     int  // page it gives, whatever _count says; 0: no limit
	refuseCount bool // 400 to _count
	noTotal     bool
	countOnly   bool // the total only with _summary=count
	relative    bool // links
	noLinks     bool // to further pages
	offset      bool // takes _offset
	refuses     bool // 400 to _offset
	hints       bool // an OperationOutcome on every page, and patients without an id
}

func (p practice) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if p.refuseCount && q.Has("_count") {
		reply(400, "", outcome("error", "invalid"))(w, r)
		return
	}

	type object = map[string]any
	if q.Get("_summary") == "count" {
		p.send(w, object{"resourceType": "Bundle", "total": p.patients})
		return
	}

	size, err := strconv.Atoi(q.Get("_count"))
	if err != nil {
		size = 10
	}

	if p.largest > 0 {
		size = min(size, p.largest)
	}

	from, opaque := 0, q.Get("cursor")
	if opaque != "" {
		_, _ = fmt.Sscanf(opaque, "c%dx%d", &from, &size) // nothing else of the search is in the link
	}

	if p.refuses && q.Has("_offset") {
		reply(400, "", outcome("error", "invalid"))(w, r)
		return
	}

	if p.offset {
		_, _ = fmt.Sscan(q.Get("_offset"), &from)
	}

	bundle := object{"resourceType": "Bundle", "type": "searchset"}
	if !p.noTotal && !p.countOnly {
		bundle["total"] = p.patients
	}

	var entries []object
	if p.hints {
		entries = append(entries, object{"resource": json.RawMessage(outcome("warning", "informational"))},
			object{"resource": object{"resourceType": "Patient"}}, object{})
	}

	for n := from; n < min(from+size, p.patients); n++ {
		entries = append(entries, object{"resource": object{"resourceType": "Patient", "id": fmt.Sprintf("p%d", n)}})
	}

	bundle["entry"] = entries
	if from+size < p.patients && !p.noLinks {
		bundle["link"] = []object{{
			"relation": "self",
			"url":      "https://elsewhere.example/",
		}, {
			"relation": "next",
			"url":      p.link(r, from+size, size),
		}}
	}

	p.send(w, bundle)
}

func (p practice) link(r *http.Request, from, size int) string {
	link := fmt.Sprintf("Patient?cursor=c%dx%d", from, size)
	if p.relative {
		return link
	}
	return "http://" + r.Host + "/fhir/r4/FFHEDD/" + link
}

func (p practice) send(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", mediaFHIR)
	_ = json.NewEncoder(w).Encode(v)
}

func patientIDs(t *testing.T, list []json.RawMessage) []string {
	t.Helper()
	var ids []string
	for _, raw := range list {
		var p struct{ ResourceType, ID string }
		if err := json.Unmarshal(raw, &p); err != nil || p.ResourceType != "Patient" {
			t.Fatalf("not a Patient: %s", raw)
		}
		ids = append(ids, p.ID)
	}
	return ids
}

func TestSearchPatientsPages(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		server     practice
		page, size int
		first, n   int // the patients expected
		more       bool
		total      int
		gets       int
	}{
		{"first of several", practice{patients: 45}, 1, 20, 0, 20, true, 45, 1},
		{"in the middle", practice{patients: 45}, 2, 20, 20, 20, true, 45, 1},
		{"last", practice{patients: 45}, 3, 20, 40, 5, false, 45, 1},
		{"last and full", practice{patients: 40}, 2, 20, 20, 20, false, 40, 1},
		{"beyond the end", practice{patients: 45}, 4, 20, 0, 0, false, 45, 1},
		{"nobody", practice{}, 1, 20, 0, 0, false, 0, 1},
		{"deep", practice{patients: 1000}, 45, 20, 880, 20, true, 1000, 5},
		{"to the end over links", practice{patients: 1000}, 50, 20, 980, 20, false, 1000, 5},
		{"server's pages are smaller", practice{patients: 45, largest: 7}, 2, 20, 20, 20, true, 45, 6},
		{"server's pages are single", practice{patients: 45, largest: 1}, 3, 5, 10, 5, true, 45, 15},
		{"relative links", practice{patients: 45, largest: 10, relative: true}, 2, 20, 20, 20, true, 45, 4},
		{"server refuses _count", practice{patients: 45, refuseCount: true}, 1, 20, 0, 20, true, 45, 3},
		{"server's pages are larger", practice{patients: 45, refuseCount: true}, 2, 4, 4, 4, true, 45, 2},
		{"no total", practice{patients: 45, noTotal: true}, 3, 20, 40, 5, false, -1, 1},
		{"hints among them", practice{patients: 45, largest: 10, hints: true}, 2, 20, 20, 20, true, 45, 4},
		{"largest page", practice{patients: 201}, 1, 200, 0, 200, true, 201, 1},
		{"as deep as can be", practice{patients: 20_001}, 100, 200, 19_800, 200, true, 20_001, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = tc.server.serve
			got, err := e.client(t).SearchPatients(context.Background(), PatientQuery{Page: tc.page, PageSize: tc.size})
			if err != nil {
				t.Fatal(err)
			}

			var want []string
			for n := range tc.n {
				want = append(want, fmt.Sprintf("p%d", tc.first+n))
			}

			if ids := patientIDs(t, got.Patients); !slices.Equal(ids, want) || got.More != tc.more || got.Total != tc.total || got.Patients == nil {
				t.Errorf("got %v, more %v, total %d; want %v", ids, got.More, got.Total, want)
			}

			for _, r := range e.requests("GET") {
				if r.header.Get("Authorization") != "Bearer tok-1" || r.header.Get("Accept") != mediaFHIR {
					t.Errorf("asked with %v", r.header)
				}
			}

			if n := len(e.requests("GET")); n != tc.gets {
				t.Errorf("%d requests, want %d", n, tc.gets)
			}
		})
	}
}

// TestServerWithoutLinks: if the server gives no link to the next page, the client asks for the rest by
// offset, provided that the server is seen to honour one. If not, every page reports the list as cut where
// the server ends it.
func TestServerWithoutLinks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		server     practice
		page, size int
		first, n   int // the patients expected
		more       bool
		total      int
		cut        bool
		gets       int // for two times the same
	}{
		{"first by offset", practice{patients: 450, offset: true}, 1, 20, 0, 20, true, 450, false, 3},
		{"deep by offset", practice{patients: 450, offset: true}, 12, 20, 220, 20, true, 450, false, 4},
		{"last by offset", practice{patients: 450, offset: true}, 23, 20, 440, 10, false, 450, false, 4},
		{"beyond the last by offset", practice{patients: 450, offset: true}, 24, 20, 0, 0, false, 450, false, 3},
		{"small pages by offset", practice{patients: 450, offset: true, largest: 50}, 2, 200, 200, 200, true, 450, false, 10},
		{"first, offset ignored", practice{patients: 450}, 1, 20, 0, 20, true, 200, true, 4},
		{"last that can be had, offset ignored", practice{patients: 450}, 10, 20, 180, 20, false, 200, true, 4},
		{"beyond what can be had, offset ignored", practice{patients: 450}, 11, 20, 0, 0, false, 200, true, 4},
		{"offset refused", practice{patients: 450, refuses: true}, 11, 20, 0, 0, false, 200, true, 5},
		{"offset ignored, small pages", practice{patients: 450, largest: 50}, 1, 20, 0, 20, true, 50, true, 4},
		{"offset ignored, no _count", practice{patients: 450, refuseCount: true}, 2, 20, 0, 0, false, 10, true, 8},
		{"all on one page", practice{patients: 12}, 1, 20, 0, 12, false, 12, false, 2},
		{"no total", practice{patients: 450, noTotal: true}, 1, 20, 0, 20, false, -1, false, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			tc.server.noLinks = true
			e.find = tc.server.serve
			c := e.client(t)

			for range 2 {
				got, err := c.SearchPatients(context.Background(), PatientQuery{Page: tc.page, PageSize: tc.size})
				if err != nil {
					t.Fatal(err)
				}

				var want []string
				for n := range tc.n {
					want = append(want, fmt.Sprintf("p%d", tc.first+n))
				}

				if ids := patientIDs(t, got.Patients); !slices.Equal(ids, want) || got.Total != tc.total || got.More != tc.more || got.Cut != tc.cut {
					t.Errorf("got %d of %d, more %v, cut %v: %v", len(ids), got.Total, got.More, got.Cut, ids)
				}
			}

			if n := len(e.requests("GET")); n != tc.gets {
				t.Errorf("%d requests, want %d", n, tc.gets)
			}
		})
	}
}

func TestSearchPatientsByName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]url.Values{
		"":              {"_count": {"20"}},
		"  ":            {"_count": {"20"}},
		"Ann Lee":       {"_count": {"20"}, "name": {"Ann Lee"}},
		" Núñez ":       {"_count": {"20"}, "name": {"Núñez"}},
		"Lee, Ann|$&=?": {"_count": {"20"}, "name": {`Lee\, Ann\|\$&=?`}},
	} {
		e := newEHR(t)
		got, err := e.client(t).SearchPatients(context.Background(), PatientQuery{Name: name, Page: 1, PageSize: 20})
		if err != nil || len(got.Patients) != 0 || got.More || got.Total != 0 {
			t.Errorf("%q: %+v %v", name, got, err)
		}

		u, err := url.Parse(e.requests("GET")[0].url)
		if err != nil || u.Path != "/fhir/r4/FFHEDD/Patient" || u.Query().Encode() != want.Encode() {
			t.Errorf("%q asked %s, want %s", name, u, want.Encode())
		}
	}
}

func TestSearchPatientsRefusesPages(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	c := e.client(t)

	for _, tc := range []struct {
		page, size int
		names      string
	}{
		{0, 20, "page 0"}, {-1, 20, "page -1"}, {1, 0, "page_size 0"}, {1, -1, "page_size -1"}, {1, 201, "page_size 201"},
		{1001, 20, "page 1001"}, {101, 200, "page 101"}, {1 << 62, 200, "page "}, {20_001, 1, "page 20001"},
	} {
		_, err := c.SearchPatients(context.Background(), PatientQuery{Page: tc.page, PageSize: tc.size})
		if ee := asError(t, err); ee.Class != ClassPermanentData || ee.Code != "invalid_page" || !strings.HasPrefix(ee.Message, tc.names) {
			t.Errorf("page %d of %d: %v", tc.page, tc.size, ee)
		}
	}

	if len(e.requests("token"))+len(e.requests("GET")) != 0 {
		t.Error("something was sent")
	}
}

// TestSearchPatientsGivesUp: the number of requests is bounded, so that small pages do not use up the
// practice's limit.
func TestSearchPatientsGivesUp(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.find = practice{patients: 5000, largest: 2}.serve
	_, err := e.client(t).SearchPatients(context.Background(), PatientQuery{Page: 50, PageSize: 20})
	if ee := asError(t, err); ee.Class != ClassPermanentData || ee.Code != "invalid_page" {
		t.Errorf("got %v", ee)
	}
	if n := len(e.requests("GET")); n != maxPatientRequests {
		t.Errorf("%d requests, want %d", n, maxPatientRequests)
	}
}

// TestSearchPatientsFailsOnALaterPage: if a request fails, there is an error and no part of the page.
func TestSearchPatientsFailsOnALaterPage(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.find = first(practice{patients: 45, largest: 10}.serve, reply(429, "", ""))
	got, err := e.client(t).SearchPatients(context.Background(), PatientQuery{Page: 1, PageSize: 20})
	if ee := asError(t, err); ee.Class != ClassThrottled || len(got.Patients) != 0 {
		t.Errorf("got %+v %v", got, ee)
	}
}

// TestTheTokenStaysBelowTheBase: a link that leads out of the FHIR base URL is not followed.
func TestTheTokenStaysBelowTheBase(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(stranger.Close)

	for _, link := range []string{
		stranger.URL + "/fhir/r4/FFHEDD/Patient?page=2",
		strings.Replace(stranger.URL, "http:", "", 1) + "/fhir/r4/FFHEDD/Patient",
		"{origin}/fhir/r4/OTHER/Patient?page=2",
		"{origin}/fhir/r4/FFHEDD2/Patient",
		"{origin}/token",
		"{origin}/fhir/r4/FFHEDD/../OTHER/Patient",
		"{origin}/fhir/r4/FFHEDD/%2e%2e/OTHER/Patient",
		"{origin}/fhir/r4/FFHEDD/..%2fOTHER/Patient",
		"{origin}/fhir/r4/FFHEDD/..%2f..%2f..%2ftoken",
		"{origin}/fhir/r4/FFHEDD/%2e%2e%2fOTHER/Patient",
		"{origin}/fhir/r4/FFHEDD/..%252fOTHER/Patient",
		"{origin}/fhir/r4/FFHEDD/%252e%252e%252fOTHER/Patient",
		"{origin}/fhir/r4/FFHEDD/..%5cOTHER/Patient",
		`{origin}/fhir/r4/FFHEDD/..\OTHER\Patient`,
		"{origin}/fhir/r4/FFHEDD/..;/OTHER/Patient",
		"{origin}/fhir/r4/ffhedd/Patient",
		"{origin}/admin/faults",
		"http://169.254.169.254/fhir/r4/FFHEDD/Patient",
		"http://169.254.169.254/latest/meta-data/iam/security-credentials/",
		"http://[fd00:ec2::254]/fhir/r4/FFHEDD/Patient",
		"http://2852039166/fhir/r4/FFHEDD/Patient",
		"http://localhost/fhir/r4/FFHEDD/Patient",
		"//169.254.169.254/fhir/r4/FFHEDD/Patient",
		`\\169.254.169.254\fhir\r4\FFHEDD\Patient`,
		"http://{host}@169.254.169.254/fhir/r4/FFHEDD/Patient",
		"http://{host}:80@169.254.169.254/fhir/r4/FFHEDD/Patient",
		"http://somebody:secret@{host}/fhir/r4/FFHEDD/Patient",
		"http://@{host}/fhir/r4/FFHEDD/Patient",
		"http://{host}%2f@169.254.169.254/fhir/r4/FFHEDD/Patient",
		"http://{host}#@169.254.169.254/fhir/r4/FFHEDD/Patient",
		"http:/fhir/r4/OTHER/Patient",
		"http:fhir/r4/FFHEDD/Patient",
		"../OTHER/Patient",
		"/",
		"https://{host}/fhir/r4/FFHEDD/Patient",
		"http://somebody@{host}/fhir/r4/FFHEDD/Patient",
		"http://{host}.example/fhir/r4/FFHEDD/Patient",
		"ftp://{host}/fhir/r4/FFHEDD/Patient",
		"ws://{host}/fhir/r4/FFHEDD/Patient",
		"gopher://{host}/fhir/r4/FFHEDD/Patient",
		"file:///etc/passwd",
		"file:///fhir/r4/FFHEDD/Patient",
		"data:application/fhir+json,{}",
		"javascript:alert(1)",
		"http+unix://{host}/fhir/r4/FFHEDD/Patient",
		"mailto:somebody@example.com",
		"http://[::1",
		"%zz",
		"Patient?page=2\r\nX-Evil: 1",
	} {
		t.Run(link, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			link := strings.NewReplacer("{origin}", e.URL, "{host}", strings.TrimPrefix(e.URL, "http://")).Replace(link)
			e.find = reply(200, "", fmt.Sprintf(`{"resourceType":"Bundle","link":[{"relation":"next","url":%q}],`+
				`"entry":[{"resource":{"resourceType":"Patient","id":"p1"}}]}`, link))
			c := e.client(t)
			_, err := c.SearchPatients(context.Background(), PatientQuery{Page: 1, PageSize: 2})

			if ee := asError(t, err); ee.Class != ClassPermanentData || ee.Code != "foreign_link" {
				t.Errorf("got %v", ee)
			}
			if n := len(e.requests("GET")); n != 1 || reached.Load() != 0 {
				t.Errorf("%d requests, and %d elsewhere", n, reached.Load())
			}

			// A page that needs no link is still returned.
			page, err := c.SearchPatients(context.Background(), PatientQuery{Page: 1, PageSize: 1})
			if err != nil || len(page.Patients) != 1 || !page.More {
				t.Errorf("got %+v %v", page, err)
			}
		})
	}
}

// TestLinksBelowTheBase tests the forms of links that servers give.
func TestLinksBelowTheBase(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ base, link, want string }{
		{"https://h.example/fhir/X", "https://h.example/fhir/X?_getpages=a&b=1", "https://h.example/fhir/X?_getpages=a&b=1"},
		{"https://h.example/fhir/X", "https://H.example/fhir/X/Patient?page=2#top", "https://H.example/fhir/X/Patient?page=2"},
		{"https://h.example/fhir/X", "Patient?page=2", "https://h.example/fhir/X/Patient?page=2"},
		{"https://h.example/fhir/X", "/fhir/X/Patient/_search?page=2", "https://h.example/fhir/X/Patient/_search?page=2"},
		{"https://h.example", "https://h.example?page=2", "https://h.example?page=2"},
		{"https://h.example", "/Patient?page=2", "https://h.example/Patient?page=2"},
	} {
		c := &Client{baseURL: tc.base}
		if got, ok := c.below(tc.link); !ok || got != tc.want {
			t.Errorf("%s below %s: %s %v, want %s", tc.link, tc.base, got, ok, tc.want)
		}
	}
}

func TestCountPatients(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		server http.HandlerFunc
		want   int
		gets   int
	}{
		{"total of a search", practice{patients: 142}.serve, 142, 1},
		{"nobody", practice{}.serve, 0, 1},
		{"only when asked", practice{patients: 142, countOnly: true}.serve, 142, 2},
		{"server refuses _count", practice{patients: 142, refuseCount: true}.serve, 142, 2},
		{"more than can be listed", practice{patients: 450, noLinks: true}.serve, 450, 1},
		{"never", reply(200, "", `{"resourceType":"Bundle"}`), -1, 2},
		{"nonsense", reply(200, "", `{"resourceType":"Bundle","total":-7}`), -1, 2},
		{"refuses to count", first(reply(200, "", `{"resourceType":"Bundle"}`), reply(400, "", outcome("error", "invalid"))), -1, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = tc.server
			got, err := e.client(t).CountPatients(context.Background())
			if err != nil || got != tc.want {
				t.Errorf("got %d %v, want %d", got, err, tc.want)
			}

			if n := len(e.requests("GET")); n != tc.gets {
				t.Errorf("%d requests, want %d", n, tc.gets)
			}
		})
	}
}
