package canary_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.temporal.io/sdk/client"
)

// elsewhere is where the EHR redirects to.
const elsewhere = "http://192.0.2.1/" + lastName + "/?patient=" + firstName + "&birthdate=1931-07-10"

// broken are the faults of one request, in the order of their use. After each a reading goes through, so that
// the circuit stays closed.
func broken() []fault {
	return []fault{
		{"kind": "error_500"}, {"kind": "error_502"}, {"kind": "error_503", "retry_after": "1s"}, {"kind": "error_504"},
		{"kind": "html"}, {"kind": "redirect", "location": elsewhere},
		{"kind": "ecw_number", "number": "2"}, {"kind": "ecw_number", "number": "100"}, {"kind": "ecw_number", "number": "108"},
		{"kind": "ecw_number", "number": "613"},
		{"kind": "forbidden"}, {"kind": "unauthorized"}, {"kind": "throttle", "retry_after": "1s"},
		{"kind": "reset_before"}, {"kind": "reset_after"}, {"kind": "malformed_json"}, {"kind": "truncated"}, {"kind": "no_id"},
		{"kind": "duplicate"}, {"kind": "large_body"}, {"kind": "wrong_type"},
		{"kind": "reject_if_none_exist"}, {"kind": "ignore_if_none_exist"}, {"kind": "store_again"}, {"kind": "drop_identifier"},
	}
}

// deliveries fail in every way that the sandbox can play.
func (s *system) deliveries(t *testing.T, admin caller) {
	c := admin.in(t)
	p := somebody(5)
	id := c.patient(p, p.FHIRID, nil).want(http.StatusCreated).text("id")
	refused := "" // one that is not sent again by itself
	for n, f := range broken() {
		f["target"] = "create"
		s.admin(t, "POST", "faults", f)
		reading := c.send(id, "weight", value(fmt.Sprintf("%s%02d", weight, n), "kg"))
		c.awaitSettled(reading) // or it would take the next fault
		if c.status(reading) == "failed" {
			refused = reading
		}
		c.awaitStatus(c.send(id, "heart_rate", value(heartRate, "bpm")), "transmitted")
	}
	s.heal(t)

	// Looking up what may have been stored goes wrong too.
	s.fault(t, "slow", "create", fault{"delay": "9s"}) // longer than ECW_TIMEOUT
	slow := c.send(id, "weight", value(weight, "kg"))
	s.awaitTaken(t, "slow")
	for _, search := range []string{"empty_search", "strict_search", "refuse_identifier", "ignore_identifier", "error_500",
		"malformed_json", "html"} {
		s.fault(t, search, "search", fault{"count": 2})
		s.fault(t, "reset_after", "create", nil)
		one := c.send(id, "weight", value(weight, "kg"))
		s.awaitTaken(t, "reset_after")
		c.awaitStatus(one, "transmitted", "failed")
		s.heal(t)
		c.awaitSettled(one)
		c.awaitStatus(c.send(id, "heart_rate", value(heartRate, "bpm")), "transmitted")
	}

	c.awaitSettled(slow)

	// One that a person cancels, one for which the patient is linked elsewhere before it is sent to that
	// chart, and one that waits until the end.
	cancelled, moved := c.waiting(id), c.waiting(id)
	c.waiting(id)
	c.do("POST", "/api/v1/fhir/observations/"+cancelled+"/cancel/", nil).want(http.StatusAccepted)
	relink := map[string]any{"external_id": somebody(0).FHIRID, "confirm_mismatch": true}
	c.do("PATCH", "/api/v1/patients/"+id+"/", relink).want(http.StatusOK)
	c.do("POST", "/api/v1/fhir/observations/"+moved+"/transmit/", nil).want(http.StatusOK)
	c.awaitStatus(moved, "transmitted")
	c.do("PATCH", "/api/v1/patients/"+id+"/", map[string]any{"external_id": p.FHIRID}).want(http.StatusOK)

	c.do("POST", "/api/v1/fhir/observations/"+refused+"/transmit/", nil).want(http.StatusOK)
	c.awaitStatus(refused, "transmitted")
	c.do("GET", "/api/v1/fhir/transmissions/?page_size=100", nil).want(http.StatusOK)
}

