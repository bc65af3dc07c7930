package sandbox_test

import (
	"fmt"
	"strings"
	"testing"
)

func bundle(resource, ifNoneExist string) string {
	condition := ""
	if ifNoneExist != "" {
		condition = fmt.Sprintf(`,"ifNoneExist":"identifier=%s|%s"`, idSystem, ifNoneExist)
	}
	return `{"resourceType":"Bundle","type":"transaction","entry":[` +
		`{"fullUrl":"urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a","resource":` + resource +
		`,"request":{"method":"POST","url":"Observation"` + condition + `}}]}`
}

func (r *rig) transact(token, body string) answer {
	r.t.Helper()
	return r.do("POST", base(""), body, "Authorization", "Bearer "+token, "Content-Type", fhirJSON)
}

// entryStatus is eCW's number in a transaction-response.
func (a answer) entryStatus() string { return a.str("entry", 0, "response", "status") }

func TestTransaction(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	a := r.transact(token, bundle(weight("w-1"), "w-1"))
	if a.status != 200 || a.str("type") != "transaction-response" || a.entryStatus() != "1" {
		t.Fatalf("got %d %s", a.status, a.text)
	}

	location := a.str("entry", 0, "response", "location")
	if b := r.fhirGet(token, "/"+strings.TrimSuffix(location, "/_history/1")); b.status != 200 || !strings.Contains(b.text, "81.60") {
		t.Errorf("%s: got %d %s", location, b.status, b.text)
	}

	again := r.transact(token, bundle(weight("w-1"), "w-1"))
	if again.status != 200 || again.entryStatus() != "1" || again.str("entry", 0, "response", "location") != location {
		t.Errorf("the same again: got %d %s", again.status, again.text)
	}

	unconditional := r.transact(token, bundle(weight("w-1"), ""))
	if unconditional.status != 200 || unconditional.entryStatus() != "201" ||
		unconditional.str("entry", 0, "response", "outcome", "issue", 0, "code") != "duplicate" {
		t.Errorf("without ifNoneExist: got %d %s", unconditional.status, unconditional.text)
	}

	r.fault(`{"kind": "ignore_if_none_exist"}`)
	if ignored := r.transact(token, bundle(weight("w-1"), "w-1")); ignored.entryStatus() != "201" {
		t.Errorf("ifNoneExist ignored: got %d %s", ignored.status, ignored.text)
	}
	if n := r.stored("w-1"); n != 1 {
		t.Errorf("stored %d", n)
	}
	slash := r.do("POST", base("/"), bundle(weight("w-2"), ""), "Authorization", "Bearer "+token, "Content-Type", fhirJSON)
	if slash.entryStatus() != "1" {
		t.Errorf("base with a slash: got %d %s", slash.status, slash.text)
	}

	r.create(token, weight("w-2"))
	if several := r.transact(token, bundle(weight("w-2"), "w-2")); several.status != 412 {
		t.Errorf("several matches: got %d %s", several.status, several.text)
	}
}

func TestTransactionNumbers(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	w := weight("a")

	for want, resource := range map[string]string{
		"207": with(t, w, patientID, "nobody"),
		"100": with(t, w, "Patient/", "Group/"),
		"102": with(t, w, `"system":"http://loinc.org"`, `"system":"urn:x"`),
		"110": with(t, w, `"final"`, `"done"`),
		"122": with(t, w, `"vital-signs"`, `"survey"`),
		"204": with(t, w, "2026-02-06T", "2026-02-31T"),
		"611": with(t, w, `"code":"kg"`, `"code":"lbs"`),
		"612": with(t, w, "81.60", "-1"),
		"613": with(t, w, "29463-7", "1234-5"),
		"2":   with(t, w, `"status"`, `"id":"x","status"`),
	} {
		a := r.transact(token, bundle(resource, "a"))
		if a.status != 200 || a.entryStatus() != want || a.str("entry", 0, "response", "outcome", "resourceType") != "OperationOutcome" {
			t.Errorf("%s: got %d %s", want, a.status, a.text)
		}
	}

	if n := r.stored("a"); n != 0 {
		t.Errorf("stored %d", n)
	}
}

func TestTransactionMalformed(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	good := bundle(weight("a"), "a")
	entry := good[strings.Index(good, `[{"fullUrl"`)+1 : len(good)-2]

	for name, body := range map[string]string{
		"no JSON":        "x",
		"an Observation": weight("a"),
		"a batch":        with(t, good, `"transaction"`, `"batch"`),
		"no entry":       `{"resourceType":"Bundle","type":"transaction"}`,
		"two entries":    with(t, good, `"entry":[`, `"entry":[`+entry+","),
		"an update":      with(t, good, `"POST"`, `"PUT"`),
		"a patient":      with(t, good, `"url":"Observation"`, `"url":"Patient"`),
		"no resource":    with(t, good, `"resource"`, `"_resource"`),
		"bad condition":  with(t, good, `"identifier=`, `"colour=`),
	} {
		if a := r.transact(token, body); a.status != 400 || a.str("resourceType") != "OperationOutcome" {
			t.Errorf("%s: got %d %s", name, a.status, a.text)
		}
	}
}
