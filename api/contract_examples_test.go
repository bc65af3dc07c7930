package api_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// The things that the contract's examples name.
const (
	examplePatient      = "d290f1ee-6c54-4b01-90e6-d701748f0851"
	exampleObservation  = "d4e5f6a7-b8c9-0123-defa-234567890123"
	exampleTransmission = "TXN-2026-08842"
	exampleAPIKey       = "0b9c5a52-7a3e-4a57-9d55-0d6a3f0a9f11"
	exampleImport       = "3f2c8a51-9f0e-4f6e-8f0d-2b7f4f1f6c11"
)

// examplePatient stores Jane Doe under the id of the examples, which the database would not give her.
func (s *system) examplePatient() {
	s.tb.Helper()
	jane, err := json.Marshal(db.Demographics{
		FirstName:   "Jane",
		LastName:    "Doe",
		DateOfBirth: time.Date(1957, 3, 21, 0, 0, 0, 0, time.UTC),
		MRN:         "ECW-10042",
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	keys := keyringtest.Shared()
	place := keyring.Cell{Table: "patients", Column: "demographics", Practice: practice, Row: examplePatient}
	sealed, err := keys.Seal(place, jane)
	if err != nil {
		s.tb.Fatal(err)
	}
	index := keys.Index("patients.mrn", practice, "ECW-10042")
	s.exec("INSERT INTO patients (id, practice_code, demographics, mrn_index_a, mrn_index_b) VALUES ($1, $2, $3, $4, $5)",
		examplePatient, practice, sealed, index.A, index.B)
	s.link(examplePatient, kevin)
}

// startWithExamples runs a system with the data that the examples name: a linked patient, and a reading whose
// delivery failed once. The EHR refuses everything, so that there is always something to transmit.
func startWithExamples(t *testing.T) *system {
	t.Helper()
	s := startWith(t, setup{watch: peopleOfTheExamples})
	s.fault(`{"kind":"error_503","target":"create","count":1000}`)
	s.examplePatient()

	s.exec(`INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, plain_resource, resource_version, transformed_at)
		VALUES ($1, $2, $3, 'blood_pressure', '2026-02-06T10:29:00Z', 'BP-OMRON-7250', '{"systolic":142,"diastolic":92,"heart_rate":78}', $4, 1, now())`,
		exampleObservation, practice, examplePatient, loadContract(t).example(t, "getFHIRObservation", "200"))

	s.exec(`INSERT INTO transmissions (id, number, practice_code, observation_id, max_attempts, attempt_count, status, error_class, error_message, next_retry_at)
		VALUES (gen_random_uuid(), $1, $2, $3, 6, 1, 'failed', 'unknown', 'eCW connection timeout after 30s', now() + interval '5 minutes')`, exampleTransmission, practice, exampleObservation)

	s.exec(`INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at, finished_at, error_class, error_code)
		SELECT id, 1, 1, now(), now(), 'unknown', 'timeout' FROM transmissions WHERE number = $1`,
		exampleTransmission)

	s.exec(`INSERT INTO api_keys (id, practice_code, name, role, prefix, key_hash, created_by, plain_devices) VALUES ($1, $2, 'device gateway', 'service', 'vtx_3Kd92x', '', 'tests', '{}')`,
		exampleAPIKey, practice)

	s.exec(`INSERT INTO patient_imports (id, practice_code, finished_at) VALUES ($1, $2, now())`, exampleImport, practice)
	return s
}

// peopleOfTheExamples lets the EHR know the patients whom the examples link.
func peopleOfTheExamples(next http.Handler) http.Handler {
	people := map[string]string{
		"ecw-patient-fhir-id-001": `"name":[{"family":"Doe","given":["Jane"]}],"birthDate":"1957-03-21"`,
		"ecw-patient-fhir-id-002": `"name":[{"family":"Chen","given":["Lisa"]}],"birthDate":"1948-11-02"`,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := path.Base(r.URL.Path)
		if people[id] == "" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/fhir+json")
		_, _ = fmt.Fprintf(w, `{"resourceType":"Patient","id":%q,%s}`, id, people[id])
	})
}

// example is an answer as the contract shows it.
func (k contract) example(t *testing.T, operationID, status string) string {
	t.Helper()
	for _, media := range k.operation(t, operationID).Responses.Value(status).Value.Content {
		text, err := json.Marshal(media.Example)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	t.Fatalf("%s has no example for %s", operationID, status)
	return ""
}

// Every example request of the contract succeeds, one after another, on a system with the data that they
// name. The caller checks every answer against the contract.
func TestEveryExampleOfTheContract(t *testing.T) {
	t.Parallel()
	s := startWithExamples(t)
	k := loadContract(t)
	order := slices.Sorted(maps.Keys(k.doc.Paths.Map()))
	slices.SortStableFunc(order, func(a, b string) int { // there is something to cancel when something was started
		return cmp.Compare(strings.Count(a, "/cancel/"), strings.Count(b, "/cancel/"))
	})
	for _, path := range order {
		item := k.doc.Paths.Value(path)
		operations := item.Operations()
		for _, method := range slices.Sorted(maps.Keys(operations)) {
			operation := operations[method]
			if slices.Contains(operation.Tags, "Accounts") { // they need a person with a session and an app: see accounts_test.go
				continue
			}
			target, header := exampleTarget(t, path, slices.Concat(item.Parameters, operation.Parameters))
			for name, body := range exampleBodies(t, operation) {
				t.Run(operation.OperationID+name, func(t *testing.T) {
					// A key stands for one body.
					header := append(header, "Idempotency-Key", operation.OperationID+name)
					var got answer
					eventually(t, "at rest", func() bool { // the example before may have started a delivery
						got = s.in(t).do(method, target, body, header...)
						return got.code() != "in_progress"
					})
					if got.status >= 300 {
						t.Errorf("%s %s %s: %d %s", method, target, body, got.status, clip(string(got.body)))
					}
				})
			}
		}
	}
}

// exampleTarget is the path with the examples of its parameters.
func exampleTarget(t *testing.T, path string, parameters openapi3.Parameters) (target string, header []string) {
	t.Helper()
	query := url.Values{}
	for _, parameter := range parameters {
		p := parameter.Value
		text := fmt.Sprint(p.Example)
		switch {
		case p.Example == nil && p.Required:
			t.Errorf("%s: %s has no example", path, p.Name)
		case p.Example == nil:
		case p.In == openapi3.ParameterInPath:
			path = strings.Replace(path, "{"+p.Name+"}", text, 1)
		case p.In == openapi3.ParameterInQuery:
			query.Set(p.Name, text)
		case p.In == openapi3.ParameterInHeader:
			header = append(header, p.Name, text)
		}
	}

	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path, header
}

// exampleBodies are the bodies that an operation shows, by name; one empty body if it takes none.
func exampleBodies(t *testing.T, operation *openapi3.Operation) map[string]string {
	t.Helper()
	if operation.RequestBody == nil {
		return map[string]string{"": ""}
	}

	bodies := map[string]string{}
	for name, example := range operation.RequestBody.Value.Content["application/json"].Examples {
		text, err := json.Marshal(example.Value.Value)
		if err != nil {
			t.Fatal(err)
		}
		bodies["/"+name] = string(text)
	}

	if len(bodies) == 0 {
		t.Errorf("%s shows no body", operation.OperationID)
	}
	return bodies
}

// The contract and its page need no token, and the page loads nothing from another server.
func TestDocs(t *testing.T) {
	t.Parallel()
	s := start(t, temporal).with("")
	page := s.do("GET", "/docs", "").want(t, http.StatusOK, "")
	if policy := page.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") ||
		strings.Contains(policy, "http") {
		t.Errorf("Content-Security-Policy %q", policy)
	}

	loaded := []string{"/openapi.yaml"}
	for _, quoted := range strings.Split(string(page.body), `"`) {
		if strings.Contains(quoted, "//") {
			t.Errorf("the page names %s", quoted)
		}
		if strings.HasPrefix(quoted, "/") {
			loaded = append(loaded, quoted)
		}
	}

	if len(loaded) < 5 {
		t.Errorf("the page loads %v", loaded)
	}

	for _, path := range loaded {
		for _, encoding := range []string{"gzip", "identity"} {
			got := s.do("GET", path, "", "Accept-Encoding", encoding).want(t, http.StatusOK, "")
			if zipped := got.header.Get("Content-Encoding") == "gzip"; zipped && encoding != "gzip" || len(got.body) == 0 {
				t.Errorf("%s as %s: %d bytes, %v", path, encoding, len(got.body), got.header)
			}
		}
	}

	for _, path := range []string{"/docs/nothing.js", "/docs/embed.go", "/docs/..%2fopenapi.yaml", "/docs/index.html"} {
		s.do("GET", path, "").want(t, http.StatusNotFound, "not_found")
	}
}
