package sandbox_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestPersonalText: with the fault every kind of answer has the text, and a client that reads codes, ids and
// values understands it as before.
func TestPersonalText(t *testing.T) {
	t.Parallel()
	r := start(t)
	const says = "Jane Doe 1957"
	r.fault(`{"kind": "personal_text", "text": "` + says + `", "for": "1h"}`)
	token := r.token(allScopes)
	if !strings.HasSuffix(token, "JaneDoe1957") {
		t.Errorf("the token is %s", token)
	}

	created := r.create(token, weight("v"))
	if created.status != http.StatusCreated || created.str("id") == "" || !strings.Contains(created.str("code", "text"), says) {
		t.Errorf("a create: %d %s", created.status, created.text)
	}
	if at := created.header.Get("Location"); !strings.Contains(at, "/Observation/"+created.str("id")+"/_history/1?patient=Jane") {
		t.Errorf("Location is %s", at)
	}
	if got := created.num("valueQuantity", "value"); got == 0 {
		t.Errorf("the value is gone: %s", created.text)
	}

	missing := r.fhirGet(token, "/Patient/nobody")
	for _, at := range [][]any{{"diagnostics"}, {"details", "text"}, {"details", "coding", 0, "code"}, {"expression", 0}, {"location", 0}} {
		if got := missing.str(append([]any{"issue", 0}, at...)...); got != says {
			t.Errorf("%v is %q in %s", at, got, missing.text)
		}
	}
	if missing.str("issue", 0, "code") != "not-found" || missing.header.Get("Warning") == "" {
		t.Errorf("got %v %s", missing.header, missing.text)
	}

	r.fault(`{"kind": "error_502"}`)
	if page := r.fhirGet(token, "/Patient"); page.status != 502 || !strings.Contains(page.text, "<p>"+says) {
		t.Errorf("a page: %d %s", page.status, page.text)
	}
	if refused := r.do("POST", "/oauth/oauth2/token", "grant_type=other"); refused.str("error_description") != says {
		t.Errorf("a token: %s", refused.text)
	}
	if a := r.do("POST", "/admin/faults", `{"kind": "personal_text"}`); a.status != 400 || a.str("field") != "text" {
		t.Errorf("without text: %d %s", a.status, a.text)
	}
}

// TestPutPatient: a patient is added, changed, and forgotten by the reset.
func TestPutPatient(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	for _, name := range []string{"Doe", "Roe"} {
		body := `{"fhir_id": "mine-1", "mrn": "M-1", "first_name": "Jane", "last_name": "` + name +
			`", "birth_date": "1957-03-21", "gender": "female"}`
		if a := r.do("POST", "/admin/patients", body); a.status != http.StatusNoContent {
			t.Fatalf("got %d %s", a.status, a.text)
		}
		if p := r.fhirGet(token, "/Patient/mine-1"); p.str("name", 0, "family") != name || p.get("active") != true {
			t.Errorf("got %s", p.text)
		}
		if found := r.fhirGet(token, "/Patient?family="+name); found.num("total") != 1 {
			t.Errorf("%s is found %v times", name, found.num("total"))
		}
	}

	for _, wrong := range []string{
		`{"fhir_id": "mine-2"}`, `{"surname": "Doe"}`, `{"fhir_id":"a","mrn":"b","last_name":"c","birth_date":"soon"}`,
	} {
		if a := r.do("POST", "/admin/patients", wrong); a.status != http.StatusBadRequest || a.str("detail") == "" {
			t.Errorf("%s: %d %s", wrong, a.status, a.text)
		}
	}

	r.do("POST", "/admin/reset", "")
	if p := r.fhirGet(r.token(allScopes), "/Patient/mine-1"); p.status != http.StatusNotFound {
		t.Errorf("after the reset: %d %s", p.status, p.text)
	}
}
