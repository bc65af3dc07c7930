package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/account"
)

// makeKey makes an API key, and returns its id and a caller who uses it.
func (s *system) makeKey(body string) (id string, c caller) {
	s.tb.Helper()
	made := s.do("POST", "/api/v1/api-keys/", body).want(s.tb, http.StatusCreated, "")
	return made.text("id"), s.with(made.text("key"))
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	id, gateway := s.makeKey(`{"name":"gateway"}`)
	gateway.do("POST", "/api/v1/observations/", bloodPressure(patient)).want(t, http.StatusCreated, "")
	gateway.do("GET", "/api/v1/patients/", "").want(t, http.StatusForbidden, "forbidden") // a service, by default

	shown := s.do("GET", "/api/v1/api-keys/"+id+"/", "").want(t, http.StatusOK, "")
	if shown.text("name") != "gateway" || shown.text("role") != "service" || shown.text("created_by") != "tests" ||
		!strings.HasPrefix(gateway.token, shown.text("prefix")) || strings.Contains(string(shown.body), gateway.token) {
		t.Errorf("it is shown as %s", shown.body)
	}
	eventually(t, "its use to be noted", func() bool { return s.do("GET", "/api/v1/api-keys/"+id+"/", "").get("last_used_at") != nil })

	var stored int
	err := s.conn.QueryRow(t.Context(), `SELECT count(*) FROM api_keys k WHERE k::text LIKE '%' || $1 || '%'`, gateway.token[8:]).Scan(&stored)
	if err != nil || stored > 0 {
		t.Errorf("the key itself is stored (%v)", err)
	}

	revoked := s.do("DELETE", "/api/v1/api-keys/"+id+"/", "").want(t, http.StatusOK, "")
	gateway.do("POST", "/api/v1/observations/", bloodPressure(patient)).want(t, http.StatusUnauthorized, "invalid_token")
	again := s.do("DELETE", "/api/v1/api-keys/"+id+"/", "").want(t, http.StatusOK, "")
	if at := revoked.text("revoked_at"); at == "" || again.text("revoked_at") != at || revoked.text("revoked_by") != "tests" {
		t.Errorf("revoked: %s, then %s", revoked.body, again.body)
	}
	if all := s.do("GET", "/api/v1/api-keys/", "").want(t, http.StatusOK, ""); all.text("results", 0, "id") != id {
		t.Errorf("the list is %s", all.body)
	}
}

func TestAPIKeysThatAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	id, nurse := s.makeKey(`{"name":"tablet","role":"nurse"}`)
	nurse.do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "")

	s.with(nurse.token[:len(nurse.token)-1]).do("GET", "/api/v1/patients/", "").want(t, http.StatusUnauthorized, "invalid_token")
	_, other := s.makeKey(`{"name":"other"}`)
	s.exec(`UPDATE api_keys SET practice_code = 'OTHER' WHERE name = 'other'`)
	other.do("GET", "/api/v1/fhir/status/", "").want(t, http.StatusUnauthorized, "invalid_token")
	_, late := s.makeKey(fmt.Sprintf(`{"name":"late","role":"nurse","expires_at":%q}`, time.Now().Add(time.Hour).Format(time.RFC3339)))
	s.exec(`UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE name = 'late'`)
	late.do("GET", "/api/v1/patients/", "").want(t, http.StatusUnauthorized, "invalid_token")

	// Another process revokes it: this one notices within seconds.
	s.exec(`UPDATE api_keys SET revoked_at = now(), revoked_by = 'local' WHERE id = $1`, id)
	eventually(t, "the revoked key to be refused", func() bool {
		return nurse.do("GET", "/api/v1/patients/", "").code() == "invalid_token"
	})
}

func TestBadAPIKeys(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	for body, field := range map[string]string{
		`{}`:                               "name",
		`{"name":""}`:                      "name",
		`{"name":"   "}`:                   "name",
		`{"name":7}`:                       "name",
		`{"name":"x","role":"root"}`:       "role",
		`{"name":"x","role":"patient"}`:    "role",
		`{"name":"x","devices":["*"]}`:     "devices",
		`{"name":"x","devices":["A*B"]}`:   "devices",
		`{"name":"x","devices":"SCALE-7"}`: "devices",
		`{"name":"x","devices":["S"],"role":"data_monitor"}`: "devices",
		`{"name":"x","expires_at":"2020-01-01T00:00:00Z"}`:   "expires_at",
		`{"name":"x","expires_at":"tomorrow"}`:               "expires_at",
		`{"name":"x","key":"vtx_mine"}`:                      "key",
		`{"name":"x\u0000"}`:                                 "name",
		`{"name":"x","devices":["S\u0000"]}`:                 "devices[0]",
	} {
		got := s.do("POST", "/api/v1/api-keys/", body).want(t, http.StatusBadRequest, "invalid")
		if got.text("fields", 0, "field") != field {
			t.Errorf("%s: %s, want the field %s", body, got.body, field)
		}
	}
	if n := s.rows("api_keys"); n != 0 {
		t.Errorf("%d are stored", n)
	}
}

func TestADeniedTokenIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	stolen := s.with(s.sign(t, claims{"jti": "stolen"}))
	stolen.do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "")
	s.do("POST", "/api/v1/tokens/revoke/", `{"jti":"stolen","reason":"it stood in a log"}`).want(t, http.StatusNoContent, "")
	stolen.do("GET", "/api/v1/patients/", "").want(t, http.StatusUnauthorized, "invalid_token")
	s.do("POST", "/api/v1/tokens/revoke/", `{"jti":"stolen","reason":"again"}`).want(t, http.StatusNoContent, "")
	s.do("GET", "/api/v1/patients/", "").want(t, http.StatusOK, "")

	// Another process denies one: this one notices within seconds.
	other := s.with(s.sign(t, claims{"jti": "other"}))
	s.exec(`INSERT INTO denied_tokens VALUES ($1, 'other', now() + interval '1 hour', now(), 'local', 'tests')`, practice)
	eventually(t, "the denied token to be refused", func() bool {
		return other.do("GET", "/api/v1/patients/", "").code() == "invalid_token"
	})
	for _, bad := range []string{`{"jti":"x\u0000","reason":"y"}`, `{"jti":"x","reason":"y\u0000"}`, `{"jti":"x","reason":" "}`} {
		s.do("POST", "/api/v1/tokens/revoke/", bad).want(t, http.StatusBadRequest, "invalid")
	}
	s.as(account.Nurse).do("POST", "/api/v1/tokens/revoke/", `{"jti":"x","reason":"y"}`).want(t, http.StatusForbidden, "forbidden")
}

// When the table of denied tokens stalls, nobody waits for the look of somebody else.
func TestNobodyWaitsForAnotherLook(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	machines := account.NewMachines(s.store, practice, s.log.logger())
	s.exec("BEGIN")
	s.exec("LOCK TABLE denied_tokens IN ACCESS EXCLUSIVE MODE")

	patient, giveUp := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { _, _ = machines.IsDenied(patient, "one") })
	eventually(t, "the first look stalled", func() bool {
		var waiting int
		row := s.conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'denied_tokens'::regclass")
		return row.Scan(&waiting) == nil && waiting == 1
	})

	hasty, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	started := time.Now()
	if _, err := machines.IsDenied(hasty, "two"); err == nil || time.Since(started) > 4*time.Second {
		t.Errorf("it took %s: %v", time.Since(started), err)
	}
	giveUp()
	group.Wait()
	s.exec("ROLLBACK")
}
