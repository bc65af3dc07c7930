package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
)

// fullPatient has every field. The EHR shows somebody else under the id, and the mismatch is confirmed.
const fullPatient = `{"first_name":" José ","last_name":"Ñandú-O'Neil","date_of_birth":"1957-03-21","gender":"male","mrn":"MRN-7",` +
	`"external_id":"` + susan + `","confirm_mismatch":true,"phone":"+1 555 0142","email":"jose@example.com",` +
	`"address":{"line1":"1 Main St","line2":"Apt 4","city":"Tulsa","state":"OK","zip":"74063"},"active":true}`

func TestCreateAndGetPatient(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.secret("José", "Ñandú", "jose@example.com", "jösé@exämple.com", "MRN-7", "1957-03-21", "Tulsa", "Main St")
	created := s.do("POST", "/api/v1/patients/", fullPatient).want(t, http.StatusCreated, "")
	id := created.text("id")
	if location := created.header.Get("Location"); uuid.Validate(id) != nil || location != "/api/v1/patients/"+id+"/" {
		t.Errorf("id %q, Location %q", id, location)
	}

	got := s.do("GET", "/api/v1/patients/"+id+"/", "").want(t, http.StatusOK, "")
	want := []string{
		"active", "address", "archived_at", "created_at", "date_of_birth", "email", "external_id", "first_name", "gender",
		"held_readings", "id", "last_name", "mismatch_since", "mrn", "phone", "updated_at",
	}
	if !slices.Equal(got.keys(), want) || string(got.body) != string(created.body) {
		t.Errorf("got %s, was created as %s", got.body, created.body)
	}
	if got.text("first_name") != "José" || got.text("last_name") != "Ñandú-O'Neil" || got.text("address", "zip") != "74063" ||
		got.text("address", "line2") != "Apt 4" || got.text("gender") != "male" || got.text("email") != "jose@example.com" {
		t.Errorf("got %s", got.body)
	}

	least := s.do("POST", "/api/v1/patients/", `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","mrn":"MRN-8"}`).want(t, http.StatusCreated, "")
	if least.get("active") != true || least.get("external_id") != nil || least.get("gender") != nil || least.text("phone") != "" ||
		least.text("email") != "" {
		t.Errorf("the defaults: %s", least.body)
	}

	// Patients that are not linked do not share an identity.
	s.do("POST", "/api/v1/patients/", `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","mrn":"MRN-9","external_id":null}`).want(t, http.StatusCreated, "")
}

func TestPatchPatient(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.secret("José", "Ñandú", "jose@example.com", "jösé@exämple.com", "MRN-7", "1957-03-21", "Tulsa", "Main St")
	created := s.do("POST", "/api/v1/patients/", fullPatient).want(t, http.StatusCreated, "")
	path := "/api/v1/patients/" + created.text("id") + "/"
	for _, step := range []struct {
		name, patch string
		want        map[string]any // what changes; everything else stays
	}{
		{"nothing", `{}`, nil},
		{"one field", `{"phone":"555"}`, map[string]any{"phone": "555"}},
		{"a field of the address", `{"address":{"city":"Bixby"}}`, map[string]any{"city": "Bixby"}},
		{"a text is emptied", `{"phone":""}`, map[string]any{"phone": ""}},
		{"the link is cut", `{"external_id":null}`, map[string]any{"external_id": nil}},
		{"the link is made", `{"external_id":"` + kevin + `","confirm_mismatch":true}`, map[string]any{"external_id": kevin}},
		{"the link is cut with an empty text", `{"external_id":""}`, map[string]any{"external_id": nil}},
		{"the e-mail", `{"email":" jösé@exämple.com "}`, map[string]any{"email": "jösé@exämple.com"}},
		{"the gender", `{"gender":"other"}`, map[string]any{"gender": "other"}},
		{"the gender is not known", `{"gender":null}`, map[string]any{"gender": nil}},
		{"the gender is not known, with an empty text", `{"gender":""}`, map[string]any{"gender": nil}},
		{"its own identity", `{"mrn":"MRN-7"}`, nil},
	} {
		t.Run(step.name, func(t *testing.T) {
			before := flat(s.do("GET", path, ""))
			for name, value := range step.want {
				before[name] = value
			}

			patched := s.in(t).do("PATCH", path, step.patch).want(t, http.StatusOK, "")
			after := flat(s.do("GET", path, ""))
			for name := range after {
				if name != "updated_at" && after[name] != before[name] {
					t.Errorf("%s is %v, want %v", name, after[name], before[name])
				}
			}

			if patched.text("updated_at") != after["updated_at"] {
				t.Error("the answer is not what is stored")
			}
		})
	}

	if got := s.do("GET", path, ""); !at(t, got, "updated_at").After(at(t, created, "updated_at")) ||
		got.text("created_at") != created.text("created_at") {
		t.Errorf("the times: %s", got.body)
	}

}

