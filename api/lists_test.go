package api_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// ids are those of a page's rows.
func (a answer) ids() (ids []string) {
	results, _ := a.get("results").([]any)
	for i := range results {
		ids = append(ids, a.text("results", i, "id"))
	}
	return ids
}

// walk follows next or previous from a page to the end, and returns the pages.
func (s *system) walk(from answer, link string) (pages []answer) {
	s.tb.Helper()
	for pages = append(pages, from); from.get(link) != nil; pages = append(pages, from) {
		from = s.do("GET", from.text(link), "").want(s.tb, http.StatusOK, "")
	}
	return pages
}

// The links lead through the whole log and back, in every order, with every filter, and past rows of the same
// time.
func TestTheLogIsWalkedForthAndBack(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	jane, john := s.patient(kevin), s.patient(susan)
	for i := range 23 {
		patient, kind := jane, "weight"
		if i%3 == 0 {
			patient, kind = john, "temperature"
		}

		row := logged{
			patient: patient,
			kind:    kind,
			created: fmt.Sprintf("2026-02-06T05:%02d:00Z", i/4),
			status:  "pending",
		}

		switch i % 4 {
		case 1:
			row.status, row.class, row.attempted = "failed", "permanent_data", fmt.Sprintf("2026-02-06T06:%02d:00Z", i/8)
		case 2:
			row.status, row.class, row.attempted = "failed", "unknown", fmt.Sprintf("2026-02-06T06:%02d:00Z", i/8)
			row.retryAt = fmt.Sprintf("2026-02-06T07:%02d:00.123456Z", i/8)
		}

		s.logged(row)
	}

	orderings := []string{"created_at", "-created_at", "last_attempted_at", "-last_attempted_at", "next_retry_at", "-next_retry_at"}
	for _, filter := range []string{
		"", "&status=failed", "&observation_type=weight", "&patient_id=" + john, "&date_from=2026-02-06T05:02:00Z&former_chart=false",
	} {
		for _, ordering := range orderings {
			t.Run(ordering+filter, func(t *testing.T) {
				const path = "/api/v1/fhir/transmissions/?"
				whole := s.in(t).do("GET", path+"page_size=100&ordering="+ordering+filter, "").want(t, http.StatusOK, "")
				first := s.in(t).do("GET", path+"page_size=4&ordering="+ordering+filter, "").want(t, http.StatusOK, "")
				forth := s.walk(first, "next")
				var walked []string
				for i, page := range forth {
					walked = append(walked, page.ids()...)
					numbered := s.in(t).do("GET", fmt.Sprintf("%spage_size=4&page=%d&ordering=%s%s", path, i+1, ordering, filter), "").
						want(t, http.StatusOK, "")
					if !slices.Equal(numbered.ids(), page.ids()) || (numbered.get("next") == nil) != (page.get("next") == nil) ||
						(numbered.get("previous") == nil) != (page.get("previous") == nil) {
						t.Errorf("page %d is %s\nthe links led to %s", i+1, numbered.body, page.body)
					}
				}

				if !slices.Equal(walked, whole.ids()) {
					t.Errorf("walked %v\nthe list is %v", walked, whole.ids())
				}

				back := s.walk(forth[len(forth)-1], "previous")
				slices.Reverse(back)
				for i, page := range back {
					if !slices.Equal(page.ids(), forth[i].ids()) {
						t.Errorf("on the way back page %d holds %v, want %v", i+1, page.ids(), forth[i].ids())
					}
				}
			})
		}
	}
}

