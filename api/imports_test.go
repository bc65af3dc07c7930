package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

const importPath = "/api/v1/patients/import_selected_from_ecw/"

func (c caller) importPatients(ids []string, header ...string) answer {
	c.tb.Helper()
	body, err := json.Marshal(map[string]any{"ecw_patient_ids": ids})
	if err != nil {
		c.tb.Fatal(err)
	}
	return c.send("POST", importPath, bytes.NewReader(body), header...)
}

// people returns n patients of the EHR, whose names must not be logged.
func (c caller) people(n int) (people []sandbox.Person, ids []string) {
	for _, p := range sandbox.People() {
		if len(people) == n || len(p.LastName) < 4 || len(p.FirstName) < 4 { // a name of three letters stands in many words
			continue
		}
		c.secret(p.LastName, p.MRN, p.BirthDate, p.FHIRID)
		people, ids = append(people, p), append(ids, p.FHIRID)
	}
	return people, ids
}

// Step 8 of the tutorial, second half.
func TestImportOfTheTutorial(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	people, ids := s.people(3)
	got := s.importPatients(ids).want(t, http.StatusOK, "")
	patients := []any{}
	for i, p := range people {
		patients = append(patients, map[string]any{
			"vantrexia_id": got.text("patients", i, "vantrexia_id"), "ecw_fhir_id": p.FHIRID, "name": p.FirstName + " " + p.LastName, "mrn": p.MRN,
		})
	}

	s.wantDocumented(got, map[string]any{"imported": number("3"), "skipped": number("0"), "errors": []any{}, "patients": patients})
	for i, p := range people {
		stored := s.do("GET", "/api/v1/patients/"+got.text("patients", i, "vantrexia_id")+"/", "").want(t, http.StatusOK, "")
		if stored.text("date_of_birth") != p.BirthDate || stored.get("active") != true || stored.text("address", "city") != p.City ||
			stored.text("phone") == "" {
			t.Errorf("patient %d is stored as %s", i, stored.body)
		}
	}

	// The same import again: the patients are linked already, so they are skipped, and eCW's newest data is
	// stored.
	for i := range people {
		s.edit(got.text("patients", i, "vantrexia_id"), func(d *db.Demographics) { d.Phone, d.City = "old", "old" })
	}
	s.exec("UPDATE patients SET archived_at = now()")
	again := s.importPatients(ids).want(t, http.StatusOK, "")
	s.wantDocumented(again, map[string]any{"imported": number("0"), "skipped": number("3"), "errors": []any{}, "patients": patients})
	stored := s.do("GET", "/api/v1/patients/"+got.text("patients", 0, "vantrexia_id")+"/", "")
	if stored.text("address", "city") != people[0].City || stored.text("phone") == "old" {
		t.Errorf("the demographics were not refreshed: %s", stored.body)
	}
	if stored.get("active") != true {
		t.Error("a patient whom a person imported is archived")
	}

	// A reading of an imported patient reaches the chart.
	s.await(s.post(bloodPressure(got.text("patients", 0, "vantrexia_id"))), "transmitted")
}

func TestImportOfBadAndRepeatedIDs(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	_, ids := s.people(2)
	got := s.importPatients([]string{ids[1], "unknown-1", ids[0], ids[1], "unknown-2", "unknown-1"}).want(t, http.StatusOK, "")
	if got.get("imported") != number("2") || got.get("skipped") != number("0") || got.text("patients", 0, "ecw_fhir_id") != ids[1] ||
		got.text("patients", 1, "ecw_fhir_id") != ids[0] {
		t.Errorf("got %s", got.body)
	}

	errors, _ := got.get("errors").([]any)
	if len(errors) != 2 || got.text("errors", 0, "ecw_fhir_id") != "unknown-1" ||
		!strings.Contains(got.text("errors", 0, "reason"), "not found") || got.text("errors", 1, "ecw_fhir_id") != "unknown-2" {
		t.Errorf("the errors: %s", got.body)
	}

	tooMany := make([]string, 10_001)
	for i := range tooMany {
		tooMany[i] = fmt.Sprint(i)
	}

	before := s.rows("patient_imports")
	for name, list := range map[string][]string{"none": {}, "null": nil, "too many": tooMany, "a path": {ids[0], "../x"}, "empty": {""}, "too long": {strings.Repeat("x", 65)}, "NUL": {"a\x00"}} {
		t.Run(name, func(t *testing.T) {
			got := s.in(t).importPatients(list).want(t, http.StatusBadRequest, "invalid")
			if field := got.text("fields", 0, "field"); !strings.HasPrefix(field, "ecw_patient_ids") {
				t.Errorf("the field %q is named", field)
			}
		})
	}

	if s.rows("patient_imports") != before {
		t.Error("a refused import left something behind")
	}
}

// Two imports of the same patients at the same time create each patient once.
func TestImportsAtOnce(t *testing.T) {
	t.Parallel()
	const people, callers = 8, 4
	s := start(t, nothing)
	_, ids := s.people(people)
	answers := make([]answer, callers)
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() { answers[i] = s.importPatients(ids) })
	}

	group.Wait()
	imported := 0
	for _, a := range answers {
		a.want(t, http.StatusOK, "")
		if errors, _ := a.get("errors").([]any); len(errors) > 0 {
			t.Errorf("errors: %s", a.body)
		}
		for i := range people {
			if first := answers[0].text("patients", i, "vantrexia_id"); a.text("patients", i, "vantrexia_id") != first || first == "" {
				t.Errorf("patient %d is not the same to all: %s", i, a.body)
			}
		}
		n, _ := a.get("imported").(json.Number).Int64()
		imported += int(n)
	}

	if imported != people || s.rows("patients") != people {
		t.Errorf("%d imported and %d stored, want %d", imported, s.rows("patients"), people)
	}
}

