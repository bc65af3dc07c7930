package sandbox_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

func TestCreateAndRead(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	a := r.create(token, weight("w-1"))
	if a.status != 201 {
		t.Fatalf("got %d %s", a.status, a.text)
	}

	id := a.str("id")
	if want := r.server.FHIRBaseURL() + "/Observation/" + id + "/_history/1"; id == "" || a.header.Get("Location") != want {
		t.Errorf("Location is %q, want %q", a.header.Get("Location"), want)
	}
	if a.str("meta", "versionId") != "1" || a.str("meta", "lastUpdated") != "2026-02-06T10:30:15.000Z" ||
		a.str("meta", "tag", 0, "display") != "Vantrexia RPM" {
		t.Errorf("meta: %v", a.get("meta"))
	}

	for _, kept := range []string{`"value":81.60,`, `"display":"SCALE-<1>"`} {
		if !strings.Contains(a.text, kept) {
			t.Errorf("%s was not kept: %s", kept, a.text)
		}
	}

	for _, path := range []string{"/Observation/" + id, "/Observation/" + id + "/_history/1"} {
		if b := r.fhirGet(token, path); b.status != 200 || strings.TrimSpace(b.text) != strings.TrimSpace(a.text) {
			t.Errorf("%s: got %d %s", path, b.status, b.text)
		}
	}

	for _, path := range []string{"/Observation/none", "/Observation/" + id + "/_history/2"} {
		if b := r.fhirGet(token, path); b.status != 404 || b.str("resourceType") != "OperationOutcome" {
			t.Errorf("%s: got %d %s", path, b.status, b.text)
		}
	}

	if b := r.create(token, weight("w-2"), "Prefer", "return=minimal"); b.status != 201 || b.text != "" || b.header.Get("Location") == "" {
		t.Errorf("return=minimal: got %d %q", b.status, b.text)
	}
}

func TestCreateAccepts(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	w, p := weight("a"), pressure("a")
	absent := `"dataAbsentReason":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/data-absent-reason","code":"unknown"}]}`

	for name, body := range map[string]string{
		"weight":                w,
		"pounds":                with(t, w, `"code":"kg"`, `"code":"[lb_av]"`),
		"a second coding":       with(t, w, `"coding":[{"system":"http://loinc.org"`, `"coding":[{"system":"urn:local","code":"wt"},{"system":"http://loinc.org"`),
		"a second category":     with(t, w, `"category":[`, `"category":[{"text":"home"},`),
		"an absolute reference": with(t, w, `"Patient/`, `"`+r.server.FHIRBaseURL()+`/Patient/`),
		"a display":             with(t, w, `"subject":{`, `"subject":{"display":"Somebody",`),
		"a reason, no value":    w[:strings.Index(w, `"valueQuantity"`)] + absent + "}",
		"pressure":              p,
		"diastolic absent":      with(t, p, `"valueQuantity":{"value":92,"unit":"mmHg","system":"http://unitsofmeasure.org","code":"mm[Hg]"}`, absent),
		"no heart rate": with(t, p, `,{"code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]},`+
			`"valueQuantity":{"value":78,"unit":"beats/minute","system":"http://unitsofmeasure.org","code":"/min"}}`, ""),
		"oximetry": with(t, with(t, w, `{"system":"http://loinc.org","code":"29463-7","display":"Body weight"}`,
			`{"system":"http://loinc.org","code":"59408-5"},{"system":"http://loinc.org","code":"2708-6"}`),
			`"value":81.60,"unit":"kg","system":"http://unitsofmeasure.org","code":"kg"`, `"value":97,"unit":"%","system":"http://unitsofmeasure.org","code":"%"`),
		"glucose":               glucose(t),
		"glucose before a meal": with(t, glucose(t), `"valueQuantity"`, `"note":[{"text":"Measured before a meal."}],"valueQuantity"`),
		"no device":             with(t, w, `"device":{"display":"SCALE-<1>"},`, ""),
	} {
		if a := r.create(token, body); a.status != 201 {
			t.Errorf("%s: got %d %s", name, a.status, a.text)
		}
	}

	if a := r.create(token, w, "Content-Type", "application/json; charset=UTF-8"); a.status != 201 {
		t.Errorf("application/json: got %d", a.status)
	}
}

