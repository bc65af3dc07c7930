package api_test

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// documented is a request of the two documents that Vantrexia is built after, the integration tutorial and
// the API reference, with the answer that they show, if any.
type documented struct {
	operation           string // in the contract
	method, path, body  string
	status              int
	answer              string
	answerIsForAnError  bool // which the walk does not provoke
	waitsForTheDelivery bool
}

// Every curl and every JSON of the documents, word by word.
func theDocuments() []documented {
	const observation = "/api/v1/fhir/observations/d4e5f6a7-b8c9-0123-defa-234567890123/"
	return []documented{
		// Tutorial, step 4.
		{
			operation: "getJWKS",
			method:    "GET",
			path:      "/.well-known/jwks.json",
			status:    200,
			answer:    `{"keys":[{"kty":"RSA","kid":"vantrexia-ecw-key-1","use":"sig","alg":"RS384","n":"0vx7agoebGcQSuuPiLJXZpt...","e":"AQAB"}]}`,
		},
		// Step 6.
		{operation: "testJWT", method: "POST", path: "/api/v1/ecw/test/jwt/", status: 200,
			answer: `{"status":"success","message":"JWT authentication successful",
				"token_endpoint":"https://staging-oauthserver.eclinicalworks.com/oauth/oauth2/token",
				"access_token_preview":"eyJhbGciOiJSUzM4NCIs...truncated","token_type":"bearer","expires_in":3600,
				"scope":"system/Patient.read system/Observation.write system/Observation.read","issued_at":"2026-02-06T12:00:00Z"}`},
		// Step 7.
		{
			operation: "testConnection",
			method:    "POST",
			path:      "/api/v1/ecw/test/connection/",
			status:    200,
			answer: `{"status":"success","fhir_base_url":"https://fhir4.eclinicalworks.com/fhir/r4/FFHEDD","fhir_version":"4.0.1",
				"capabilities":["Patient.read","Observation.read","Observation.write"],"test_patient_count":142,"connection_latency_ms":245}`,
		},
		// Step 8.
		{operation: "listECWPatients", method: "GET", path: "/api/v1/ecw/patients/?page=1&page_size=20", status: 200},
		{
			operation: "importPatients",
			method:    "POST",
			path:      "/api/v1/patients/import_selected_from_ecw/",
			status:    200,
			body: `{
				"ecw_patient_ids": [
				  "ecw-patient-fhir-id-001",
				  "ecw-patient-fhir-id-002",
				  "ecw-patient-fhir-id-003"
				]
			  }`,
			answer: `{"imported":3,"skipped":0,"errors":[],"patients":[
				{"vantrexia_id":"a1b2c3d4-e5f6-7890-abcd-ef1234567890","ecw_fhir_id":"ecw-patient-fhir-id-001","name":"John Smith","mrn":"ECW-10042"},
				{"vantrexia_id":"b2c3d4e5-f6a7-8901-bcde-f12345678901","ecw_fhir_id":"ecw-patient-fhir-id-002","name":"Sarah Johnson","mrn":"ECW-10087"},
				{"vantrexia_id":"c3d4e5f6-a7b8-9012-cdef-123456789012","ecw_fhir_id":"ecw-patient-fhir-id-003","name":"Robert Williams","mrn":"ECW-10103"}]}`,
		},
		// API reference, Process Pending Observations.
		{
			operation: "processPending",
			method:    "POST",
			path:      "/api/v1/fhir/process-pending/",
			status:    200,
			answer: `{"processed":12,"succeeded":10,"failed":2,"details":{"transformed":12,"transmitted":10,"transmission_errors":[
				{"observation_id":"a1b2c3d4-e5f6-7890-abcd-ef1234567890","error":"eCW connection timeout","retry_at":"2026-02-06T15:40:00Z"},
				{"observation_id":"b2c3d4e5-f6a7-8901-bcde-f12345678901","error":"Patient not found in eCW","retry_at":null}]}}`,
		},
		// Get FHIR Observation.
		{
			operation: "getFHIRObservation",
			method:    "GET",
			path:      observation,
			status:    200,
			answer: `{"resourceType":"Observation",
			"id":"d4e5f6a7-b8c9-0123-defa-234567890123",
			"meta":{"versionId":"1","lastUpdated":"2026-02-06T10:30:05Z","profile":["http://hl7.org/fhir/us/core/StructureDefinition/us-core-blood-pressure"]},
			"status":"final",
			"category":[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs","display":"Vital Signs"}]}],
			"code":{"coding":[{"system":"http://loinc.org","code":"85354-9","display":"Blood pressure panel with all children optional"}]},
			"subject":{"reference":"Patient/d290f1ee-6c54-4b01-90e6-d701748f0851","display":"Jane Doe"},
			"effectiveDateTime":"2026-02-06T10:30:00Z","device":{"display":"BP-OMRON-7250"},"component":[
			{"code":{"coding":[{"system":"http://loinc.org","code":"8480-6","display":"Systolic blood pressure"}]},
				"valueQuantity":{"value":142,"unit":"mmHg","system":"http://unitsofmeasure.org","code":"mm[Hg]"}},
			{"code":{"coding":[{"system":"http://loinc.org","code":"8462-4","display":"Diastolic blood pressure"}]},
				"valueQuantity":{"value":92,"unit":"mmHg","system":"http://unitsofmeasure.org","code":"mm[Hg]"}},
			{"code":{"coding":[{"system":"http://loinc.org","code":"8867-4","display":"Heart rate"}]},
				"valueQuantity":{"value":78,"unit":"beats/minute","system":"http://unitsofmeasure.org","code":"/min"}}]}`,
		},
		// Transform Observation.
		{
			operation:           "transformObservation",
			method:              "POST",
			path:                observation + "transform/",
			status:              200,
			waitsForTheDelivery: true,
			answer: `{"observation_id":"d4e5f6a7-b8c9-0123-defa-234567890123","fhir_status":"pending","transformed_at":"2026-02-06T15:30:00Z",
				"message":"Observation transformed to FHIR R4 format. Queued for transmission."}`,
		},
		// Transmit to eClinicalWorks.
		{operation: "transmitObservation", method: "POST", path: observation + "transmit/", status: 200, waitsForTheDelivery: true,
			answer: `{"observation_id":"d4e5f6a7-b8c9-0123-defa-234567890123","fhir_status":"processing","transmission_id":"TXN-2026-08842",
				"message":"Transmission initiated to eClinicalWorks."}`},
		{operation: "transmitObservation", method: "POST", path: observation + "transmit/", status: 400, answerIsForAnError: true,
			answer: `{"detail":"Observation has not been transformed to FHIR format yet.","code":"not_transformed"}`},
		// FHIR Service Status.
		{
			operation: "getStatus",
			method:    "GET",
			path:      "/api/v1/fhir/status/",
			status:    200,
			answer: `{"status":"healthy","ecw_connection":"connected","ecw_last_successful_transmission":"2026-02-06T15:28:00Z",
				"queue":{"pending":8,"processing":2,"failed_awaiting_retry":3},"today_stats":{"transmitted":310,"failed":4,"success_rate":0.987},"uptime":"14d 6h 32m"}`,
		},
		// Transmission Log.
		{
			operation: "listTransmissions",
			method:    "GET",
			path:      "/api/v1/fhir/transmissions/?status=failed&date_from=2026-02-06",
			status:    200,
			answer: `{"count":4,"results":[
				{"id":"TXN-2026-08830","observation_id":"a1b2c3d4-e5f6-7890-abcd-ef1234567890","patient_id":"d290f1ee-6c54-4b01-90e6-d701748f0851",
					"patient_name":"John Davis","status":"failed","error_message":"eCW connection timeout after 30s","attempt_count":3,"max_attempts":5,
					"first_attempted_at":"2026-02-06T14:00:00Z","last_attempted_at":"2026-02-06T14:45:00Z","next_retry_at":"2026-02-06T15:30:00Z",
					"observation_type":"blood_pressure"},
				{"id":"TXN-2026-08832","observation_id":"b2c3d4e5-f6a7-8901-bcde-f12345678901","patient_id":"e3f4a5b6-c7d8-9012-ef34-567890abcdef",
					"patient_name":"Lisa Chen","status":"failed","error_message":"Patient external_id not found in eClinicalWorks","attempt_count":5,"max_attempts":5,
					"first_attempted_at":"2026-02-06T14:02:00Z","last_attempted_at":"2026-02-06T15:20:00Z","next_retry_at":null,"observation_type":"weight"}]}`,
		},
	}
}