// The other lists are walked in the same way, past patients of one name and deliveries of one moment.
func TestPatientsAndPushesAreWalkedForthAndBack(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	jane := s.patient(kevin)
	for range 6 {
		s.do("POST", "/api/v1/patients/", `{"first_name":"Ann","last_name":"Doe","date_of_birth":"1957-03-21"}`).want(t, http.StatusCreated, "")
	}
	for range 3 {
		id := s.logged(logged{
			patient: jane,
			kind:    "weight",
			created: "2026-02-06T05:00:00Z",
			status:  "pending",
		})[0]
		s.exec(`INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at)
			SELECT id, n, n, '2026-02-06T05:00:00Z' FROM transmissions, generate_series(1, 3) n WHERE number = $1`, id)
	}

	for list, total := range map[string]int{"/api/v1/patients/": 7, "/api/v1/patients/" + jane + "/sync-status/": 9} {
		forth := s.walk(s.do("GET", list+"?page_size=2", "").want(t, http.StatusOK, ""), "next")
		back := s.walk(forth[len(forth)-1], "previous")
		slices.Reverse(back)
		seen := map[string]bool{}
		for i, page := range forth {
			if string(page.part("results").body) != string(back[i].part("results").body) {
				t.Errorf("%s: page %d is %s\non the way back %s", list, i+1, page.body, back[i].body)
			}
			results, _ := page.get("results").([]any)
			for _, row := range results {
				seen[fmt.Sprint(row)] = true
			}
		}

		if len(seen) != total {
			t.Errorf("%s: %d rows were met, want %d", list, len(seen), total)
		}
	}
}

// Rows that come in while somebody walks the log shift no page.
func TestNewTransmissionsShiftNoPage(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	jane := s.patient(kevin)
	row := logged{
		patient: jane,
		kind:    "weight",
		created: "2026-02-06T05:00:00Z",
		status:  "pending",
	}

	ids := s.logged(row, row, row, row)
	first := s.do("GET", "/api/v1/fhir/transmissions/?page_size=2", "").want(t, http.StatusOK, "")
	row.created = "2026-02-06T06:00:00Z"
	newest := s.logged(row)
	second := s.do("GET", first.text("next"), "").want(t, http.StatusOK, "")
	if want := []string{ids[1], ids[0]}; !slices.Equal(second.ids(), want) || second.get("count") != number("5") {
		t.Errorf("the second page: %s, want %v", second.body, want)
	}

	again := s.do("GET", second.text("previous"), "").want(t, http.StatusOK, "")
	if want := []string{ids[3], ids[2]}; !slices.Equal(again.ids(), want) {
		t.Errorf("the page before: %s, want %v", again.body, want)
	}

	if before := s.do("GET", again.text("previous"), "").want(t, http.StatusOK, ""); !slices.Equal(before.ids(), newest) {
		t.Errorf("before the former first page: %s, want %v", before.body, newest)
	}
}

// A cursor is accepted only unchanged, and only by the list and the order that it came from.
func TestBrokenCursors(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	row := logged{
		patient: s.patient(kevin),
		kind:    "weight",
		created: "2026-02-06T05:00:00Z",
		status:  "pending",
	}

	s.patient(susan)
	s.logged(row, row)
	good := func(path string) string {
		link, err := url.Parse(s.do("GET", path, "").want(t, http.StatusOK, "").text("next"))
		if err != nil {
			t.Fatal(err)
		}
		return link.Query().Get("cursor")
	}

	const logPath = "/api/v1/fhir/transmissions/?page_size=1"
	log, patients := good(logPath), good("/api/v1/patients/?page_size=1")
	plain, err := base64.RawURLEncoding.DecodeString(log)
	if err != nil {
		t.Fatal(err)
	}

	if named, _ := base64.RawURLEncoding.DecodeString(patients); strings.Contains(string(named), "Doe") {
		t.Errorf("the cursor %s has a patient's name, and stands in URLs", named)
	}

	forged := func(from, to string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(plain), from, to, 1)))
	}
	for name, query := range map[string]string{
		"no base64":         "&cursor=%21",
		"no JSON":           "&cursor=" + base64.RawURLEncoding.EncodeToString([]byte("x")),
		"cut":               "&cursor=" + log[:len(log)-2],
		"longer":            "&cursor=" + log + "AA",
		"padded":            "&cursor=" + log + "=",
		"of another list":   "&cursor=" + patients,
		"of another order":  "&ordering=created_at&cursor=" + log,
		"without a row":     "&cursor=" + base64.RawURLEncoding.EncodeToString([]byte(`{"list":"transmissions -created_at","row":null}`)),
		"without an id":     "&cursor=" + forged(`"id"`, `"ID"`),
		"with more":         "&cursor=" + forged(`"row"`, `"x":1,"row"`),
		"with no time":      "&cursor=" + forged("2026-02-06T", "06.02.2026 "),
		"with a statement":  "&cursor=" + forged("2026-02-06T05:00:00Z", "'); DELETE FROM transmissions"),
		"together with one": "&page=1&cursor=" + log,
	} {
		t.Run(name, func(t *testing.T) {
			got := s.in(t).do("GET", logPath+query, "").want(t, http.StatusBadRequest, "invalid")
			if !slices.Equal(got.fields(), []string{"cursor"}) {
				t.Errorf("the fields named are %q: %s", got.fields(), got.body)
			}
		})
	}

	// What the order does not know is no more than the start of the list.
	s.do("GET", logPath+"&cursor="+forged(`,"id"`, `,"lacks":true,"id"`), "").want(t, http.StatusOK, "")
	if s.do("GET", logPath+"&status=pending&cursor="+log, "").want(t, http.StatusOK, "").get("next") != nil {
		t.Error("the last page has a next one")
	}
}

