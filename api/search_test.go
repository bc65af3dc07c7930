package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// search posts a search, with next or previous of a page in its place.
func (s *system) search(path, body, place string, page any) answer {
	s.tb.Helper()
	if page != nil {
		var members map[string]any
		if err := json.Unmarshal([]byte(body), &members); err != nil {
			s.tb.Fatal(err)
		}
		members[place] = page
		whole, err := json.Marshal(members)
		if err != nil {
			s.tb.Fatal(err)
		}
		body = string(whole)
	}
	return s.do("POST", path, body).want(s.tb, http.StatusOK, "")
}

// A search by body finds what the list finds, page for page, forth and back, and no URL in it has a name.
func TestASearchByBodyIsTheList(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	for i := range 7 {
		s.do("POST", "/api/v1/patients/", fmt.Sprintf(
			`{"first_name":"P%d","last_name":"Family","date_of_birth":"1957-03-21","mrn":"M-%d"}`, i, i)).want(t, http.StatusCreated, "")
	}

	for _, search := range []struct {
		path, place string
		query, body string
	}{
		{"/api/v1/patients/", "cursor", "page_size=3", `{"page_size":3}`},
		{"/api/v1/patients/", "cursor", "page_size=3&page=2", `{"page_size":3,"page":2.0}`},
		{"/api/v1/patients/", "cursor", "mrn=M-4", `{"mrn":"M-4"}`},
		{"/api/v1/patients/", "cursor", "mismatch=true", `{"mismatch":true}`},
		{"/api/v1/patients/", "cursor", "mismatch=false&external_id=", `{"mismatch":false,"external_id":""}`},
		{"/api/v1/patients/", "cursor", "search=fam&active=true&ordering=-created_at", `{"search":"fam","active":true,"ordering":"-created_at"}`},
		{"/api/v1/ecw/patients/", "page", "page_size=50", `{"page_size":50}`},
		{"/api/v1/ecw/patients/", "page", "search=a&page_size=20&page=1", `{"search":"a","page_size":20,"page":1}`},
		{"/api/v1/ecw/patients/", "page", "search=nobody", `{"search":"nobody"}`},
	} {
		listed := s.do("GET", search.path+"?"+search.query, "").want(t, http.StatusOK, "")
		found := s.search(search.path+"search/", search.body, search.place, nil)
		for _, link := range []string{"next", "previous"} {
			for pages := 0; ; pages++ {
				if !reflect.DeepEqual(listed.get("results"), found.get("results")) || listed.get("count") != found.get("count") {
					t.Errorf("%s, %s %d times: the list has %s, the search %s", search.body, link, pages, listed.body, found.body)
				}
				if (listed.get(link) == nil) != (found.get(link) == nil) {
					t.Fatalf("%s: %s of the list is %v, of the search %v", search.body, link, listed.get(link), found.get(link))
				}
				if listed.get(link) == nil {
					break
				}

				// With a cursor no page may be named.
				body := search.body
				if search.place == "cursor" {
					body = `{"page_size":3}`
					if strings.Contains(search.body, "ordering") {
						body = search.body
					}
				}
				listed, found = s.do("GET", listed.text(link), "").want(t, http.StatusOK, ""), s.search(search.path+"search/", body, search.place, found.get(link))
			}
		}
	}
}

func TestASearchByBodyRefusesWhatTheListRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	for _, test := range []struct {
		path, body string
		code       string
		field      string
	}{
		{"patients", `{"mrn":1}`, "invalid", "mrn"},
		{"patients", `{"mrn":"a\u0000"}`, "invalid", "mrn"},
		{"patients", `{"mrn":null}`, "invalid", "mrn"},
		{"patients", `{"mismatch":"true"}`, "invalid", "mismatch"},
		{"patients", `{"name":"Doe"}`, "invalid", "name"},
		{"patients", `{"page":0}`, "invalid", "page"},
		{"patients", `{"page":1.5}`, "invalid", "page"},
		{"patients", `{"page_size":101}`, "invalid", "page_size"},
		{"patients", `{"cursor":"x"}`, "invalid", "cursor"},
		{"patients", `{"page":1000000}`, "page_too_deep", ""},
		{"patients", `[]`, "malformed_json", ""},
		{"ecw/patients", `{"cursor":"x"}`, "invalid", "cursor"},
		{"ecw/patients", `{"search":"a\u0007"}`, "invalid", "search"},
		{"ecw/patients", `{"page":1000000}`, "invalid", "page"},
	} {
		got := s.do("POST", "/api/v1/"+test.path+"/search/", test.body).want(t, http.StatusBadRequest, test.code)
		if fields := got.fields(); test.field != "" && (len(fields) != 1 || fields[0] != test.field) {
			t.Errorf("%s: the fields are %v", test.body, fields)
		}
	}

	s.do("POST", "/api/v1/patients/search/?mrn=1", `{}`).want(t, http.StatusBadRequest, "invalid")
	s.do("POST", "/api/v1/patients/search/", ``).want(t, http.StatusBadRequest, "malformed_json")
}
