package sandbox_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

func TestFaultsOnIdentifiers(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.create(token, weight("v"))
	r.fault(`{"kind": "drop_identifier"}`)
	r.create(token, weight("w"))

	if a := r.fhirGet(token, "/Observation?identifier=w"); a.num("total") != 0 {
		t.Errorf("drop_identifier: %s", a.text)
	}
	if a := r.fhirGet(token, "/Observation?patient="+patientID); a.num("total") != 2 {
		t.Errorf("the Observation itself: %s", a.text)
	}

	r.fault(`{"kind": "refuse_identifier"}`)
	if a := r.fhirGet(token, "/Observation?identifier=v"); a.status != 400 {
		t.Errorf("refuse_identifier: got %d", a.status)
	}

	r.fault(`{"kind": "ignore_identifier"}`)
	if a := r.fhirGet(token, "/Observation?identifier=v"); a.num("total") != 2 {
		t.Errorf("ignore_identifier: %s", a.text)
	}
}

func TestOtherPersonUnderAPatientsID(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	right := r.fhirGet(token, "/Patient/"+patientID)
	r.fault(`{"kind": "other_person", "target": "read"}`)
	wrong := r.fhirGet(token, "/Patient/"+patientID)
	if wrong.status != 200 || wrong.str("id") != patientID || wrong.str("identifier", 1, "value") != right.str("identifier", 1, "value") {
		t.Errorf("the id or the MRN is not the patient's: %s", wrong.text)
	}
	if wrong.str("name", 0, "family") == right.str("name", 0, "family") || wrong.str("birthDate") == right.str("birthDate") {
		t.Errorf("the name or the birth date is the patient's: %s", wrong.text)
	}

	if again := r.fhirGet(token, "/Patient/"+patientID); again.text != right.text {
		t.Errorf("after the fault: %s", again.text)
	}
}

// TestFaultsOnPatientLists: without a fault a search takes a list of ids, and each fault spoils it in its way.
func TestFaultsOnPatientLists(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	var ids []string
	for _, p := range sandbox.People()[:30] {
		ids = append(ids, p.FHIRID)
	}
	search := "/Patient?_id=" + strings.Join(ids, ",") + "&_count=100"

	if a := r.fhirGet(token, search); a.num("total") != 30 || a.get("entry", 29) == nil || a.str("entry", 29, "resource", "id") != ids[29] {
		t.Errorf("without a fault: %s", a.text)
	}

	r.fault(`{"kind": "refuse_id_list"}`)
	if a := r.fhirGet(token, search); a.status != 400 {
		t.Errorf("refuse_id_list: got %d", a.status)
	}

	r.fault(`{"kind": "ignore_id_list"}`)
	if a := r.fhirGet(token, search); a.num("total") != 142 {
		t.Errorf("ignore_id_list: %s", a.text)
	}

	r.fault(`{"kind": "hide_patients"}`)
	if a := r.fhirGet(token, search); a.num("total") != 15 {
		t.Errorf("hide_patients: %s", a.text)
	}

	r.fault(`{"kind": "small_pages"}`)
	if a := r.fhirGet(token, search); a.num("total") != 30 || a.get("entry", 19) == nil || a.get("entry", 20) != nil ||
		a.str("link", 1, "relation") != "next" {
		t.Errorf("small_pages: %s", a.text)
	}

	right := r.fhirGet(token, search)
	r.fault(`{"kind": "other_person", "target": "search"}`)
	wrong := r.fhirGet(token, search)
	if wrong.str("entry", 0, "resource", "id") != ids[0] ||
		wrong.str("entry", 0, "resource", "birthDate") == right.str("entry", 0, "resource", "birthDate") {
		t.Errorf("other_person: %s", wrong.text)
	}
}

func TestNumberInBundle(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.fault(`{"kind": "ecw_number", "number": "308"}`)
	if a := r.transact(r.token(allScopes), bundle(weight("w"), "w")); a.status != 200 || a.entryStatus() != "308" || r.stored("w") != 0 {
		t.Errorf("got %s", a.text)
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r.fault(`{"kind": "redirect", "location": "https://elsewhere.example/x"}`)
	if a := r.fhirGet(token, "/Patient"); a.status != 307 || a.header.Get("Location") != "https://elsewhere.example/x" {
		t.Errorf("got %d %v", a.status, a.header)
	}
}

// TestReadmeNamesEveryKind: README.md lists all kinds of faults.
func TestReadmeNamesEveryKind(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}

	list := start(t).do("GET", "/admin/faults", "")
	for i := 0; list.get("kinds", i) != nil; i++ {
		if kind := list.str("kinds", i, "kind"); !strings.Contains(string(readme), "`"+kind+"`") {
			t.Errorf("README.md does not name %s", kind)
		}
	}

	if list.get("kinds", 20) == nil {
		t.Errorf("list: %s", list.text)
	}
}