// awaitSettled waits until a reading is transmitted, or is not sent again.
func (c caller) awaitSettled(id string) {
	c.t.Helper()
	c.sweeping("the reading "+id+" has settled", func() bool {
		got := c.do("GET", "/api/v1/observations/"+id+"/", nil)
		return got.text("transmission", "status") == "transmitted" || got.text("transmission",
			"status") == "failed" && got.text("transmission", "next_retry_at") == ""
	})
}

// waiting is a reading that has failed three times, and is tried again in an hour.
func (c caller) waiting(patient string) (id string) {
	c.t.Helper()
	s := c.system
	s.fault(c.t, "error_503", "create", fault{"count": 3})
	id = c.send(patient, "weight", value(weight, "kg"))
	s.await(c.t, "the reading "+id+" has failed three times", func() bool {
		now := c.do("GET", "/api/v1/observations/"+id+"/", nil)
		if now.text("transmission", "status") == "transmitted" {
			c.t.Fatalf("another reading has taken a fault: %s", now.body)
		}
		return now.text("transmission", "attempt_count") == "3"
	})
	c.awaitStatus(id, "failed")
	c.awaitStatus(c.send(patient, "heart_rate", value(heartRate, "bpm")), "transmitted") // the circuit stays closed
	return id
}

// tokens: the token endpoint fails.
func (s *system) tokens(t *testing.T, admin caller) {
	c := admin.in(t)
	for _, f := range []fault{
		{"kind": "token_down"}, {"kind": "access_denied"}, {"kind": "narrow_scope"}, {"kind": "no_expires_in"},
		{"kind": "unauthorized"}, {"kind": "forbidden"},
		{"kind": "throttle", "retry_after": "1s"}, {"kind": "error_500"}, {"kind": "html"}, {"kind": "malformed_json"},
		{"kind": "truncated"}, {"kind": "wrong_type"},
		{"kind": "redirect", "location": elsewhere}, {"kind": "large_body"}, {"kind": "reset_before"},
	} {
		f["target"] = "token"
		s.admin(t, "POST", "faults", f)
		c.do("POST", "/api/v1/ecw/test/jwt/", nil).want(http.StatusOK, http.StatusBadGateway, http.StatusServiceUnavailable)
		c.do("POST", "/api/v1/ecw/test/connection/", nil).want(http.StatusOK, http.StatusBadGateway, http.StatusServiceUnavailable)
	}
	s.heal(t)
}

// links: the EHR fails, or shows somebody else, while a patient is linked or imported.
func (s *system) links(t *testing.T, admin caller) {
	c := admin.in(t)
	p, q := somebody(6), somebody(7)
	for _, f := range []fault{
		{"kind": "error_500"}, {"kind": "error_502"}, {"kind": "error_503", "retry_after": "1s"}, {"kind": "html"}, {"kind": "redirect",
			"location": elsewhere}, {"kind": "forbidden"},
		{"kind": "malformed_json"}, {"kind": "truncated"}, {"kind": "wrong_type"}, {"kind": "large_body"}, {"kind": "reset_before"},
		{"kind": "throttle", "retry_after": "1s"},
		{"kind": "other_person"},
	} {
		f["target"] = "read"
		s.admin(t, "POST", "faults", f)
		c.patient(p, p.FHIRID, nil).
			want(http.StatusServiceUnavailable, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusCreated, http.StatusTooManyRequests)
		s.heal(t)
	}

	c.importing(p.FHIRID, q.FHIRID, nobody)
	c.importing(p.FHIRID)
	for _, f := range []fault{
		{"kind": "refuse_id_list"}, {"kind": "ignore_id_list"}, {"kind": "hide_patients"}, {"kind": "small_pages"},
		{"kind": "error_503"}, {"kind": "html"}, {"kind": "malformed_json"},
	} {
		f["target"] = "search"
		s.admin(t, "POST", "faults", f)
		c.do("GET", "/api/v1/ecw/patients/?search="+lastName, nil)
		s.admin(t, "POST", "faults", f)
		c.importing(everybody()...)
		s.heal(t)
	}
	s.fault(t, "malformed_json", "read", nil)
	c.importing(p.FHIRID)
	s.heal(t)

	// A chart is merged: the EHR shows another person under the id.
	merged := somebody(8)
	merged.FHIRID, merged.MRN = q.FHIRID, q.MRN
	s.putInEHR(t, merged)
	c.importing(q.FHIRID)
	id := c.do("GET", "/api/v1/patients/?external_id="+q.FHIRID, nil).want(http.StatusOK).found()
	held := c.send(id, "weight", value(weight, "kg"))
	c.do("POST", "/api/v1/fhir/observations/"+held+"/transmit/", nil).want(http.StatusConflict, http.StatusBadRequest)
	c.do("GET", "/api/v1/patients/?mismatch=true", nil).want(http.StatusOK)
	c.do("PATCH", "/api/v1/patients/"+id+"/", map[string]any{"phone": phone + "11"}).want(http.StatusOK, http.StatusConflict)
	s.putInEHR(t, q)
	c.importing(q.FHIRID)
}