func glucose(t *testing.T) string {
	t.Helper()
	g := with(t, weight("g"), `"vital-signs"`, `"laboratory"`)
	g = with(t, g, "29463-7", "41653-7")
	return with(t, g, `"unit":"kg","system":"http://unitsofmeasure.org","code":"kg"`,
		`"unit":"mg/dL","system":"http://unitsofmeasure.org","code":"mg/dL"`)
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	w, p := weight("a"), pressure("a")
	mmHg := `"unit":"mmHg","system":"http://unitsofmeasure.org","code":"mm[Hg]"`
	absent := `"dataAbsentReason":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/data-absent-reason","code":"unknown"}]}`

	for name, c := range map[string]struct {
		body   string
		status int
		code   string
		number string
		at     string
	}{
		"no JSON":         {"<Observation/>", 400, "structure", "2", ""},
		"a list":          {"[]", 400, "structure", "2", ""},
		"null":            {"null", 400, "structure", "2", "resourceType"},
		"another type":    {`{"resourceType":"Condition"}`, 400, "structure", "2", "resourceType"},
		"an id":           {with(t, w, `"status"`, `"id":"mine","status"`), 400, "structure", "2", "Observation.id"},
		"wrong JSON type": {with(t, w, `"final"`, `7`), 400, "structure", "2", "Observation.status"},
		"misspelt element": {
			with(t, w, `"effectiveDateTime"`, `"effectiveDatetime"`),
			400,
			"structure",
			"2",
			"Observation.effectiveDatetime",
		},
		"a note of nothing":     {with(t, w, `"status"`, `"note":[{}],"status"`), 422, "required", "2", "Observation.note[0].text"},
		"a note without a form": {with(t, w, `"status"`, `"note":[{"txt":"x"}],"status"`), 400, "structure", "2", "Observation.note[0].txt"},
		"misspelt deep down":    {with(t, w, `"unit"`, `"units"`), 400, "structure", "2", "Observation.valueQuantity.units"},
		"no subject": {
			with(t, w, `"subject":{"reference":"Patient/`+patientID+`"},`, ""),
			422,
			"required",
			"100",
			"Observation.subject",
		},
		"subject no patient": {with(t, w, "Patient/", "Group/"), 422, "value", "100", "Observation.subject.reference"},
		"subject elsewhere": {
			with(t, w, "Patient/", "https://other.example.com/Patient/"),
			422,
			"value",
			"100",
			"Observation.subject.reference",
		},
		"unknown patient": {with(t, w, patientID, "nobody"), 422, "not-found", "207", "Observation.subject.reference"},
		"unknown provider": {
			with(t, w, `"device"`, `"performer":[{"reference":"Practitioner/7"}],"device"`),
			422,
			"not-found",
			"101",
			"Observation.performer[0].reference",
		},
		"no status":      {with(t, w, `"status":"final",`, ""), 422, "required", "110", "Observation.status"},
		"unknown status": {with(t, w, `"final"`, `"done"`), 422, "code-invalid", "110", "Observation.status"},
		"no category":    {with(t, w, `"code":"vital-signs"`, `"code":"survey"`), 422, "required", "122", "Observation.category"},
		"category twice": {
			with(t, w, `"category":[`, `"category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs"}]},`),
			422,
			"required",
			"122",
			"Observation.category",
		},
		"glucose as a vital sign": {with(t, glucose(t), `"laboratory"`, `"vital-signs"`), 422, "required", "122", "Observation.category"},
		"no code":                 {with(t, w, `"code":{"coding"`, `"method":{"coding"`), 422, "required", "120", "Observation.code"},
		"not LOINC": {
			with(t, w, `"system":"http://loinc.org"`, `"system":"http://snomed.info/sct"`),
			422,
			"code-invalid",
			"102",
			"Observation.code.coding.system",
		},
		"unsupported code": {with(t, w, "29463-7", "1234-5"), 422, "not-supported", "613", "Observation.code"},
		"two measurements": {
			with(t, w, `"coding":[{"system":"http://loinc.org"`, `"coding":[{"system":"http://loinc.org","code":"8302-2"},{"system":"http://loinc.org"`),
			422,
			"code-invalid",
			"120",
			"Observation.code",
		},
		"half of an oximetry": {with(t, w, "29463-7", "2708-6"), 422, "required", "120", "Observation.code.coding"},
		"no time": {
			with(t, w, `"effectiveDateTime":"2026-02-06T10:30:00Z",`, ""),
			422,
			"required",
			"204",
			"Observation.effectiveDateTime",
		},
		"no zone":                 {with(t, w, "10:30:00Z", "10:30:00"), 422, "value", "204", "Observation.effectiveDateTime"},
		"no such day":             {with(t, w, "2026-02-06T", "2026-02-30T"), 422, "value", "204", "Observation.effectiveDateTime"},
		"only a month":            {with(t, w, "2026-02-06T10:30:00Z", "2026-02"), 422, "invariant", "204", "Observation.effectiveDateTime"},
		"in the future":           {with(t, w, "2026-02-06T", "2026-02-08T"), 422, "business-rule", "204", "Observation.effectiveDateTime"},
		"an instant":              {with(t, w, "effectiveDateTime", "effectiveInstant"), 422, "required", "204", "Observation.effectiveDateTime"},
		"identifier, no value":    {weight(""), 422, "required", "2", "Observation.identifier[0].value"},
		"unit not UCUM":           {with(t, w, `"code":"kg"`, `"code":"lbs"`), 422, "code-invalid", "611", "Observation.valueQuantity.code"},
		"unit of another measure": {with(t, w, `"code":"kg"`, `"code":"cm"`), 422, "code-invalid", "611", "Observation.valueQuantity.code"},
		"no unit":                 {with(t, w, `"unit":"kg",`, ""), 422, "required", "611", "Observation.valueQuantity.unit"},
		"no unit system": {
			with(t, w, `"system":"http://unitsofmeasure.org",`, ""),
			422,
			"code-invalid",
			"611",
			"Observation.valueQuantity.system",
		},
		"no unit code":          {with(t, w, `,"code":"kg"`, ""), 422, "code-invalid", "611", "Observation.valueQuantity.code"},
		"value a string":        {with(t, w, "81.60", `"81.60"`), 422, "required", "612", "Observation.valueQuantity.value"},
		"value null":            {with(t, w, "81.60", "null"), 422, "required", "612", "Observation.valueQuantity.value"},
		"value negative":        {with(t, w, "81.60", "-3"), 422, "value", "612", "Observation.valueQuantity.value"},
		"value of another kind": {with(t, w, "valueQuantity", "valueRange"), 422, "value", "612", "Observation.value"},
		"no value, no reason":   {w[:strings.Index(w, `,"valueQuantity"`)] + "}", 422, "invariant", "612", "Observation"},
		"value and reason": {
			with(t, w, `"valueQuantity"`, absent+`,"valueQuantity"`),
			422,
			"invariant",
			"612",
			"Observation.dataAbsentReason",
		},
		"top-level value": {
			with(t, p, `"component"`, `"valueQuantity":{"value":142,`+mmHg+`},"component"`),
			422,
			"invariant",
			"612",
			"Observation.valueQuantity",
		},
		"no diastolic":   {with(t, p, "8462-4", "8478-0"), 422, "required", "612", "Observation.component"},
		"systolic twice": {with(t, p, "8867-4", "8480-6"), 422, "code-invalid", "611", "Observation.component[2].valueQuantity.code"},
		"component, no value": {
			with(t, p, `,"valueQuantity":{"value":92,`+mmHg+`}`, ""),
			422,
			"invariant",
			"612",
			"Observation.component[1]",
		},
		"mmHg as a code": {with(t, p, "mm[Hg]", "mmHg"), 422, "code-invalid", "611", "Observation.component[0].valueQuantity.code"},
		"component, no code": {
			with(t, p, `"component":[`, `"component":[{"valueString":"x"},`),
			422,
			"required",
			"120",
			"Observation.component[0].code",
		},
	} {
		a := r.create(token, c.body)
		if a.status != c.status || a.str("resourceType") != "OperationOutcome" || a.str("issue", 0, "code") != c.code || a.number() != c.number {
			t.Errorf("%s: got %d %s", name, a.status, a.text)
		}
		if at := a.str("issue", 0, "expression", 0); at != c.at {
			t.Errorf("%s: at %q, want %q", name, at, c.at)
		}
	}

	for _, contentType := range []string{"", "text/plain", "application/fhir+xml", "application/json; charset=latin1"} {
		if a := r.create(token, w, "Content-Type", contentType); a.status != 415 {
			t.Errorf("Content-Type %q: got %d", contentType, a.status)
		}
	}

	big := with(t, w, "SCALE", strings.Repeat("x", 1<<20))
	if a := r.create(token, big); a.status != 413 || a.number() != "109" {
		t.Errorf("too large: got %d %s", a.status, a.text)
	}
	if n := r.do("GET", "/admin/stats", "").num("creates", "total"); n != 0 {
		t.Errorf("%d refused Observations were stored", n)
	}
}

