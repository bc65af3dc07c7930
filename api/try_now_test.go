package api_test

import (
	"net/http"
	"strings"
	"testing"
)

// A person has corrected what was wrong and tests the connection: what waits for the circuit does not wait
// for its next trial, which would come after 30 seconds at the earliest.
func TestAGoodConnectionTestTriesTheCircuit(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	s.fault(`{"kind":"unauthorized","target":"token","for":"1h"}`)
	patient := s.patient(kevin)
	held := []string{s.post(weight(patient)), s.post(weight(patient))}
	for _, id := range held {
		eventually(t, "held", func() bool { return s.held(id) })
	}

	s.do("POST", "/api/v1/ecw/test/connection/", "").want(t, http.StatusBadGateway, "invalid_client")
	if got := s.do("GET", "/api/v1/fhir/status/", "").text("circuit", "state"); got != "open" {
		t.Fatalf("the circuit is %s after a test that failed", got)
	}

	s.fix()
	got := s.do("POST", "/api/v1/ecw/test/connection/", "").want(t, http.StatusOK, "")
	if note := got.text("note"); !strings.Contains(note, "tried now") {
		t.Errorf("it notes %q, want that a reading is tried", note)
	}

	for _, id := range held {
		s.await(id, "transmitted")
	}

	if note := s.do("POST", "/api/v1/ecw/test/connection/", "").want(t, http.StatusOK, "").get("note"); note != nil {
		t.Errorf("with a closed circuit it notes %q", note)
	}
}

// held reports whether a reading waits for the circuit.
func (s *system) held(id string) (held bool) {
	s.tb.Helper()
	const query = "SELECT EXISTS (SELECT FROM transmissions WHERE observation_id = $1 AND held_at IS NOT NULL)"
	err := s.conn.QueryRow(s.tb.Context(), query, id).Scan(&held)
	if err != nil {
		s.tb.Fatal(err)
	}
	return held
}