// imported is how many people are imported together; the others are made by hand later.
const imported = 9

// everybody are the ids of all who are imported, and one that there is not.
func everybody() (ids []string) {
	for n := range imported {
		ids = append(ids, somebody(n).FHIRID)
	}
	return append(ids, nobody)
}

// found is the id of the first result of a list.
func (a answer) found() string {
	a.t.Helper()
	_, after, found := strings.Cut(a.body, `"results":[{"id":"`)
	if !found {
		a.t.Fatalf("%s found nobody: %s", a.what, a.body)
	}
	id, _, _ := strings.Cut(after, `"`)
	return id
}

// importing imports patients, and waits for the end.
func (c caller) importing(ids ...string) {
	c.t.Helper()
	got := c.do("POST", "/api/v1/patients/import_selected_from_ecw/", map[string]any{"ecw_patient_ids": ids}).
		want(http.StatusOK, http.StatusAccepted)
	if got.status == http.StatusOK {
		return
	}
	path := "/api/v1/patients/imports/" + got.text("id") + "/"
	c.system.await(c.t, "the import has finished", func() bool { return c.do("GET", path, nil).text("status") == "finished" })
}

// schedules run now: the sweep, the daily import of everybody, the deletion of what is old.
func (s *system) schedules(t *testing.T, admin caller) {
	admin.in(t).do("POST", "/api/v1/fhir/process-pending/", nil).want(http.StatusOK, http.StatusAccepted)
	list, err := s.raw.ScheduleClient().List(t.Context(), client.ScheduleListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	started := 0
	for list.HasNext() {
		entry, err := list.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.raw.ScheduleClient().GetHandle(t.Context(), entry.ID).Trigger(t.Context(), client.ScheduleTriggerOptions{}); err != nil {
			t.Fatal(err)
		}
		started++
	}
	if started < 3 {
		t.Fatalf("there are %d schedules", started)
	}
}

// bundles: the other way of writing, and what can go wrong with it.
func (s *system) bundles(t *testing.T, admin caller) {
	s.serve(t, "ECW_WRITE_MODE=bundle")
	c := admin.in(t)
	p := somebody(9)
	id := c.patient(p, p.FHIRID, nil).want(http.StatusCreated).text("id")
	for n, f := range []fault{
		{"kind": "standard_status"}, {"kind": "ecw_number", "number": "612"}, {"kind": "ignore_if_none_exist"}, {"kind": "no_id"},
		{"kind": "error_500"}, {"kind": "html"},
	} {
		f["target"] = "create"
		s.admin(t, "POST", "faults", f)
		c.awaitStatus(c.send(id, "weight", value(fmt.Sprintf("%s%02d", weight, n), "kg")), "transmitted", "failed")
		c.awaitStatus(c.send(id, "heart_rate", value(heartRate, "bpm")), "transmitted")
	}
}

// outages: the database and Temporal are away for a moment.
func (s *system) outages(t *testing.T, admin caller) {
	c := admin.in(t)
	p := somebody(10)
	id := c.patient(p, p.FHIRID, nil).want(http.StatusCreated).text("id")
	other := c.patient(somebody(11), "", nil).want(http.StatusCreated).text("id")
	body := map[string]any{
		"patient_id": id, "observation_type": "weight", "effective_at": s.nextTime(), "device": device + "-1", "values": value(weight, "kg"),
	}

	s.fault(t, "slow_after", "create", fault{"delay": "1s"})
	underWay := c.send(id, "weight", value(weight, "kg")) // its outcome cannot be stored at first
	if err := s.postgres.Stop(); err != nil {
		t.Fatal(err)
	}
	s.keepLog(t, "log of PostgreSQL", "postgres/log")
	c.do("POST", "/api/v1/observations/", body, "Idempotency-Key", idempotencyKey).
		want(http.StatusServiceUnavailable, http.StatusInternalServerError)
	c.patient(somebody(11), "", nil).want(http.StatusServiceUnavailable, http.StatusInternalServerError)
	c.do("GET", "/api/v1/patients/?search="+lastName, nil).want(http.StatusServiceUnavailable, http.StatusInternalServerError)
	s.caller(t, "").do("POST", "/api/v1/auth/login/", login(userEmail, password)).
		want(http.StatusServiceUnavailable, http.StatusInternalServerError)
	s.startPostgres(t)
	s.await(t, "vantrexia serve is ready again", func() bool { return s.reaches(s.url("api") + "/readyz") })
	c.awaitStatus(underWay, "transmitted", "failed")

	if err := s.temporal.Kill(); err != nil { // a stop takes its time
		t.Fatal(err)
	}
	s.keepLog(t, "log of Temporal", "temporal/temporal.log")
	waiting := c.send(id, "weight", value(weight, "kg"))
	c.do("PATCH", "/api/v1/patients/"+other+"/", map[string]any{"last_name": lastName + "again"}).want(http.StatusOK)
	c.do("POST", "/api/v1/patients/import_selected_from_ecw/", map[string]any{"ecw_patient_ids": []string{p.FHIRID}}).
		want(http.StatusServiceUnavailable)
	c.do("POST", "/api/v1/fhir/observations/"+waiting+"/transmit/", nil).
		want(http.StatusServiceUnavailable, http.StatusConflict, http.StatusBadRequest)
	s.startTemporal(t)
	s.await(t, "Temporal is reached again", func() bool {
		return c.do("POST", "/api/v1/fhir/process-pending/", nil).status < 300 && c.status(waiting) == "transmitted"
	})
}

// secretOfTheApp: the app is one with a secret, which the EHR does not take.
func (s *system) secretOfTheApp(t *testing.T, admin caller) {
	s.serve(t, "ECW_APP_TYPE=confidential_client", "ECW_CLIENT_SECRET="+clientSecret)
	c := admin.in(t)
	c.do("POST", "/api/v1/ecw/test/jwt/", nil)
	c.do("POST", "/api/v1/ecw/test/connection/", nil)
	id := c.do("GET", "/api/v1/patients/?external_id="+somebody(5).FHIRID, nil).want(http.StatusOK).found()
	c.awaitStatus(c.send(id, "weight", value(weight, "kg")), "failed", "pending")
	c.patient(somebody(3), somebody(3).FHIRID, nil)
}

// withoutNames: who sees deliveries and no patients is shown no names, and neither is somebody who has not
// signed in.
func (s *system) withoutNames(t *testing.T, _ caller) {
	token, ok := s.command(t, "", nil, "token", "--role", "data_monitor")
	if !ok {
		t.Fatal("vantrexia token failed")
	}
	s.secretToken("token of the command line", token)
	monitor, anybody := s.caller(t, token), s.caller(t, "")
	log := monitor.do("GET", "/api/v1/fhir/transmissions/?page_size=100", nil).want(http.StatusOK)
	answers := []answer{
		log, monitor.do("GET", "/api/v1/fhir/transmissions/"+log.found()+"/", nil).want(http.StatusOK), monitor.do("GET",
			"/api/v1/fhir/status/", nil).want(http.StatusOK),
		anybody.do("GET", "/readyz", nil), anybody.do("GET", "/healthz", nil), anybody.do("GET", "/.well-known/jwks.json", nil),
	}
	for _, a := range answers {
		s.said.add(utterance{place: "answer without names to " + a.what, answer: a.body})
	}
}
