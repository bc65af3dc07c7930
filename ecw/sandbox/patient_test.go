package sandbox_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

func TestCrowd(t *testing.T) {
	t.Parallel()
	crowd := sandbox.Crowd(2500)
	seen := map[string]bool{}
	for i, p := range crowd {
		if seen[p.FHIRID] || seen[p.MRN] {
			t.Errorf("person %d has the id of another: %+v", i, p)
		}
		seen[p.FHIRID], seen[p.MRN] = true, true
	}
	if people := sandbox.People(); len(crowd) != 2500 || crowd[141] != people[141] || len(sandbox.Crowd(7)) != 7 {
		t.Errorf("a crowd of %d does not begin with the people", len(crowd))
	}

	r := start(t, func(c *sandbox.Config) { c.Patients = 2500 })
	if a := r.fhirGet(r.token(allScopes), "/Patient/"+crowd[2499].FHIRID); a.status != 200 {
		t.Errorf("the last of the crowd: %d", a.status)
	}
}

func TestPeople(t *testing.T) {
	t.Parallel()
	people := sandbox.People()
	if len(people) != 142 {
		t.Fatalf("%d people, want 142", len(people))
	}

	if first := people[0]; first.FHIRID != patientID || first.MRN != "ECW-10001" || first.FirstName != "Kevin" ||
		first.LastName != "Lee" || first.BirthDate != "2007-07-15" || first.SampleID != "2004454" {
		t.Errorf("the first is %+v", first)
	}

	reserved := regexp.MustCompile(`^\d{3}-555-01\d\d$`)
	seen := map[string]bool{}
	samples := 0

	for i, p := range people {
		for _, unique := range []string{p.FHIRID, p.MRN, p.FirstName + " " + p.LastName + p.BirthDate} {
			if seen[unique] {
				t.Errorf("%q occurs twice", unique)
			}
			seen[unique] = true
		}

		if p.FirstName == "" || p.LastName == "" || p.Gender == "" {
			t.Errorf("person %d is incomplete: %+v", i, p)
		}
		if _, err := time.Parse(time.DateOnly, p.BirthDate); err != nil {
			t.Error(err)
		}

		if p.SampleID != "" {
			samples++
			continue
		}

		for _, phone := range []string{p.Mobile, p.HomePhone} {
			if phone != "" && !reserved.MatchString(phone) {
				t.Errorf("%s of a made-up person is not reserved for fiction", phone)
			}
		}
	}

	if samples != 43 {
		t.Errorf("%d people of the sample, want 43", samples)
	}
	if again := sandbox.People(); again[141] != people[141] {
		t.Error("the people change from call to call")
	}
}

