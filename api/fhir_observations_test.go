package api_test

import (
	"bytes"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/workflows"
)

// The example "Get FHIR Observation" of the API reference, every field and every number as written there.
func TestGetFHIRObservationIsTheExample(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	before := time.Now()
	created := s.do("POST", "/api/v1/observations/", bloodPressure(patient)).want(t, http.StatusCreated, "")
	id := created.text("id")
	if location := created.header.Get("Location"); uuid.Validate(id) != nil || location != "/api/v1/observations/"+id+"/" {
		t.Fatalf("id %q, Location %q", id, location)
	}

	stored := s.await(id, "transmitted")

	got := s.do("GET", "/api/v1/fhir/observations/"+id+"/", "").want(t, http.StatusOK, "")
	if media := got.header.Get("Content-Type"); media != "application/fhir+json" {
		t.Errorf("Content-Type %q", media)
	}

	updated, err := time.Parse(time.RFC3339, got.text("meta", "lastUpdated"))
	if err != nil || updated.Before(before.Truncate(time.Second)) || updated.After(time.Now()) {
		t.Errorf("meta.lastUpdated %q: %v", got.text("meta", "lastUpdated"), err)
	}

	example, err := os.ReadFile("../fhir/testdata/observation.json")
	if err != nil {
		t.Fatal(err)
	}

	want := strings.NewReplacer(
		"d4e5f6a7-b8c9-0123-defa-234567890123", id,
		"d290f1ee-6c54-4b01-90e6-d701748f0851", patient,
		"2026-02-06T10:30:05Z", got.text("meta", "lastUpdated"),
	).Replace(string(example))
	if !reflect.DeepEqual(got.get(), answer{body: []byte(want)}.get()) { // numbers are compared as text
		t.Errorf("got  %s\nwant %s", got.body, want)
	}

	if stored.text("transmission", "id") == "" || stored.text("transmission", "ecw_observation_id") == "" ||
		stored.get("transmission", "attempt_count") != number("1") {
		t.Errorf("the delivered observation: %s", stored.body)
	}

	if n, _ := s.inChart(id); n != 1 {
		t.Errorf("the EHR holds it %d times", n)
	}

	for _, action := range []string{"transmit", "transform"} {
		s.do("POST", "/api/v1/fhir/observations/"+id+"/"+action+"/", "").want(t, http.StatusConflict, "already_transmitted")
	}

	if !strings.Contains(s.log.text(), "Pushed Observation to eCW") {
		t.Error("the log does not show the delivery, so it proves nothing about privacy either")
	}
}

func TestAReadingIsShownAsItWasSent(t *testing.T) {
	t.Parallel()
	s := start(t, aWorker)
	patient := s.patient(kevin)
	id := s.post(`{"patient_id":"` + patient + `","observation_type":"weight","effective_at":"2026-02-06T05:30:00.25-05:00","device":"SCALE-7","values":{"unit":"lb","value":180.50}}`)
	got := s.observation(id)
	want := []string{"created_at", "device", "effective_at", "fhir_status", "held_reason", "id", "observation_type", "patient_id", "transformed_at", "transmission", "values"}
	if !slices.Equal(got.keys(), want) {
		t.Errorf("members %v, want %v", got.keys(), want)
	}

	for _, field := range []string{"fhir_status", "transmission", "transformed_at"} {
		if got.get(field) != nil {
			t.Errorf("%s is %v before anything happened", field, got.get(field))
		}
	}

	if !bytes.Contains(got.body, []byte(`180.50`)) || got.text("values", "unit") != "lb" {
		t.Errorf("values %s: the precision or the unit is lost", got.body)
	}

	if at := got.text("effective_at"); at != "2026-02-06T10:30:00.25Z" {
		t.Errorf("effective_at %s is not the same moment in UTC", at)
	}
}

func TestTransmitBeforeTransform(t *testing.T) {
	t.Parallel()
	s := start(t, aWorker)
	id := s.post(bloodPressure(s.patient(kevin)))
	got := s.transmit(id).want(t, http.StatusBadRequest, "not_transformed")
	const documented = `{"detail":"Observation has not been transformed to FHIR format yet.","code":"not_transformed"}`
	if strings.TrimSpace(string(got.body)) != documented {
		t.Errorf("got %s, want %s", got.body, documented)
	}
	s.do("GET", "/api/v1/fhir/observations/"+id+"/", "").want(t, http.StatusNotFound, "not_transformed")
}

func TestTransmitWhileADeliveryIsInProgress(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	s.fault(`{"kind":"slow","target":"create","delay":"2s"}`)
	id := s.post(bloodPressure(s.patient(kevin)))
	s.await(id, "processing")
	for _, action := range []string{"transmit", "transform"} {
		s.do("POST", "/api/v1/fhir/observations/"+id+"/"+action+"/", "").want(t, http.StatusConflict, "in_progress")
	}

	s.await(id, "transmitted")
	if stored, received := s.inChart(id); stored != 1 || received != 1 {
		t.Errorf("the EHR holds it %d times, after %d creates", stored, received)
	}
}