// A list of more than 10,000 transmissions says that there are more. After those, only the links lead on.
func TestALongLogIsNotCountedToItsEnd(t *testing.T) {
	t.Parallel()
	s := startWith(t, setup{missing: temporal})
	jane := s.patient(kevin)
	s.exec(`
		INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, plain_resource, resource_version,
		                          transformed_at)
		SELECT lpad(to_hex(n), 32, '0')::uuid, $1, $2, 'weight', now() - n * interval '1 minute', 'SCALE-7', '{"value": 1}', '{}', 1, now()
		FROM generate_series(1, 10001) n`, practice, jane)

	s.exec(`INSERT INTO transmissions (id, practice_code, observation_id, max_attempts, created_at)
		SELECT id, practice_code, id, 6, effective_at FROM observations`)

	const path = "/api/v1/fhir/transmissions/"
	for query, want := range map[string]struct {
		exact bool
		rows  int
	}{
		"?page=100&page_size=100": {false, 100},
		"?page=500":               {false, 20},
		"?page=10000&page_size=1&ordering=next_retry_at": {false, 1},
		"?status=failed": {true, 0},
	} {
		got := s.do("GET", path+query, "").want(t, http.StatusOK, "")
		count, rows := got.get("count"), len(got.ids())
		if got.get("count_is_exact") != want.exact || rows != want.rows || !want.exact && count != number("10000") {
			t.Errorf("%s: %v, exact %v, with %d rows, want %+v", query, count, got.get("count_is_exact"), rows, want)
		}
	}

	for _, query := range []string{"?page=101&page_size=100", "?page=501", "?page=1000000"} {
		for _, list := range []string{path, "/api/v1/patients/", "/api/v1/patients/" + jane + "/sync-status/"} {
			if got := s.do("GET", list+query, "").want(t, http.StatusBadRequest, "page_too_deep"); !strings.Contains(got.text("detail"), "next") {
				t.Errorf("%s%s does not name the way on: %s", list, query, got.body)
			}
		}
	}

	last := s.do("GET", path+"?page=100&page_size=100", "").want(t, http.StatusOK, "")
	if beyond := s.walk(last, "next"); len(beyond) != 2 || len(beyond[1].ids()) != 1 {
		t.Errorf("after row 10,000 come %d pages, want 1 with one row", len(beyond)-1)
	}

	s.exec("DELETE FROM transmissions WHERE number = $1", last.ids()[0])
	fewer := s.do("GET", path, "").want(t, http.StatusOK, "")
	if fewer.get("count") != number("10000") || fewer.get("count_is_exact") != true {
		t.Errorf("of 10,000: %v, exact %v", fewer.get("count"), fewer.get("count_is_exact"))
	}
}
