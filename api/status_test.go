package api_test

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/ecw"
)

const statusPath = "/api/v1/fhir/status/"

func (c caller) status() answer {
	c.tb.Helper()
	return c.do("GET", statusPath, "").want(c.tb, http.StatusOK, "")
}

func TestStatusOfAnIdleService(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	got := s.status()
	s.wantDocumented(got, map[string]any{
		"status": "healthy", "ecw_connection": "connected", "ecw_last_successful_transmission": nil,
		"queue":       map[string]any{"pending": number("0"), "processing": number("0"), "failed_awaiting_retry": number("0"), "held_for_archived_patients": number("0")},
		"today_stats": map[string]any{"transmitted": number("0"), "failed": number("0"), "success_rate": number("1")},
		"circuit":     map[string]any{"state": "closed", "reason": nil, "message": nil, "since": nil, "next_try_at": nil, "held": number("0")},
		"uptime":      got.text("uptime"),
	})
	if form := regexp.MustCompile(`^\d+d \d+h \d+m$`); !form.MatchString(got.text("uptime")) {
		t.Errorf("uptime is %q", got.text("uptime"))
	}
}

func TestStatusCountsWhatHappened(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient, unlinked := s.patient(kevin), s.patient("")
	delivered := s.post(weight(patient))
	s.await(delivered, "transmitted")
	s.await(s.post(weight(unlinked)), "failed") // for good
	s.fault(`{"kind":"error_503","target":"create"}`)
	s.await(s.post(weight(patient)), "failed") // to be tried again: has not ended
	s.fault(`{"kind":"slow","target":"create","delay":"2s"}`)
	s.await(s.post(weight(patient)), "processing")

	got := s.status()
	for path, want := range map[string]any{"pending": number("0"), "processing": number("1"), "failed_awaiting_retry": number("1")} {
		if got.get("queue", path) != want {
			t.Errorf("queue.%s is %v, want %v", path, got.get("queue", path), want)
		}
	}

	for path, want := range map[string]any{"transmitted": number("1"), "failed": number("1"), "success_rate": number("0.5")} {
		if got.get("today_stats", path) != want {
			t.Errorf("today_stats.%s is %v, want %v", path, got.get("today_stats", path), want)
		}
	}

	if last := at(t, got, "ecw_last_successful_transmission"); time.Since(last) > time.Minute || last.Nanosecond() != 0 {
		t.Errorf("the last success was %s", last)
	}

	if got.text("status") != "healthy" { // two of twenty is too few to judge by
		t.Errorf("the service is %s", got.text("status"))
	}
}

// Each rule of the status, by its cause.
func TestStatusRules(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		how    setup
		cause  func(*system)
		want   string
		expect string // of ecw_connection
	}{
		"eCW refuses us":           {setup{ehr: func(c *ecw.Config) { c.ClientID = "another" }}, func(*system) {}, "unhealthy", "disconnected"},
		"eCW is down":              {setup{}, func(s *system) { s.fault(`{"kind":"reset_before","target":"any","for":"1m"}`) }, "unhealthy", "disconnected"},
		"the token server is down": {setup{}, func(s *system) { s.fault(`{"kind":"token_down","for":"1m"}`) }, "unhealthy", "disconnected"},
		"Temporal is down":         {setup{missing: temporal}, func(*system) {}, "unhealthy", "connected"},
		"Temporal hangs":           {setup{missing: anAnswer}, func(*system) {}, "unhealthy", "connected"},
		"a reading that nobody carries": {setup{missing: aWorker}, func(s *system) {
			s.post(weight(s.patient(kevin)))
			s.exec("UPDATE observations SET created_at = now() - interval '11 minutes'")
		}, "degraded", "connected"},
		"a reading that waits a little": {setup{missing: aWorker}, func(s *system) {
			s.post(weight(s.patient(kevin)))
			s.exec("UPDATE observations SET created_at = now() - interval '9 minutes'")
		}, "healthy", "connected"},
		"a transmission stands still": {setup{}, func(s *system) {
			s.logged(logged{
				patient: s.patient(kevin),
				kind:    "weight",
				created: minutesAgo(11),
				status:  "processing",
			})
		}, "degraded", "connected"},
		"a retry is overdue": {setup{}, func(s *system) {
			s.logged(logged{
				patient: s.patient(kevin),
				kind:    "weight",
				created: minutesAgo(60),
				status:  "failed",
				class:   "unknown",
				retryAt: minutesAgo(11),
			})
		}, "degraded", "connected"},
		"a retry is to come": {setup{}, func(s *system) {
			s.logged(logged{
				patient: s.patient(kevin),
				kind:    "weight",
				created: minutesAgo(60),
				status:  "failed",
				class:   "unknown",
				retryAt: minutesAgo(-60),
			})
		}, "healthy", "connected"},
		"2 of 20 failed":  {setup{}, func(s *system) { s.ended(18, 2) }, "degraded", "connected"},
		"1 of 20 failed":  {setup{}, func(s *system) { s.ended(19, 1) }, "healthy", "connected"},
		"10 of 19 failed": {setup{}, func(s *system) { s.ended(9, 10) }, "healthy", "connected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, test.how)
			test.cause(s)
			got := s.status()
			if got.text("status") != test.want || got.text("ecw_connection") != test.expect {
				t.Errorf("got %s", got.body)
			}
		})
	}
}