func TestSeveralMistakesAreAllNamed(t *testing.T) {
	t.Parallel()
	r := start(t)
	a := r.create(r.token(allScopes), with(t, with(t, weight("a"), `"final"`, `"done"`), `"code":"kg"`, `"code":"lbs"`))
	if issues, _ := a.get("issue").([]any); len(issues) != 2 {
		t.Errorf("got %s", a.text)
	}
}

func TestRefuseGlucose(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *sandbox.Config) { c.RefuseGlucose = true })
	if a := r.create(r.token(allScopes), glucose(t)); a.status != 422 || a.number() != "613" {
		t.Errorf("got %d %s", a.status, a.text)
	}
}

func TestConditionalCreate(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	first := r.createOnce(token, weight("w-1"), "w-1")
	second := r.createOnce(token, weight("w-1"), "w-1")
	if first.status != 201 || second.status != 200 || first.str("id") != second.str("id") ||
		second.header.Get("Location") != first.header.Get("Location") {
		t.Fatalf("got %d %s, then %d %s", first.status, first.text, second.status, second.text)
	}

	if r.stored("w-1") != 1 || r.received("w-1") != 2 {
		t.Errorf("stored %d, received %d", r.stored("w-1"), r.received("w-1"))
	}

	encoded := r.create(token, weight("w-1"), "If-None-Exist", url.Values{"identifier": {idSystem + "|w-1"}, "patient": {patientID}}.Encode())
	if encoded.status != 200 {
		t.Errorf("encoded criteria: got %d %s", encoded.status, encoded.text)
	}

	if a := r.create(token, weight("w-1")); a.status != 201 {
		t.Errorf("a create without condition always creates: got %d", a.status)
	}
	if a := r.createOnce(token, weight("w-1"), "w-1"); a.status != 412 || a.str("issue", 0, "code") != "multiple-matches" {
		t.Errorf("several matches: got %d %s", a.status, a.text)
	}

	for _, criteria := range []string{"?", "colour=red", "date=yesterday", "_count=1", "identifier=", "%zz"} {
		if a := r.create(token, weight("w-2"), "If-None-Exist", criteria); a.status != 400 {
			t.Errorf("If-None-Exist: %q: got %d", criteria, a.status)
		}
	}

	if n := r.stored("w-2"); n != 0 {
		t.Errorf("stored %d in spite of bad criteria", n)
	}
}

