package api_test

import (
	"net/http"
	"testing"
)

// BenchmarkCreateObservation posts new readings one after another: each is one row and one started workflow,
// over HTTP. No worker runs, so that only the API is measured.
func BenchmarkCreateObservation(b *testing.B) {
	s := start(b, aWorker)
	patient := s.patient(kevin)
	for b.Loop() {
		s.do("POST", "/api/v1/observations/", weight(patient)).want(b, http.StatusCreated, "")
	}
}

// BenchmarkRepeatObservation posts a reading that is stored already, as gateways do that lose answers.
func BenchmarkRepeatObservation(b *testing.B) {
	s := start(b, aWorker)
	reading := bloodPressure(s.patient(kevin))
	s.post(reading)
	for b.Loop() {
		s.do("POST", "/api/v1/observations/", reading).want(b, http.StatusOK, "")
	}
}