func minutesAgo(n int) string {
	return time.Now().Add(-time.Duration(n) * time.Minute).UTC().Format(time.RFC3339)
}

// ended logs transmissions that ended just now.
func (s *system) ended(transmitted, failed int) {
	s.tb.Helper()
	patient := s.patient(kevin)
	rows := slices.Repeat([]logged{{patient: patient, kind: "weight", created: minutesAgo(0), status: "transmitted"}}, transmitted)
	rows = append(rows, slices.Repeat([]logged{{
		patient: patient,
		kind:    "weight",
		created: minutesAgo(0),
		status:  "failed",
		class:   "permanent_data",
	}}, failed)...)
	s.logged(rows...)
}

// Today is a day in the practice's time zone.
func TestStatusOfADayInItsZone(t *testing.T) {
	t.Parallel()
	for _, hours := range []int{-11, 0, 13} { // east and west of UTC: at any time of day the midnights differ
		zone := time.FixedZone("", hours*3600)
		s := startWith(t, setup{missing: temporal, zone: zone})
		y, m, d := time.Now().In(zone).Date()
		midnight := time.Date(y, m, d, 0, 0, 0, 0, zone)
		patient := s.patient(kevin)
		s.logged(
			logged{
				patient: patient,
				kind:    "weight",
				created: midnight.Add(-time.Second).UTC().Format(time.RFC3339),
				status:  "transmitted",
			},
			logged{
				patient: patient,
				kind:    "weight",
				created: midnight.UTC().Format(time.RFC3339),
				status:  "transmitted",
			},
			logged{
				patient: patient,
				kind:    "weight",
				created: midnight.UTC().Format(time.RFC3339),
				status:  "failed",
				class:   "permanent_data",
			},
			logged{
				patient: patient,
				kind:    "weight",
				created: midnight.Add(-time.Second).UTC().Format(time.RFC3339),
				status:  "failed",
				class:   "permanent_data",
			},
		)

		got := s.status()
		if got.get("today_stats", "transmitted") != number("1") || got.get("today_stats", "failed") != number("1") {
			t.Errorf("%+d h: %s", hours, got.body)
		}
	}
}

// eCW refuses our key, so no reading can be delivered. The status shows that, and shows when it is over.
func TestStatusShowsTheCircuit(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	if got := s.status(); got.get("circuit", "state") != "closed" || got.get("circuit", "reason") != nil ||
		got.get("circuit", "held") != number("0") {
		t.Errorf("at first: %s", got.body)
	}

	s.fault(`{"kind":"forbidden","target":"create","for":"1h"}`)
	patient := s.patient(kevin)
	first := s.post(weight(patient))
	for range 2 {
		s.post(weight(patient))
	}

	eventually(t, "the circuit to open", func() bool { return s.status().get("circuit", "state") == "open" })
	second := s.post(weight(patient))
	var got answer
	eventually(t, "the next one to be held", func() bool {
		got = s.status()
		return got.get("circuit", "held") == number("1") && got.get("circuit", "next_try_at") != nil
	})
	if got.text("status") != "unhealthy" || got.text("ecw_connection") != "disconnected" ||
		got.get("circuit", "state") != "open" || got.get("circuit", "reason") != "credentials" || got.get("circuit", "since") == nil {
		t.Errorf("while eCW forbids it: %s", got.body)
	}

	if message, _ := got.get("circuit", "message").(string); !strings.Contains(message, "scopes") {
		t.Errorf("the message %q has no remedy", message)
	}

	s.fix()
	eventually(t, "the transmit to be taken", func() bool { return s.transmit(first).status == http.StatusOK })
	s.await(first, "transmitted")
	s.await(second, "transmitted")
	if got := s.status(); got.get("circuit", "state") != "closed" || got.text("status") != "healthy" {
		t.Errorf("when it is fixed: %s", got.body)
	}
}

// A busy status page asks eCW once in 30 seconds.
func TestStatusAsksECWNowAndThen(t *testing.T) {
	t.Parallel()
	s := start(t, aWorker)
	for range 10 {
		s.status()
	}
	if asked := s.stats().Requests["GET metadata"]["200"]; asked != 1 {
		t.Errorf("eCW was asked %d times: %v", asked, s.stats().Requests)
	}
}