func TestConditionalCreateRace(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *sandbox.Config) { c.DataDir = t.TempDir() })
	token := r.token(allScopes)
	var wg sync.WaitGroup
	statuses := make([]int, 40)

	for i := range statuses {
		wg.Go(func() { statuses[i] = r.createOnce(token, pressure("race"), "race").status })
	}

	wg.Wait()
	created := 0
	for _, status := range statuses {
		switch status {
		case 201:
			created++
		case 200:
		default:
			t.Errorf("got %d", status)
		}
	}

	if created != 1 || r.stored("race") != 1 || r.received("race") != len(statuses) {
		t.Errorf("created %d, stored %d, received %d", created, r.stored("race"), r.received("race"))
	}
}

func TestIgnoreIfNoneExist(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *sandbox.Config) { c.IgnoreIfNoneExist = true })
	token := r.token(allScopes)

	for range 2 {
		if a := r.createOnce(token, weight("w-1"), "w-1"); a.status != 201 {
			t.Fatalf("got %d %s", a.status, a.text)
		}
	}

	if n := r.stored("w-1"); n != 2 {
		t.Errorf("stored %d", n)
	}
	if a := r.fhirGet(token, "/Observation?identifier="+url.QueryEscape(idSystem+"|w-1")); a.num("total") != 2 {
		t.Errorf("search: %s", a.text)
	}
}