// rewrite changes one of the EHR's Patient resources.
func rewrite(id string, change func(resource string) string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/Patient/"+id) {
				next.ServeHTTP(w, r)
				return
			}
			kept := httptest.NewRecorder()
			next.ServeHTTP(kept, r)
			w.Header().Set("Content-Type", kept.Header().Get("Content-Type"))
			w.WriteHeader(kept.Code)
			_, _ = io.WriteString(w, change(kept.Body.String()))
		})
	}
}

func TestImportOfPatientsThatAreNotComplete(t *testing.T) {
	t.Parallel()
	const id = kevin
	for name, test := range map[string]struct {
		change func(string) string
		reason string
	}{
		"no birth date": {func(r string) string { return strings.Replace(r, `"birthDate"`, `"born"`, 1) }, "birth date"},
		"no MRN":        {strings.NewReplacer(`"MR"`, `"XX"`, "Medical record number", "Something else").Replace, "MRN"},
		"none known to be the MRN": {strings.NewReplacer(`"MR"`, `"XX"`, "Medical record number", "Something else",
			`"identifier":[`, `"identifier":[{"system":"http://ehr.example/number","value":"7"},`).Replace, "ECW_MRN_SYSTEM"},
		"systems found": {strings.NewReplacer(`"MR"`, `"XX"`, "Medical record number", "Something else",
			`"identifier":[`, `"identifier":[{"system":"http://ehr.example/number","value":"7"},`).Replace, "http://ehr.example/number"},
		"no name":         {func(r string) string { return strings.Replace(r, `"name"`, `"names"`, 1) }, "name"},
		"another patient": {func(r string) string { return strings.Replace(r, id, susan, 1) }, "another patient"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, setup{watch: rewrite(id, test.change)})
			got := s.importPatients([]string{susan, id}).want(t, http.StatusOK, "")
			if got.get("imported") != number("1") || got.text("errors", 0, "ecw_fhir_id") != id ||
				!strings.Contains(got.text("errors", 0, "reason"), test.reason) {
				t.Errorf("got %s", got.body)
			}
			if n := s.rows("patients"); n != 1 {
				t.Errorf("%d patients are stored", n)
			}
		})
	}
}

func TestImportThatIsNotAwaited(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		how    setup
		header []string
	}{
		"the client prefers not to wait": {setup{}, []string{"Prefer", "respond-async, wait=10"}},
		"it takes too long":              {setup{importWait: 50 * time.Millisecond}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, test.how)
			s.fault(`{"kind":"slow","target":"read","delay":"400ms","count":2}`)
			_, ids := s.people(2)
			got := s.importPatients(append(ids, "unknown"), test.header...).want(t, http.StatusAccepted, "")
			want := []string{"created_at", "done", "finished_at", "id", "result", "status", "total"}
			if !slices.Equal(got.keys(), want) || got.text("status") != "running" || got.get("total") != number("3") ||
				got.get("result") != nil {
				t.Errorf("got %s", got.body)
			}

			location := got.header.Get("Location")
			if location != "/api/v1/patients/imports/"+got.text("id")+"/" {
				t.Fatalf("Location is %q", location)
			}

			done := -1
			eventually(t, "finished", func() bool {
				got = s.do("GET", location, "").want(t, http.StatusOK, "")
				n, _ := got.get("done").(json.Number).Int64()
				if int(n) < done {
					t.Errorf("done went from %d to %d", done, n)
				}
				done = int(n)
				return got.text("status") == "finished"
			})
			if done != 3 || got.get("finished_at") == nil || got.get("result", "imported") != number("2") ||
				got.text("result", "errors", 0, "ecw_fhir_id") != "unknown" {
				t.Errorf("got %s", got.body)
			}
		})
	}
}

func TestImportWhileTemporalIsDown(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	_, ids := s.people(1)
	s.importPatients(ids).want(t, http.StatusServiceUnavailable, "temporal_unavailable")
	if s.rows("patient_imports") != 0 || s.rows("patient_import_items") != 0 || s.rows("patients") != 0 {
		t.Error("something was stored")
	}
}

func TestImportWhileTheEHRIsInTrouble(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fault    string
		people   int
		imported string
		reason   string
	}{
		{`{"kind":"error_503","target":"read"}`, 2, "2", ""},
		{`{"kind":"reset_before","target":"read"}`, 2, "2", ""},
		{`{"kind":"throttle","target":"read","retry_after":"1s"}`, 1, "1", ""}, // a second one would wait for the next minute
		{`{"kind":"unauthorized","target":"read"}`, 2, "2", ""},
		{`{"kind":"forbidden","target":"read"}`, 2, "1", "forbids"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			s := start(t, nothing)
			_, ids := s.people(test.people)
			s.fault(test.fault)
			got := s.importPatients(ids).want(t, http.StatusOK, "")
			if got.get("imported") != number(test.imported) || !strings.Contains(got.text("errors", 0, "reason"), test.reason) {
				t.Errorf("got %s", got.body)
			}
		})
	}
}