// The contract describes what the documents show, and more members of our own.
func TestTheDocumentsKeepToTheContract(t *testing.T) {
	t.Parallel()
	k := loadContract(t)
	for _, d := range theDocuments() {
		t.Run(d.operation+" "+strconv.Itoa(d.status), func(t *testing.T) {
			operation := k.operation(t, d.operation)
			if d.body != "" {
				k.wantValid(t, operation.RequestBody.Value.Content["application/json"], d.body)
			}
			if d.answer != "" {
				for _, media := range operation.Responses.Status(d.status).Value.Content {
					k.wantValid(t, media, d.answer)
				}
			}
		})
	}
}

func (k contract) operation(t *testing.T, id string) *openapi3.Operation {
	t.Helper()
	for _, item := range k.doc.Paths.Map() {
		for _, operation := range item.Operations() {
			if operation.OperationID == id {
				return operation
			}
		}
	}
	t.Fatalf("the contract has no %s", id)
	return nil
}

// wantValid fails the test if the value does not fit the contract. Members may be missing.
func (k contract) wantValid(t *testing.T, media *openapi3.MediaType, text string) {
	t.Helper()
	err := media.Schema.Value.VisitJSON(answer{body: []byte(text)}.get(), openapi3.MultiErrors())
	var found openapi3.MultiError
	if errors.As(err, &found) {
		for _, err := range found {
			var e *openapi3.SchemaError
			if !errors.As(err, &e) || e.SchemaField != "required" {
				t.Error(err)
			}
		}
	}
}