// flat is a patient with the parts of the address beside the other fields.
func flat(a answer) map[string]any {
	fields := map[string]any{}
	for _, name := range a.keys() {
		fields[name] = a.get(name)
	}
	for _, name := range []string{"line1", "line2", "city", "state", "zip"} {
		fields[name] = a.get("address", name)
	}
	delete(fields, "address")
	return fields
}

func at(t *testing.T, a answer, field string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, a.text(field))
	if err != nil {
		t.Error(err)
	}
	return moment
}

func TestTwoPatientsWithOneIdentity(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	create := func(mrn, ecwID string) (id string) {
		const person = `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","confirm_mismatch":true,"mrn":%q,"external_id":%q}`
		body := fmt.Sprintf(person, mrn, ecwID)
		return s.do("POST", "/api/v1/patients/", body).want(t, http.StatusCreated, "").text("id")
	}

	one, two := create("MRN-1", kevin), create("MRN-2", susan)
	const person = `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21",`
	for _, test := range []struct {
		name, method, path, body string
		holder, field            string
	}{
		{"create, MRN", "POST", "", person + `"mrn":"MRN-1"}`, one, "mrn"},
		{"create, MRN with space", "POST", "", person + `"mrn":" MRN-1 "}`, one, "mrn"},
		{"create, eCW id", "POST", "", person + `"mrn":"MRN-3","external_id":"` + susan + `"}`, two, "external_id"},
		{"create, both of one", "POST", "", person + `"mrn":"MRN-2","external_id":"` + susan + `"}`, two, "mrn"},
		{"create, one of each", "POST", "", person + `"mrn":"MRN-1","external_id":"` + susan + `"}`, one, "mrn"},
		{"change, MRN", "PATCH", one + "/", `{"mrn":"MRN-2"}`, two, "mrn"},
		{"change, eCW id", "PATCH", one + "/", `{"external_id":"` + susan + `"}`, two, "external_id"},
		{"change, both", "PATCH", two + "/", `{"mrn":"MRN-1","external_id":"` + kevin + `"}`, one, "mrn"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := s.in(t).do(test.method, "/api/v1/patients/"+test.path, test.body).want(t, http.StatusConflict, "patient_exists")
			if detail := got.text("detail"); !strings.Contains(detail, test.holder) || !strings.Contains(detail, test.field) {
				t.Errorf("%q does not name patient %s and %s", detail, test.holder, test.field)
			}
		})
	}

	if n := s.rows("patients"); n != 2 {
		t.Errorf("%d patients are stored", n)
	}
}

// Of two requests that store an MRN at the same time, the second is refused with the id of the patient who
// has it.
func TestAnMRNIsTakenMeanwhile(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	other := s.patient("")
	for _, request := range [][4]string{
		{"POST", "/api/v1/patients/", `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","mrn":"MRN-1"}`, "MRN-1"},
		{"PATCH", "/api/v1/patients/" + other + "/", `{"mrn":"MRN-2"}`, "MRN-2"},
	} {
		t.Run(request[0], func(t *testing.T) {
			caller := s.in(t)
			var first db.Patient
			got := make(chan answer, 1)
			err := s.store.InTx(t.Context(), func(q *db.Queries) (err error) {
				first, err = q.CreatePatient(t.Context(), db.CreatePatientParams{
					PracticeCode: practice,
					Demographics: db.Demographics{FirstName: "A", LastName: "B", MRN: request[3]},
					Active:       true,
				})
				go func() { got <- caller.do(request[0], request[1], request[2]) }()
				eventually(t, "waiting for the other", func() bool { return s.somebodyWaits() })
				return err
			})
			if err != nil {
				t.Fatal(err)
			}

			second := (<-got).want(t, http.StatusConflict, "patient_exists")
			if detail := second.text("detail"); !strings.Contains(detail, first.ID.String()) || !strings.Contains(detail, "mrn") {
				t.Errorf("%q does not name patient %s and the mrn", detail, first.ID)
			}
		})
	}
}

// somebodyWaits reports whether a session of the database waits for a lock of another.
func (s *system) somebodyWaits() (waits bool) {
	s.tb.Helper()
	const ask = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
	if err := s.conn.QueryRow(s.tb.Context(), ask).Scan(&waits); err != nil {
		s.tb.Fatal(err)
	}
	return waits
}

// blocks reports whether another session waits for a lock that the transaction holds.
func blocks(tb testing.TB, tx pgx.Tx) (waits bool) {
	tb.Helper()
	const ask = "SELECT EXISTS (SELECT FROM pg_locks WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
	if err := tx.QueryRow(tb.Context(), ask).Scan(&waits); err != nil {
		tb.Fatal(err)
	}
	return waits
}