// An eCW that hangs delays the status page only for the probe's timeout.
func TestStatusWhileECWHangs(t *testing.T) {
	t.Parallel()
	base := "http://" + silentPort(t, true)
	s := startWith(t, setup{missing: aWorker, ehr: func(c *ecw.Config) { c.TokenURL, c.FHIRBaseURL = base+"/token", base+"/fhir" }})
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	began := time.Now()
	got := s.status()
	if took := time.Since(began); ctx.Err() != nil || took > 10*time.Second || got.text("ecw_connection") != "disconnected" {
		t.Errorf("after %s: %s", took, got.body)
	}
}

func TestProcessPending(t *testing.T) {
	t.Parallel()
	const path = "/api/v1/fhir/process-pending/"
	s := start(t, nothing)
	nothingToDo := map[string]any{
		"processed": number("0"), "succeeded": number("0"), "failed": number("0"),
		"details": map[string]any{"transformed": number("0"), "transmitted": number("0"), "transmission_errors": []any{}},
	}

	s.wantDocumented(s.do("POST", path, "").want(t, http.StatusOK, ""), nothingToDo)
	for _, role := range []account.Role{account.Provider, account.Service} {
		s.as(role).do("POST", path, "").want(t, http.StatusForbidden, "forbidden")
	}

	// One waits for its retry: its own workflow delivers it, not the sweep.
	patient := s.patient(kevin)
	s.fault(`{"kind":"error_503","target":"create"}`)
	waiting := s.post(weight(patient))
	s.await(waiting, "failed")
	s.wantDocumented(s.do("POST", path, "").want(t, http.StatusOK, ""), nothingToDo)

	// Readings whose start was lost, and one whose workflow was lost while it waited: its first failure is an
	// old one.
	stranger := s.patient("") // nothing of this patient is sent, so the fault below hits one of the others
	lost := func(patient string) (id string) {
		err := s.conn.QueryRow(t.Context(), `INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
			VALUES (gen_random_uuid(), $1, $2, 'weight', now() - random() * interval '1 year', 'SCALE-7', '{"value": 81.6, "unit": "kg"}') RETURNING id`, practice, patient).Scan(&id)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}

	lost(patient)
	lost(patient)
	refused := lost(stranger)
	overdue := s.logged(logged{
		patient: patient,
		kind:    "weight",
		created: minutesAgo(60),
		status:  "failed",
		class:   "unknown",
		retryAt: minutesAgo(5),
	})[0]

	s.exec(`UPDATE observations SET reading = NULL, device = 'SCALE-7', measured = '{"value": 81.6, "unit": "kg"}'`)
	s.fault(`{"kind":"error_503","target":"create"}`)

	got := s.do("POST", path, "").want(t, http.StatusOK, "")
	if got.get("processed") != number("4") || got.get("succeeded") != number("2") || got.get("failed") != number("2") ||
		got.get("details", "transformed") != number("4") || got.get("details", "transmitted") != number("2") {
		t.Errorf("got %s", got.body)
	}

	errors, _ := got.get("details", "transmission_errors").([]any)
	if len(errors) != 2 {
		t.Fatalf("%d errors: %s", len(errors), got.body)
	}

	var retries, final int
	for i := range errors {
		e := got.part("details", "transmission_errors", i)
		if want := []string{"error", "observation_id", "retry_at"}; !slices.Equal(e.keys(), want) {
			t.Errorf("an error has the members %v", e.keys())
		}

		if e.get("retry_at") == nil {
			final++
			if e.text("observation_id") != refused || e.text("error") == "" {
				t.Errorf("the refusal is reported as %s", e.body)
			}
			continue
		}

		retries++
		if next := at(t, e, "retry_at"); time.Until(next) < 4*time.Minute {
			t.Errorf("the next try is reported as %s", e.body)
		}
	}

	if retries != 1 || final != 1 {
		t.Errorf("%d to be tried again and %d final: %s", retries, final, got.body)
	}

	if row := s.do("GET", "/api/v1/fhir/transmissions/"+overdue, ""); row.get("attempt_count") == number("0") {
		t.Errorf("the lost one was not taken up: %s", row.body)
	}

	if row := s.observation(waiting); row.get("transmission", "attempt_count") != number("1") || row.text("fhir_status") != "failed" {
		t.Errorf("the waiting one was disturbed: %s", row.body)
	}

	s.wantDocumented(s.do("POST", path, "").want(t, http.StatusOK, ""), nothingToDo)
}

func TestProcessPendingWithoutTemporalOrWorker(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	s.do("POST", "/api/v1/fhir/process-pending/", "").want(t, http.StatusServiceUnavailable, "temporal_unavailable")
}
