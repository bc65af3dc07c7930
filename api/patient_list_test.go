package api_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/vantrexia/vantrexia/db"
)

// namesOf are the first and last names of a list's patients.
func namesOf(page answer) (names []string) {
	results, _ := page.get("results").([]any)
	for i := range results {
		names = append(names, page.text("results", i, "first_name")+" "+page.text("results", i, "last_name"))
	}
	return names
}

func TestSearchAndOrderOfPatients(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	ids := map[string]string{}
	for _, p := range [][3]string{
		{"John", "Smith", "A-1"},
		{"Ann", "O'Neil", "A-2"},
		{"Smilla", "Berg", "B%1"},
		{"Joan", "smith", "B_2"},
		{"Zoe", "Ñandú", "Smi-7"},
		{"Ann", "Zed", `C\3`},
	} {
		body := fmt.Sprintf(`{"first_name":%q,"last_name":%q,"date_of_birth":"1957-03-21","mrn":%q}`, p[0], p[1], p[2])
		ids[p[0]] = s.do("POST", "/api/v1/patients/", body).want(t, http.StatusCreated, "").text("id")
	}
	s.do("POST", "/api/v1/patients/"+ids["Joan"]+"/archive/", "").want(t, http.StatusOK, "")

	for _, test := range []struct {
		query string
		want  []string // in the order of their creation, unless the query says otherwise
	}{
		{"search=smi", []string{"John Smith", "Smilla Berg", "Joan smith", "Zoe Ñandú"}},
		{"search=SMITH", []string{"John Smith", "Joan smith"}},
		{"search=+smith+", []string{"John Smith", "Joan smith"}},
		{"search=smith&active=true", []string{"John Smith"}},
		{"search=smith&active=false", []string{"Joan smith"}},
		{"search=smith&mrn=A-1", []string{"John Smith"}},
		{"search=smith&mismatch=true", nil},
		{"search=mith", nil},
		{"search=o%27n", []string{"Ann O'Neil"}},
		{"search=b", []string{"Smilla Berg", "Joan smith"}},
		{"search=b%25", []string{"Smilla Berg"}},
		{"search=%25", nil},
		{"search=_", nil},
		{"search=b_", []string{"Joan smith"}},
		{"search=c%5C", []string{"Ann Zed"}},
		{"search=" + url.QueryEscape("Ñan"), []string{"Zoe Ñandú"}},
		{"search=%F4%8F%BF%BF", nil},
		{"search=" + url.QueryEscape("') OR true --"), nil},
		{"search=", []string{"John Smith", "Ann O'Neil", "Smilla Berg", "Joan smith", "Zoe Ñandú", "Ann Zed"}},
		{"active=", []string{"John Smith", "Ann O'Neil", "Smilla Berg", "Joan smith", "Zoe Ñandú", "Ann Zed"}},
		{"active=true&mrn=B_2", nil},
		{"active=false", []string{"Joan smith"}},
	} {
		t.Run(test.query, func(t *testing.T) {
			got := s.in(t).do("GET", "/api/v1/patients/?ordering=created_at&"+test.query, "").want(t, http.StatusOK, "")
			if !slices.Equal(namesOf(got), test.want) || got.get("count") != number(fmt.Sprint(len(test.want))) {
				t.Errorf("got %v, want %v, counted %v", namesOf(got), test.want, got.get("count"))
			}
		})
	}
}

