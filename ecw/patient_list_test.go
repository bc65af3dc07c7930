package ecw

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// person is an entry of a search's result.
func person(id string) string { return `{"resource":{"resourceType":"Patient","id":"` + id + `"}}` }

// people are the entries of several.
func people(ids ...string) string {
	var entries []string
	for _, id := range ids {
		entries = append(entries, person(id))
	}
	return strings.Join(entries, ",")
}

// list answers with a page of a search's result.
func list(entries string) http.HandlerFunc {
	return reply(200, "", `{"resourceType":"Bundle","type":"searchset","entry":[`+entries+`]}`)
}

// linked answers with a page that has a next one.
func linked(next, entries string) http.HandlerFunc {
	return reply(200, "", `{"resourceType":"Bundle","link":[{"relation":"next","url":"`+next+`"}],"entry":[`+entries+`]}`)
}

// inTurn gives each request the next answer, and the last one to all later requests.
func inTurn(answers ...http.HandlerFunc) http.HandlerFunc {
	h := answers[len(answers)-1]
	for _, answer := range slices.Backward(answers[:len(answers)-1]) {
		h = first(answer, h)
	}
	return h
}

// TestReadPatients: whatever eCW answers, only patients who were asked for are returned, each under its own
// id, and the number of requests is bounded.
func TestReadPatients(t *testing.T) {
	t.Parallel()
	asked := []string{"p1", "p2", "p3", "p4"}
	for _, tc := range []struct {
		name    string
		find    http.HandlerFunc
		found   []string
		code    string // of the error; "": none
		gets    int
		refuses bool // is remembered: the next call sends nothing
	}{
		{name: "all", find: list(people("p4", "p2", "p1", "p3")), found: asked, gets: 1},
		{name: "all, and a link to more", find: linked("Patient?page=2", people(asked...)), found: asked, gets: 1},
		{name: "some are missing", find: list(people("p1", "p3")), found: []string{"p1", "p3"}, gets: 1},
		{name: "nobody", find: list(""), gets: 1},
		{name: "in pages", find: inTurn(linked("Patient?page=2", people("p1", "p2")), list(people("p3", "p4"))), found: asked, gets: 2},
		{name: "pages without an end", find: linked("Patient?page=2", people("p1")), gets: 2},
		{name: "pages with nobody", find: linked("Patient?page=2", ""), gets: 1},
		{name: "somebody else among them", find: list(people("p1", "x", "p2")), found: []string{"p1", "p2"}, gets: 1},
		{name: "others instead", find: list(people("p1", "x", "y")), code: CodeNoPatientList, gets: 1, refuses: true},
		{
			name:    "others on a later page",
			find:    inTurn(linked("Patient?page=2", people("p1", "p2")), list(people("x"))),
			code:    CodeNoPatientList,
			gets:    2,
			refuses: true,
		},
		{name: "one twice", find: list(people("p1", "p2", "p1")), found: []string{"p2"}, gets: 1},
		{name: "one three times", find: list(people("p1", "p1", "p1")), gets: 1},
		{
			name:  "twice over pages",
			find:  inTurn(linked("Patient?page=2", people("p1", "p2")), list(people("p2", "p3"))),
			found: []string{"p1", "p3"},
			gets:  2,
		},
		{
			name: "other resources",
			find: list(`{"resource":` + outcome("error", "not-found") + `},{"resource":{"resourceType":"Observation","id":"p2"}},` +
				`{"resource":{"resourceType":"Patient"}},{"resource":"p3"},{},` + person("p1")),
			found: []string{"p1"},
			gets:  1,
		},
		{
			name: "parts only",
			find: list(`{"resource":{"resourceType":"Patient","id":"p1","meta":{"tag":[{"code":"x"},{"code":"SUBSETTED"}]}}},` +
				`{"resource":{"resourceType":"Patient","id":"p2","meta":{"tag":[{"code":"x"}]}}},` +
				`{"resource":{"resourceType":"Patient","id":"p3","meta":"?"}}`),
			found: []string{"p2"},
			gets:  1,
		},
		{name: "400", find: reply(400, "", outcome("error", "invalid")), code: "invalid", gets: 2, refuses: true},
		{name: "400 to _count only", find: first(reply(400, "", outcome("error", "invalid")), list(people("p1"))), found: []string{"p1"}, gets: 2},
		{name: "403", find: reply(403, "", outcome("error", "forbidden")), code: "forbidden", gets: 1, refuses: true},
		{name: "414", find: reply(414, "", ""), code: "http_414", gets: 1, refuses: true},
		{name: "501", find: reply(501, "", outcome("error", "not-supported")), code: "not-supported", gets: 1, refuses: true},
		{name: "not-supported with 200", find: reply(200, "", outcome("error", "not-supported")), code: "not-supported", gets: 1, refuses: true},
		{name: "endless", find: reply(200, "", strings.Repeat(" ", maxReadBody+1)), code: "response_too_large", gets: 1, refuses: true},
		{name: "429", find: reply(429, "", ""), code: "throttled", gets: 1},
		{name: "503", find: reply(503, "", ""), code: "http_503", gets: 1},
		{name: "a Patient", find: reply(200, "", `{"resourceType":"Patient","id":"p1"}`), code: "malformed_response", gets: 1},
		{
			name:  "a later page is refused",
			find:  inTurn(linked("Patient?page=2", people("p1", "p2")), reply(429, "", "")),
			found: []string{"p1", "p2"},
			code:  "throttled",
			gets:  2,
		},
		{
			name:  "a later page is elsewhere",
			find:  linked("https://elsewhere.example/fhir/r4/FFHEDD/Patient?page=2", people("p1", "p2")),
			found: []string{"p1", "p2"},
			code:  "foreign_link",
			gets:  1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			e.find = tc.find
			now := time.Now()
			c := e.client(t, func(cfg *Config) { cfg.Now = func() time.Time { return now } })
			got, err := c.ReadPatients(context.Background(), asked)

			if tc.code != "" {
				if ee := asError(t, err); ee.Code != tc.code || ee.Op != OpPatients {
					t.Errorf("got %v, want %s", ee, tc.code)
				}
			} else if err != nil {
				t.Error(err)
			}

			if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, tc.found) {
				t.Errorf("found %v, want %v", ids, tc.found)
			}
			for id, resource := range got {
				var shown struct{ ID string }
				if err := json.Unmarshal(resource, &shown); err != nil || shown.ID != id {
					t.Errorf("under %s stands %s", id, resource)
				}
			}
			if n := len(e.requests("GET")); n != tc.gets {
				t.Errorf("%d requests, want %d", n, tc.gets)
			}
			if url := e.requests("GET")[0].url; url != "/fhir/r4/FFHEDD/Patient?_count=4&_id=p1%2Cp2%2Cp3%2Cp4" {
				t.Errorf("asked %s", url)
			}

			again, err := c.ReadPatients(context.Background(), asked)
			sent := len(e.requests("GET")) - tc.gets
			if tc.refuses && (again != nil || asError(t, err).Code != CodeNoPatientList || sent != 0) {
				t.Errorf("asked again: %d requests, %v %v", sent, again, err)
			}
			if !tc.refuses && sent == 0 {
				t.Error("nothing was sent the second time")
			}

			now = now.Add(rememberFor)
			_, _ = c.ReadPatients(context.Background(), asked)
			if n := len(e.requests("GET")) - tc.gets - sent; n == 0 {
				t.Error("nothing was sent an hour later")
			}
			e.checkLogs(t)
		})
	}
}