func TestVitals(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, p := range sandbox.People() {
		known[p.SampleID] = true
	}

	visits := sandbox.Vitals()
	if len(visits) != 602 {
		t.Fatalf("%d visits, want 602", len(visits))
	}

	whose := map[string]bool{}
	for _, v := range visits {
		whose[v.SampleID] = true
		if v.ID == "" || v.SampleID == "" || !known[v.SampleID] || v.Time.Year() < 1997 || v.Time.Year() > 2013 {
			t.Errorf("visit %+v", v)
		}
	}

	if len(whose) != 29 {
		t.Errorf("visits of %d people, want 29", len(whose))
	}

	want := sandbox.Visit{
		ID:        "2",
		SampleID:  "9995679",
		Time:      time.Date(2007, 4, 18, 13, 32, 0, 0, time.UTC),
		HeartRate: "60",
		Weight:    "87",
		Height:    "197.5",
		Systolic:  "121",
		Diastolic: "62",
	}
	if visits[1] != want {
		t.Errorf("got %+v", visits[1])
	}

	if last := visits[601]; last.Temperature != "37" || last.BMI != "16.2" || last.RespiratoryRate != "16" ||
		last.OxygenSaturation != "99" || !last.Time.Equal(time.Date(2010, 8, 12, 4, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", last)
	}
}

func TestPatientRead(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	a := r.fhirGet(token, "/Patient/"+patientID)

	want := `{"resourceType":"Patient","id":"ecw-patient-2004454",
		"meta":{
			"versionId":"1",
			"lastUpdated":"2026-01-05T08:00:00Z",
			"profile":["http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"]
		},
		"identifier":[
			{
				"use":"secondary",
				"type":{
					"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v2-0203","code":"AN","display":"Account number"}],
					"text":"Account number"
				},
				"system":"https://sandbox-ehr.example.com/account",
				"value":"A2004454"
			},
			{
				"use":"usual",
				"type":{
					"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v2-0203","code":"MR","display":"Medical record number"}],
					"text":"Medical record number"
				},
				"system":"https://sandbox-ehr.example.com/mrn",
				"value":"ECW-10001"
			}
		],
		"active":true,
		"name":[{"use":"official","text":"Kevin Lee","family":"Lee","given":["Kevin","H"]}],
		"telecom":[{"system":"email","value":"kevin.lee@example.com"}],
		"gender":"male","birthDate":"2007-07-15",
		"address":[{"use":"home","line":["80 Mill St","Apt 21"],"city":"Sand Springs","state":"OK","postalCode":"74063","country":"US"}]}`
	if a.status != 200 || compact(t, a.text) != compact(t, want) {
		t.Errorf("got %d %s", a.status, a.text)
	}

	if b := r.fhirGet(token, "/Patient/nobody"); b.status != 404 || b.str("issue", 0, "code") != "not-found" {
		t.Errorf("got %d %s", b.status, b.text)
	}
}

func TestPatientSearch(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)

	for search, want := range map[string]int{
		"":                     142,
		"_id=" + patientID:     1,
		"_id=nobody":           0,
		"identifier=ECW-10002": 1,
		"identifier=https://sandbox-ehr.example.com/mrn%7CECW-10002":     1,
		"identifier=https://sandbox-ehr.example.com/account%7CECW-10002": 0,
		"name=lee":                 1,
		"name=Kevin%20Lee":         1,
		"family=williams":          3,
		"family=garcia":            3,
		"family=garc%C3%ADa":       3,
		"given=susan":              2,
		"given=susan&family=clark": 1,
		"birthdate=2007-07-15":     1,
		"birthdate=2007":           3,
		"birthdate=lt1926":         1,
		"gender=other":             4,
		"name=nobody":              0,
		"_id=" + patientID + ",ecw-patient-1614502": 2,
	} {
		if a := r.fhirGet(token, "/Patient?"+search); a.status != 200 || a.num("total") != want {
			t.Errorf("%s: got %d, total %d, want %d", search, a.status, a.num("total"), want)
		}
	}

	if a := r.fhirGet(token, "/Patient?_count=0"); a.num("total") != 142 || a.get("entry") != nil {
		t.Errorf("_count=0: %s", a.text)
	}

	for _, search := range []string{"colour=red", "birthdate=x", "_count=x", "name:exact=Lee"} {
		if a := r.fhirGet(token, "/Patient?"+search); a.status != 400 {
			t.Errorf("%s: got %d", search, a.status)
		}
	}
}

func TestPatientPaging(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)

	for _, count := range []string{"", "?_count=20", "?_count=71", "?_count=1000", "?_count=9&gender=female,male,other,unknown"} {
		if ids := allPages(t, r, token, "/Patient"+count); len(ids) != 142 {
			t.Errorf("%s: %d patients", count, len(ids))
		}
	}

	second := r.fhirGet(token, "/Patient?_count=20&_offset=20")
	if second.str("link", 2, "relation") != "previous" || second.str("entry", 0, "search", "mode") != "match" {
		t.Errorf("got %s", second.text)
	}

	if a := r.fhirGet(token, "/Patient?_offset=1000"); a.status != 200 || a.num("total") != 142 || a.get("entry") != nil {
		t.Errorf("behind the end: got %d %s", a.status, a.text)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	r := start(t)
	a := r.do("GET", base("/metadata"), "")
	if a.str("resourceType") != "CapabilityStatement" || a.str("fhirVersion") != "4.0.1" ||
		a.str("rest", 0, "security", "extension", 0, "extension", 0, "valueUri") != r.server.TokenURL() {
		t.Errorf("got %s", a.text)
	}
	b := r.do("GET", base("/.well-known/smart-configuration"), "")
	if b.status != 200 || b.str("token_endpoint") != r.server.TokenURL() ||
		b.str("token_endpoint_auth_signing_alg_values_supported", 0) != "RS384" {
		t.Errorf("got %d %s", b.status, b.text)
	}
}
