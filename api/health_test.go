package api_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestReadyz(t *testing.T) {
	t.Parallel()
	t.Run("everything runs", func(t *testing.T) {
		t.Parallel()
		start(t, aWorker).wantReadiness(http.StatusOK, "ready", "ok", "ok")
	})

	t.Run("Temporal is down", func(t *testing.T) {
		t.Parallel()
		start(t, temporal).wantReadiness(http.StatusOK, "degraded", "ok", "unavailable")
	})

	t.Run("Temporal hangs", func(t *testing.T) {
		t.Parallel()
		start(t, anAnswer).wantReadiness(http.StatusOK, "degraded", "ok", "unavailable")
	})

	t.Run("the database is closed", func(t *testing.T) {
		t.Parallel()
		s := start(t, aWorker)
		s.store.Close()
		s.wantReadiness(http.StatusServiceUnavailable, "unavailable", "unavailable", "ok")
	})

	t.Run("both are down", func(t *testing.T) {
		t.Parallel()
		s := start(t, temporal)
		s.store.Close()
		s.wantReadiness(http.StatusServiceUnavailable, "unavailable", "unavailable", "unavailable")
	})

	t.Run("the schema is old", func(t *testing.T) {
		t.Parallel()
		s := start(t, aWorker)
		if _, err := s.conn.Exec(t.Context(), "DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)"); err != nil {
			t.Fatal(err)
		}
		s.wantReadiness(http.StatusServiceUnavailable, "unavailable", "migrations pending", "ok")
		got := s.do("GET", "/api/v1/patients/", "").want(t, http.StatusServiceUnavailable, "database_unavailable")
		if !strings.Contains(got.text("detail"), "vantrexia migrate") {
			t.Errorf("no remedy in %q", got.text("detail"))
		}
	})
}

// wantReadiness checks the answers that an orchestrator gets, without a token. /healthz is good even when a
// server is down.
func (s *system) wantReadiness(code int, status, database, temporal string) {
	s.tb.Helper()
	anybody := s.with("")
	var last answer
	s.tb.Cleanup(func() {
		if s.tb.Failed() {
			s.tb.Logf("the last answer was %d %s", last.status, last.body)
		}
	})

	eventually(s.tb, status, func() bool { // a busy machine may miss the probe's short time once
		last = anybody.do("GET", "/readyz", "")
		return last.status == code && last.text("status") == status && last.text("database") == database &&
			last.text("temporal") == temporal
	})
	if got := anybody.do("GET", "/healthz", "").want(s.tb, http.StatusOK, ""); got.text("status") != "ok" {
		s.tb.Errorf("/healthz: %s", got.body)
	}
}

// A reading is stored while Temporal is down: the scheduled sweep starts it later.
func TestTemporalDown(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	id := s.post(bloodPressure(patient))
	if s.rows("observations") != 1 || s.observation(id).text("id") != id {
		t.Error("the reading is not stored")
	}

	s.do("POST", "/api/v1/observations/", bloodPressure(patient)).want(t, http.StatusOK, "")

	s.do("POST", "/api/v1/fhir/observations/"+id+"/transform/", "").want(t, http.StatusServiceUnavailable, "temporal_unavailable")
	if _, err := s.conn.Exec(t.Context(), "UPDATE observations SET plain_resource = '{}', resource_version = 1, transformed_at = now()"); err != nil {
		t.Fatal(err)
	}

	s.transmit(id).want(t, http.StatusServiceUnavailable, "temporal_unavailable")
}

// An unexpected error, here from a pool that is closed while requests come: the sender must not believe that
// anything was stored, and must not see internal details.
func TestInternalError(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	s.store.Close()
	s.mayFail = true
	got := s.do("POST", "/api/v1/observations/", bloodPressure(patient)).want(t, http.StatusInternalServerError, "internal")
	if strings.Contains(got.text("detail"), "pool") || !strings.Contains(got.text("detail"), "again") {
		t.Errorf("%q", got.text("detail"))
	}
	if !strings.Contains(s.log.text(), `"msg":"request failed"`) {
		t.Error("the log does not show the error")
	}
}
