package api_test

import (
	"cmp"
	"fmt"
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

// BenchmarkBatch posts batches of 1,000 new readings, with and without a key. No worker runs.
func BenchmarkBatch(b *testing.B) {
	for _, key := range []string{"", "a key"} {
		b.Run(cmp.Or(key, "no key"), func(b *testing.B) {
			s := start(b, aWorker)
			patient := s.patient(kevin)
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				body := batch(weights(patient, 1000))
				b.StartTimer()

				headers := []string{"Idempotency-Key", fmt.Sprint(key, i)}
				if key == "" {
					headers = nil
				}
				s.do("POST", batchPath, body, headers...).want(b, http.StatusOK, "")
			}

			if stored := s.rows("observations"); stored != 1000*b.N {
				b.Fatalf("%d readings are stored, want %d", stored, 1000*b.N)
			}
			b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "readings/s")
		})
	}
}