func TestObservationSearch(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	wID := r.create(token, weight("w-1")).str("id")   // 2026-02-06T10:30:00Z
	pID := r.create(token, pressure("p-1")).str("id") // 2026-02-05T08:00:00Z
	other := with(t, weight("w-2"), patientID, "ecw-patient-1614502")
	oID := r.create(token, with(t, other, "2026-02-06T10:30:00Z", "2026-01-31")).str("id")

	for search, want := range map[string]string{
		"":                                     wID + pID + oID,
		"_id=" + pID:                           pID,
		"identifier=" + idSystem + "%7Cw-1":    wID,
		"identifier=w-1,p-1":                   wID + pID,
		"identifier=urn:other%7Cw-1":           "",
		"identifier=w-1&identifier=p-1":        "",
		"patient=" + patientID:                 wID + pID,
		"patient=Patient/" + patientID:         wID + pID,
		"subject=Patient/ecw-patient-1614502":  oID,
		"patient=nobody":                       "",
		"code=http://loinc.org%7C29463-7":      wID + oID,
		"code=29463-7,85354-9":                 wID + pID + oID,
		"code=http://snomed.info/sct%7C8480-6": "",
		"category=vital-signs":                 wID + pID + oID,
		"category=laboratory":                  "",
		"date=2026-02-06":                      wID,
		"date=ge2026-02-05T08:00:00Z":          wID + pID,
		"date=gt2026-02-05T08:00:00Z":          wID,
		"date=lt2026-02-05T08:00:00Z":          oID,
		"date=le2026-02-05T08:00:00Z":          pID + oID,
		"date=2026-02":                         wID + pID,
		"date=ne2026-02":                       oID,
		"date=sa2026-01-31":                    wID + pID,
		"date=eb2026-02-01":                    oID,
		"date=ge2026-02-01&date=lt2026-02-06":  pID,
		"patient=" + patientID + "&code=85354-9&date=2026-02-05T09:00:00%2B01:00": pID,
	} {
		a := r.fhirGet(token, "/Observation?"+search)
		got := ""
		entries, _ := a.get("entry").([]any)
		for i := range entries {
			got += a.str("entry", i, "resource", "id")
		}

		if a.status != 200 || got != want || a.str("type") != "searchset" {
			t.Errorf("%s: got %d %s, want %s", search, a.status, got, want)
		}
	}

	for _, search := range []string{"colour=red", "date=yesterday", "date=ap2026", "_count=many", "_count=-1", "code=", "patient:Group=x"} {
		if a := r.fhirGet(token, "/Observation?"+search); a.status != 400 || a.str("resourceType") != "OperationOutcome" {
			t.Errorf("%s: got %d %s", search, a.status, a.text)
		}
	}
}

func TestObservationPaging(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	for i := range 7 {
		r.create(token, weight(fmt.Sprint("w-", i)))
	}
	if ids := allPages(t, r, token, "/Observation?patient="+patientID+"&_count=3"); len(ids) != 7 {
		t.Errorf("got %v", ids)
	}
}

// allPages follows the next links and returns the ids found, none of them twice.
func allPages(t *testing.T, r *rig, token, next string) []string {
	t.Helper()
	var ids []string
	seen := map[string]bool{}

	for pages := 0; next != ""; pages++ {
		a := r.fhirGet(token, next)
		if a.status != 200 || pages > 50 {
			t.Fatalf("page %d: got %d %s", pages, a.status, a.text)
		}

		var set struct {
			Entry []struct{ Resource struct{ ID string } }
			Link  []struct{ Relation, URL string }
		}

		if err := json.Unmarshal([]byte(a.text), &set); err != nil {
			t.Fatal(err)
		}

		for _, entry := range set.Entry {
			if id := entry.Resource.ID; seen[id] {
				t.Errorf("%s comes twice", id)
			}
			seen[entry.Resource.ID] = true
			ids = append(ids, entry.Resource.ID)
		}

		next = ""
		for _, link := range set.Link {
			if link.Relation == "next" {
				next = link.URL
			}
		}
	}

	return ids
}