// After a failed delivery a workflow waits for its retry. transform and transmit act on that workflow, and
// start no other.
func TestTransmitEndsTheWait(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	s.fault(`{"kind":"reset_after","target":"create"}`)
	id := s.post(bloodPressure(s.patient(kevin)))
	waiting := s.await(id, "failed")
	if next, err := time.Parse(time.RFC3339, waiting.text("transmission", "next_retry_at")); err != nil ||
		time.Until(next) < 4*time.Minute {
		t.Fatalf("next_retry_at is not the schedule's: %s", waiting.body)
	}

	if waiting.text("transmission", "error_class") != "unknown" || waiting.get("transmission", "http_status") != nil {
		t.Errorf("the failure is not explained: %s", waiting.body)
	}

	var transformed answer
	eventually(t, "waiting", func() bool { // the failure is recorded a moment before the workflow begins to wait
		transformed = s.do("POST", "/api/v1/fhir/observations/"+id+"/transform/", "")
		return transformed.code() != "in_progress"
	})

	transformed.want(t, http.StatusOK, "")
	s.wantDocumented(transformed, map[string]any{
		"observation_id": id, "fhir_status": "pending", "transformed_at": transformed.text("transformed_at"),
		"message": "Observation transformed to FHIR R4 format. Queued for transmission.",
	})
	if _, err := time.Parse(time.RFC3339, transformed.text("transformed_at")); err != nil {
		t.Error(err)
	}

	if version := s.do("GET", "/api/v1/fhir/observations/"+id+"/", "").text("meta", "versionId"); version != "2" {
		t.Errorf("the resource has version %q after a second transform", version)
	}

	transmissionID := waiting.text("transmission", "id")
	s.wantDocumented(s.transmit(id).want(t, http.StatusOK, ""), map[string]any{
		"observation_id": id, "fhir_status": "processing", "transmission_id": transmissionID, "message": "Transmission initiated to eClinicalWorks.",
	})

	done := s.await(id, "transmitted")
	if done.text("transmission", "id") != transmissionID || done.get("transmission", "attempt_count") != number("2") {
		t.Errorf("another transmission delivered it: %s", done.body)
	}

	if runs := s.runs(id); runs != 1 {
		t.Errorf("%d workflows ran, want one", runs)
	}

	if n, _ := s.inChart(id); n != 1 {
		t.Errorf("the EHR holds it %d times", n)
	}
}

func TestTransmitAfterAPermanentFailure(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient("")
	id := s.post(bloodPressure(patient))
	failed := s.await(id, "failed")
	if failed.text("transmission", "error_class") != "permanent_data" || failed.get("transmission", "next_retry_at") != nil {
		t.Fatalf("not permanent: %s", failed.body)
	}

	if message := failed.text("transmission", "error_message"); !strings.Contains(message, "external_id") {
		t.Errorf("%q does not name the remedy", message)
	}

	first := failed.text("transmission", "id")

	s.do("PATCH", "/api/v1/patients/"+patient+"/", `{"external_id":"`+kevin+`","confirm_mismatch":true}`).want(t, http.StatusOK, "")
	var again answer
	eventually(t, "closed", func() bool { // the failure is recorded a moment before the workflow ends
		again = s.transmit(id)
		return again.code() != "in_progress"
	})

	second := again.want(t, http.StatusOK, "").text("transmission_id")
	if second == first || !strings.HasPrefix(second, "TXN-") {
		t.Errorf("transmission %q after %q", second, first)
	}

	if done := s.await(id, "transmitted"); done.text("transmission", "id") != second {
		t.Errorf("another transmission delivered it: %s", done.body)
	}

	if n, _ := s.inChart(id); n != 1 {
		t.Errorf("the EHR holds it %d times", n)
	}
}

// wantDocumented compares an answer with the API reference's example: these members with these values, and no
// others.
func (s *system) wantDocumented(got answer, want map[string]any) {
	s.tb.Helper()
	if !reflect.DeepEqual(got.get(), any(want)) {
		s.tb.Errorf("got  %s\nwant %v", got.body, want)
	}
}

// runs counts the executions of an observation's workflow, after the last of them has closed.
func (s *system) runs(observationID string) (n int) {
	s.tb.Helper()
	id := workflows.TransmissionWorkflowID(uuid.MustParse(observationID))
	if err := s.temporal.GetWorkflow(s.tb.Context(), id, "").Get(s.tb.Context(), nil); err != nil {
		s.tb.Fatal(err)
	}

	count := func(query string) int {
		list, err := s.temporal.ListWorkflow(s.tb.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		if err != nil {
			s.tb.Fatal(err)
		}
		return len(list.GetExecutions())
	}

	query := "WorkflowId = '" + id + "'"
	eventually(s.tb, "listed", func() bool { return count(query+" AND ExecutionStatus = 'Completed'") > 0 })
	return count(query)
}