// Each order is walked forwards and backwards, with and without a filter, in pages of two.
func TestOrdersOfPatients(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	ids := map[string]string{}
	for _, name := range []string{"Dee", "Abe", "Cyd", "Bea", "Eve", "Abe"} {
		body := `{"first_name":"A` + name + `","last_name":"` + name + `","date_of_birth":"1957-03-21"}`
		ids[name] = s.do("POST", "/api/v1/patients/", body).want(t, http.StatusCreated, "").text("id")
	}
	s.exec("UPDATE patients SET created_at = now() WHERE id IN ($1, $2)", ids["Cyd"], ids["Bea"]) // two of the same moment

	for _, ordering := range []string{"last_name", "-last_name", "created_at", "-created_at"} {
		for _, filter := range []string{"", "&active=true", "&search=a"} {
			t.Run(ordering+filter, func(t *testing.T) {
				s := s.in(t)
				whole := s.do("GET", "/api/v1/patients/?page_size=100&ordering="+ordering+filter, "").want(t, http.StatusOK, "")
				want := idsOf(whole)
				if len(want) != 6 {
					t.Fatalf("%d patients are listed", len(want))
				}
				names := lastNames(whole)
				switch ordering {
				case "last_name":
					want := []string{"Abe", "Abe", "Bea", "Cyd", "Dee", "Eve"}
					if !slices.Equal(names, want) {
						t.Errorf("got %v", names)
					}
				case "-last_name":
					want := []string{"Eve", "Dee", "Cyd", "Bea", "Abe", "Abe"}
					if !slices.Equal(names, want) {
						t.Errorf("got %v", names)
					}
				case "created_at":
					if names[0] != "Dee" || names[1] != "Abe" || names[2] != "Eve" {
						t.Errorf("got %v", names)
					}
				}

				page := s.do("GET", "/api/v1/patients/?page_size=2&ordering="+ordering+filter, "").want(t, http.StatusOK, "")
				walked := idsOf(page)
				for page.get("next") != nil {
					page = s.follow(page.text("next"))
					walked = append(walked, idsOf(page)...)
				}
				if !slices.Equal(walked, want) {
					t.Errorf("forwards %v, want %v", walked, want)
				}
				back := idsOf(page)
				for page.get("previous") != nil {
					page = s.follow(page.text("previous"))
					back = append(idsOf(page), back...)
				}
				if !slices.Equal(back, want) {
					t.Errorf("backwards %v, want %v", back, want)
				}
			})
		}
	}

	// A cursor is of one order.
	next := s.do("GET", "/api/v1/patients/?page_size=2", "").want(t, http.StatusOK, "").text("next")
	s.do("GET", next+"&ordering=created_at", "").want(t, http.StatusBadRequest, "invalid")
}

func idsOf(page answer) (ids []string) {
	results, _ := page.get("results").([]any)
	for i := range results {
		ids = append(ids, page.text("results", i, "id"))
	}
	return ids
}

// A search finds however many there are, and its pages lead through all of them.
func TestASearchThatFindsMany(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	const many = 1_100
	err := s.store.InTx(t.Context(), func(q *db.Queries) error {
		for n := range many {
			_, err := q.CreatePatient(t.Context(), db.CreatePatientParams{
				PracticeCode: practice,
				Demographics: db.Demographics{FirstName: "Jane", LastName: "Doe", MRN: fmt.Sprintf("MRN-%d", n)},
				Active:       true,
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	seen := map[string]bool{}
	for _, page := range s.walk(s.do("GET", "/api/v1/patients/?search=do&page_size=100", "").want(t, http.StatusOK, ""), "next") {
		if page.get("count") != number(fmt.Sprint(many)) || page.get("count_is_exact") != true {
			t.Fatalf("the count is %v", page.get("count"))
		}
		for _, id := range page.ids() {
			seen[id] = true
		}
	}
	if len(seen) != many {
		t.Errorf("the pages show %d patients, want %d", len(seen), many)
	}
}

// A list shows at once what another process has written, with names in the order that people expect.
func TestTheOrderOfNames(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	var first string
	for _, name := range []string{"Zimmer", "ödegaard", "Álvarez", "alvarez", "Odegaard", "de la Cruz", "Zimmer"} {
		body := fmt.Sprintf(`{"first_name":"A","last_name":%q,"date_of_birth":"1957-03-21"}`, name)
		id := s.do("POST", "/api/v1/patients/", body).want(t, http.StatusCreated, "").text("id")
		first = cmp.Or(first, id)
	}
	list := func() []string { return lastNames(s.do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "")) }
	if got, want := list(), []string{"alvarez", "Álvarez", "de la Cruz", "Odegaard", "ödegaard", "Zimmer", "Zimmer"}; !slices.Equal(got, want) {
		t.Errorf("the order is %q, want %q", got, want)
	}

	s.edit(first, func(d *db.Demographics) { d.LastName = "Aalto" })
	if got := list(); got[0] != "Aalto" || len(got) != 7 {
		t.Errorf("after a change the order is %q", got)
	}
}