func TestListPatients(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	const total = 5
	for i := range total {
		body := fmt.Sprintf(`{"first_name":"A","last_name":"L%d","date_of_birth":"1957-03-21","mrn":"MRN %d&+"}`, i, i)
		id := s.do("POST", "/api/v1/patients/", body).want(t, http.StatusCreated, "").text("id")
		s.link(id, fmt.Sprintf("ecw-%d", i))
	}

	for _, slash := range []string{"", "/"} { // the links lead through all pages and back
		var walked []string
		page := s.do("GET", "/api/v1/patients"+slash+"?page_size=2", "").want(t, http.StatusOK, "")
		if want := []string{"count", "count_is_exact", "next", "previous", "results"}; !slices.Equal(page.keys(), want) ||
			page.get("previous") != nil {
			t.Errorf("the first page: %s", page.body)
		}

		var back []string
		for {
			if page.get("count") != number("5") {
				t.Errorf("count is %v", page.get("count"))
			}
			walked = append(walked, lastNames(page)...)
			if page.text("previous") != "" {
				back = append(back, page.text("previous"))
			}
			if page.get("next") == nil {
				break
			}
			page = s.follow(page.text("next"))
		}

		if want := []string{"L0", "L1", "L2", "L3", "L4"}; !slices.Equal(walked, want) {
			t.Errorf("the pages hold %v", walked)
		}

		if len(back) != 2 || !slices.Equal(lastNames(s.follow(back[1])), []string{"L2", "L3"}) {
			t.Errorf("the links back are %v", back)
		}
	}

	for query, want := range map[string][]string{
		"mrn=" + url.QueryEscape("MRN 3&+"):                   {"L3"},
		"mrn=" + url.QueryEscape("mrn 3&+"):                   {},
		"external_id=ecw-4":                                   {"L4"},
		"external_id=ecw-4&mrn=" + url.QueryEscape("MRN 3&+"): {},
		"mrn=%27%20OR%201%3D1--":                              {},
		"page=9":                                              {},
		"page=2&page_size=4":                                  {"L4"},
		"page_size=100":                                       {"L0", "L1", "L2", "L3", "L4"},
		"page=100&page_size=100":                              {},
		"cursor=":                                             {"L0", "L1", "L2", "L3", "L4"},
		"mrn=":                                                {"L0", "L1", "L2", "L3", "L4"},
		"page=1&page_size=1&mrn=" + url.QueryEscape("MRN 0&+"): {"L0"},
	} {
		t.Run(query, func(t *testing.T) {
			got := s.in(t).do("GET", "/api/v1/patients/?"+query, "").want(t, http.StatusOK, "")
			if list, ok := got.get("results").([]any); !ok || len(list) != len(want) || !slices.Equal(lastNames(got), want) &&
				len(want) > 0 {
				t.Errorf("got %s", got.body)
			}
		})
	}
}

func lastNames(page answer) (names []string) {
	results, _ := page.get("results").([]any)
	for i := range results {
		names = append(names, page.text("results", i, "last_name"))
	}
	return names
}

// follow opens a link as it stands, which must lead back to this server.
func (c caller) follow(link string) answer {
	c.tb.Helper()
	if !strings.HasPrefix(link, "/api/v1/patients/?") {
		c.tb.Fatalf("the link %q leads elsewhere", link)
	}
	return c.do("GET", link, "").want(c.tb, http.StatusOK, "")
}

// A null takes a text away, and is no text of its own.
func TestNullTakesATextAway(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	made := s.do("POST", "/api/v1/patients/", `{"first_name":"A","last_name":"B","date_of_birth":"1957-03-21","mrn":null,"phone":"1","email":"a@example.com",
		"address":{"line1":"1 Main St","line2":null,"city":"Tulsa"}}`).want(t, http.StatusCreated, "")
	path := "/api/v1/patients/" + made.text("id") + "/"
	if !strings.HasPrefix(made.text("mrn"), "VTX-") || made.text("address", "line2") != "" {
		t.Errorf("made as %s", made.body)
	}

	part := s.do("PATCH", path, `{"phone":null,"address":{"city":null},"mrn":null}`).want(t, http.StatusOK, "")
	if part.text("phone") != "" || part.text("email") != "a@example.com" || part.text("address", "city") != "" ||
		part.text("address", "line1") != "1 Main St" || part.text("mrn") != made.text("mrn") {
		t.Errorf("changed to %s", part.body)
	}
	if whole := s.do("PATCH", path, `{"address":null,"email":null}`).want(t, http.StatusOK, ""); whole.text("address", "line1") != "" || whole.text("email") != "" {
		t.Errorf("changed to %s", whole.body)
	}
}

// The ciphertexts of two patients were exchanged: neither is shown as the other, and the answer says what to do.
func TestAnExchangedPatientIsNotShown(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	first, _ := s.patient(""), s.patient("")
	s.mayFail = true
	s.exec("UPDATE patients a SET demographics = b.demographics FROM patients b WHERE a.id <> b.id")
	for _, path := range []string{"/api/v1/patients/" + first + "/", "/api/v1/patients/", "/api/v1/patients/?search=jane"} {
		got := s.do("GET", path, "").want(t, http.StatusInternalServerError, "internal")
		if !strings.Contains(got.text("detail"), "cannot be decrypted") {
			t.Errorf("%s: %s", path, got.body)
		}
	}
}