// TestReadPatientsBoundsItsList: a request asks for a hundred patients at most, and its URL stays short. What
// is no id never becomes part of it.
func TestReadPatientsBoundsItsList(t *testing.T) {
	t.Parallel()
	many := func(n, length int) (ids []string) {
		for i := range n {
			ids = append(ids, fmt.Sprintf("%0*d", length, i))
		}
		return ids
	}

	for name, tc := range map[string]struct {
		ids  []string
		want int
	}{
		"a hundred":          {many(100, 8), 100},
		"more":               {many(150, 8), 100},
		"long ones":          {many(100, 64), 100},
		"the longest":        {many(100, 128), 53},
		"the same again":     {append(many(3, 8), many(3, 8)...), 3},
		"some cannot be":     {[]string{"p1", "", "..", "_history", "a/b", "a,b", "p2"}, 2},
		"none of them can":   {[]string{"", "_history"}, 0},
		"nobody asked for":   {nil, 0},
		"one":                {many(1, 8), 1},
		"too long for an id": {[]string{strings.Repeat("a", 129), "p1"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEHR(t)
			if _, err := e.client(t).ReadPatients(context.Background(), tc.ids); err != nil {
				t.Fatal(err)
			}

			sent := e.requests("GET")
			if tc.want == 0 {
				if len(sent) != 0 {
					t.Errorf("asked %s", sent[0].url)
				}
				return
			}
			if n := strings.Count(sent[0].url, "%2C") + 1; n != tc.want || len(sent) != 1 || len(sent[0].url) > 7100 {
				t.Errorf("asked for %d with %d requests, want %d: a URL of %d bytes", n, len(sent), tc.want, len(sent[0].url))
			}
		})
	}
}

// TestNoTokenIsNoRefusalOfLists: a refusal of the token says nothing about lists.
func TestNoTokenIsNoRefusalOfLists(t *testing.T) {
	t.Parallel()
	e := newEHR(t)
	e.token = first(reply(403, "", `{"error":"unauthorized_client"}`), e.token)
	e.find = list(people("p1", "p2"))
	c := e.client(t)
	if _, err := c.ReadPatients(context.Background(), []string{"p1", "p2"}); asError(t, err).Op != OpToken {
		t.Errorf("got %v", err)
	}
	if got, err := c.ReadPatients(context.Background(), []string{"p1", "p2"}); err != nil || len(got) != 2 {
		t.Errorf("got %v %v", got, err)
	}
}