// Every curl of the documents, with host and token changed, is answered in the documented shape.
func TestEveryCurlOfTheDocuments(t *testing.T) {
	t.Parallel()
	s := startWithExamples(t)
	s.exec(`INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
		VALUES (gen_random_uuid(), $1, $2, 'weight', '2026-02-06T10:29:00Z', 'SCALE-7', '{"value":81.6,"unit":"kg"}')`, practice, examplePatient) // to be processed
	for _, d := range theDocuments() {
		if d.answerIsForAnError { // TestTransmitBeforeTransform
			continue
		}

		t.Run(d.operation, func(t *testing.T) {
			// The sandbox has other patients, of whom the examples' Jane Doe is linked to Kevin.
			body := strings.NewReplacer("ecw-patient-fhir-id-001", susan).Replace(d.body)
			var got answer
			eventually(t, "at rest", func() bool {
				got = s.in(t).do(d.method, d.path, body)
				return !d.waitsForTheDelivery || got.code() != "in_progress"
			})

			got.want(t, d.status, "")
			if d.answer != "" {
				for _, path := range missing(answer{body: []byte(d.answer)}.get(), got.get(), "") {
					t.Errorf("the answer has no %s: %s", path, clip(string(got.body)))
				}
			}
		})
	}

	s.with("").do("POST", "/api/v1/fhir/process-pending/", "").want(t, http.StatusUnauthorized, "not_authenticated")
	s.as("provider").do("POST", "/api/v1/fhir/process-pending/", "").want(t, http.StatusForbidden, "forbidden") // "Admin Only"
}

// missing lists the members of one value that another lacks. Of a list, all items are like the first.
func missing(want, got any, path string) (paths []string) {
	switch want := want.(type) {
	case map[string]any:
		object, _ := got.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(want)) {
			value, ok := object[name]
			if !ok {
				paths = append(paths, path+"."+name)
				continue
			}
			paths = append(paths, missing(want[name], value, path+"."+name)...)
		}
	case []any:
		list, _ := got.([]any)
		if len(want) > 0 && len(list) == 0 {
			return []string{path + "[0]"}
		}
		for i := range list {
			if len(want) > 0 {
				paths = append(paths, missing(want[0], list[i], path+"["+strconv.Itoa(i)+"]")...)
			}
		}
	}
	return paths
}
