package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/workflows"
)

// logged is a transmission as the worker would have recorded it.
type logged struct {
	patient, kind string
	created       string // in UTC
	status        string
	class         string
	retryAt       string
	attempted     string
}

// logged writes rows of the transmission log and returns their ids.
func (s *system) logged(rows ...logged) (ids []string) {
	s.tb.Helper()
	for _, row := range rows {
		var id string
		err := s.conn.QueryRow(s.tb.Context(), `
			WITH o AS (INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, plain_resource, resource_version, transformed_at)
			           VALUES (gen_random_uuid(), $1, $2, $3, now() - random() * interval '1 year', 'SCALE-7', '{"value": 1}', '{}', 1, now()) RETURNING id)
			INSERT INTO transmissions (id, practice_code, observation_id, max_attempts, status, created_at, updated_at, error_class, error_message, next_retry_at, last_attempted_at, ecw_observation_id)
			SELECT $9, $1, o.id, 6, $4::text, $5::text::timestamptz, $5::text::timestamptz, $6::text, $6::text, nullif($7::text, '')::timestamptz, nullif($8::text, '')::timestamptz,
			       CASE WHEN $4::text = 'transmitted' THEN 'obs-1' END
			FROM o RETURNING number`,
			practice, row.patient, row.kind, row.status, row.created, row.class, row.retryAt, row.attempted, uuid.Must(uuid.NewV7())).Scan(&id)
		if err != nil {
			s.tb.Fatal(err)
		}

		ids = append(ids, id)
	}

	return ids
}

func TestTransmissionLog(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("America/New_York") // UTC-5 in February
	if err != nil {
		t.Fatal(err)
	}

	s := startWith(t, setup{missing: temporal, zone: zone})
	jane, john := s.patient(kevin), s.patient(susan)
	ids := s.logged(
		logged{
			patient:   jane,
			kind:      "weight",
			created:   "2026-02-06T04:59:59Z",
			status:    "transmitted",
			attempted: "2026-02-06T05:00:10Z",
		},
		logged{
			patient:   jane,
			kind:      "weight",
			created:   "2026-02-06T05:00:00Z",
			status:    "failed",
			class:     "unknown",
			retryAt:   "2026-02-06T06:30:00Z",
			attempted: "2026-02-06T05:30:00Z",
		},
		logged{
			patient:   john,
			kind:      "weight",
			created:   "2026-02-06T12:00:00Z",
			status:    "failed",
			class:     "permanent_data",
			attempted: "2026-02-06T12:00:01Z",
		},
		logged{
			patient:   john,
			kind:      "blood_pressure",
			created:   "2026-02-07T04:59:59Z",
			status:    "failed",
			class:     "retryable",
			retryAt:   "2026-02-07T05:30:00Z",
			attempted: "2026-02-07T05:00:30Z",
		},
		logged{
			patient: jane,
			kind:    "temperature",
			created: "2026-02-07T05:00:00Z",
			status:  "processing",
		},
		logged{
			patient: jane,
			kind:    "weight",
			created: "2026-02-08T12:00:00Z",
			status:  "pending",
		},
	)
	for query, want := range map[string][]int{ // the rows in their order
		"":                        {5, 4, 3, 2, 1, 0},
		"status=failed":           {3, 2, 1},
		"status=pending":          {5},
		"status=processing":       {4},
		"status=transmitted":      {0},
		"patient_id=" + john:      {3, 2},
		"observation_type=weight": {5, 2, 1, 0},
		"date_from=2026-02-06":    {5, 4, 3, 2, 1}, // midnight in New York
		"date_to=2026-02-06":      {3, 2, 1, 0},    // the whole day
		"date_from=2026-02-07":    {5, 4},
		"status=failed&date_from=2026-02-06&date_to=2026-02-06":       {3, 2, 1},
		"date_from=2026-02-06T05:00:00Z&date_to=2026-02-06T12:00:01Z": {2, 1},
		"date_from=" + url.QueryEscape("2026-02-06T00:00:00-05:00"):   {5, 4, 3, 2, 1},
		"date_from=2030-01-01":                                          {},
		"patient_id=d4e5f6a7-b8c9-0123-defa-234567890123":               {},
		"status=failed&patient_id=" + john + "&observation_type=weight": {2},
		"ordering=created_at":                                           {0, 1, 2, 3, 4, 5},
		"ordering=-created_at":                                          {5, 4, 3, 2, 1, 0},
		"ordering=last_attempted_at":                                    {0, 1, 2, 3, 4, 5}, // those without one at the end
		"ordering=-last_attempted_at":                                   {3, 2, 1, 0, 5, 4},
		"ordering=next_retry_at":                                        {1, 3, 0, 2, 4, 5},
		"ordering=-next_retry_at":                                       {3, 1, 5, 4, 2, 0},
		"page=2&page_size=4":                                            {1, 0},
		"page=3&page_size=4":                                            {},
	} {
		t.Run(query, func(t *testing.T) {
			got := s.in(t).do("GET", "/api/v1/fhir/transmissions/?"+query, "").want(t, http.StatusOK, "")
			listed := []string{}
			results, _ := got.get("results").([]any)
			for i := range results {
				listed = append(listed, got.text("results", i, "id"))
			}

			wanted := []string{}
			for _, i := range want {
				wanted = append(wanted, ids[i])
			}

			if !slices.Equal(listed, wanted) {
				t.Errorf("got %v, want %v", listed, wanted)
			}
			if !strings.Contains(query, "page") && got.get("count") != number(fmt.Sprint(len(want))) {
				t.Errorf("the count is %v", got.get("count"))
			}
		})
	}

	for _, query := range []string{
		"status=delivered", "patient_id=jane", "observation_type=mood", "date_from=06.02.2026", "date_to=2026-13-01", "date_from=2026-02-06T05:00:00+01:00",
		"ordering=name", "page=0", "page_size=1000", "date_from=%zz", "status=%00",
	} {
		t.Run(query, func(t *testing.T) {
			if got := s.in(t).do("GET", "/api/v1/fhir/transmissions/?"+query, ""); got.status != http.StatusBadRequest {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}

	// The links keep the filters.
	first := s.do("GET", "/api/v1/fhir/transmissions/?status=failed&page_size=2&date_from=2026-02-06", "").want(t, http.StatusOK, "")
	next, _ := strings.CutPrefix(first.text("next"), s.base)
	if second := s.do("GET", next, "").want(t, http.StatusOK, ""); second.text("results", 0, "id") != ids[1] || second.get("next") != nil {
		t.Errorf("%s leads to %s", next, second.body)
	}
}

// The members of a line of the log, and of one transmission with its deliveries.
func TestTransmissionInDetail(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	s.fault(`{"kind":"reset_after","target":"create"}`)
	observation := s.post(weight(patient))
	waiting := s.await(observation, "failed")
	eventually(t, "taken", func() bool { return s.transmit(observation).status == http.StatusOK })
	s.await(observation, "transmitted")
	id := waiting.text("transmission", "id")

	line := s.do("GET", "/api/v1/fhir/transmissions/", "").want(t, http.StatusOK, "").part("results", 0)
	members := []string{
		"attempt_count", "created_at", "ecw_observation_id", "ecw_patient_id", "error_class", "error_message", "first_attempted_at", "http_status", "id",
		"last_attempted_at", "max_attempts", "next_retry_at", "observation_id", "observation_type", "patient_id", "patient_name", "status", "workflow_url",
	}
	if !slices.Equal(line.keys(), members) {
		t.Errorf("the members are %v", line.keys())
	}

	ui := "http://temporal.test/namespaces/default/workflows/" + url.PathEscape("transmission/"+observation)
	for member, want := range map[string]any{
		"id": id, "observation_id": observation, "patient_id": patient, "patient_name": "Jane Doe", "status": "transmitted", "observation_type": "weight", "workflow_url": ui,
		"attempt_count": number("2"), "max_attempts": number("3"), "error_message": nil, "error_class": nil, "next_retry_at": nil, "http_status": number("200"),
		"ecw_patient_id": kevin,
	} {
		if line.get(member) != want {
			t.Errorf("%s is %v, want %v", member, line.get(member), want)
		}
	}

	detail := s.do("GET", "/api/v1/fhir/transmissions/"+id+"/", "").want(t, http.StatusOK, "")
	if want := append([]string{"attempt_count", "attempts"}, members[1:]...); !slices.Equal(detail.keys(), want) {
		t.Errorf("the members are %v", detail.keys())
	}

	attempts, _ := detail.get("attempts").([]any)
	if len(attempts) != 2 {
		t.Fatalf("%d attempts: %s", len(attempts), detail.body)
	}

	for i, want := range []map[string]any{
		{"number": number("1"), "http_status": nil, "ecw_observation_id": nil, "error_class": "unknown"},
		{"number": number("2"), "http_status": number("200"), "ecw_observation_id": line.get("ecw_observation_id"), "error_class": nil, "error_message": nil, "error_code": nil},
	} {
		made := detail.part("attempts", i)
		members := []string{
			"duration_ms", "ecw_observation_id", "ecw_patient_id", "error_class", "error_code", "error_message",
			"finished_at", "http_status", "number", "started_at",
		}
		if !slices.Equal(made.keys(), members) {
			t.Errorf("an attempt has the members %v", made.keys())
		}

		for member, value := range want {
			if made.get(member) != value {
				t.Errorf("attempt %d: %s is %v, want %v", i+1, member, made.get(member), value)
			}
		}

		took, _ := made.get("duration_ms").(json.Number).Int64()
		if at(t, made, "finished_at").Sub(at(t, made, "started_at")).Milliseconds() != took || took < 0 {
			t.Errorf("attempt %d took %d ms: %s", i+1, took, made.body)
		}
	}

	// The Sync Status tab has the same pushes, the newest first.
	tab := s.do("GET", "/api/v1/patients/"+patient+"/sync-status/", "").want(t, http.StatusOK, "")
	if tab.get("count") != number("2") || tab.get("results", 0, "http_status") != number("200") ||
		tab.get("results", 1, "http_status") != nil ||
		tab.text("results", 0, "ecw_observation_id") != line.text("ecw_observation_id") ||
		tab.text("results", 1, "error_message") == "" || tab.text("results", 0, "transmission_id") != id ||
		tab.text("results", 1, "observation_id") != observation || tab.text("results", 0, "workflow_url") != ui {
		t.Errorf("the tab shows %s", tab.body)
	}

	if paged := s.do("GET", "/api/v1/patients/"+patient+"/sync-status/?page=2&page_size=1", "").want(t, http.StatusOK, ""); paged.get("results", 0, "http_status") != nil || paged.get("next") != nil {
		t.Errorf("the second page shows %s", paged.body)
	}

	if empty := s.do("GET", "/api/v1/patients/"+s.patient(susan)+"/sync-status/", "").want(t, http.StatusOK, ""); string(empty.part("results").body) != "[]" {
		t.Errorf("a patient without pushes: %s", empty.body)
	}

	s.do("GET", "/api/v1/patients/"+uuid.NewString()+"/sync-status/", "").want(t, http.StatusNotFound, "not_found")
}

func TestTransmissionIDs(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	s.exec("SELECT setval('transmission_numbers', 99998)")
	patient := s.patient(kevin)
	year := time.Now().UTC().Format("2006")
	for _, number := range []string{"99999", "100000"} {
		done := s.await(s.post(weight(patient)), "transmitted")
		id := done.text("transmission", "id")
		if id != "TXN-"+year+"-"+number {
			t.Errorf("the id is %s", id)
		}
		s.do("GET", "/api/v1/fhir/transmissions/"+id, "").want(t, http.StatusOK, "")
	}

	if first := s.do("GET", "/api/v1/fhir/transmissions/?ordering=created_at", "").text("results", 0, "id"); !strings.HasSuffix(first, "-99999") {
		t.Errorf("the first is %s", first)
	}

	for _, id := range []string{"TXN-2026-00042", "TXN-1", "nobody", "%00", "%ff", "TXN-2026-%00", "' OR 1=1--"} {
		if got := s.do("GET", "/api/v1/fhir/transmissions/"+strings.ReplaceAll(id, " ", "%20")+"/", ""); got.status != http.StatusNotFound && got.status != http.StatusBadRequest {
			t.Errorf("%s: got %d %s", id, got.status, got.body)
		}
	}
}

// A wrong link is corrected. Readings in the former chart are listed; later ones are not.
func TestReadingsInAFormerChartAreListed(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	before := s.post(weight(patient))
	s.await(before, "transmitted")
	const former = "/api/v1/fhir/transmissions/?former_chart=true"
	if listed := s.do("GET", former, "").want(t, http.StatusOK, ""); listed.get("count") != number("0") {
		t.Errorf("before the link is corrected: %s", listed.body)
	}

	s.do("PATCH", "/api/v1/patients/"+patient+"/", `{"external_id": "`+susan+`", "confirm_mismatch": true}`).want(t, http.StatusOK, "")
	after := s.post(weight(patient))
	s.await(after, "transmitted")
	listed := s.do("GET", former, "").want(t, http.StatusOK, "")
	if listed.get("count") != number("1") || listed.text("results", 0, "observation_id") != before {
		t.Errorf("after it is corrected: %s, want %s", listed.body, before)
	}

	detail := s.do("GET", "/api/v1/fhir/transmissions/"+listed.text("results", 0, "id")+"/", "").want(t, http.StatusOK, "")
	if got := detail.text("attempts", 0, "ecw_patient_id"); got != kevin {
		t.Errorf("it was sent to the chart %q, want %q", got, kevin)
	}

	s.exec("DELETE FROM transmission_attempts") // they are pruned
	listed = s.do("GET", former, "").want(t, http.StatusOK, "")
	if listed.get("count") != number("1") || listed.text("results", 0, "ecw_patient_id") != kevin {
		t.Errorf("without its attempts: %s, want %s in the chart %s", listed.body, before, kevin)
	}
}

// A restored database has lost a reading, which is sent again. It gets the same id, and is in the chart once,
// although the EHR ignores conditions.
func TestAForgottenReadingThatIsSentAgainIsTheSame(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	s.fault(`{"kind":"store_again","for":"1h"}`)
	patient := s.patient(kevin)
	for name, send := range map[string]func(reading string) string{
		"alone": func(reading string) string { return s.post(reading) },
		"in a batch": func(reading string) string {
			return s.do("POST", batchPath, `{"observations":[`+reading+`]}`).want(t, http.StatusOK, "").text("results", 0, "id")
		},
	} {
		reading := weight(patient)
		first := s.post(reading)
		s.await(first, "transmitted")
		s.runs(first) // its workflow has ended: a running one would deliver the reading that is sent again
		s.exec("DELETE FROM transmissions")
		s.exec("DELETE FROM observations")
		again := send(reading)
		if again != first {
			t.Errorf("%s: sent again it is %s, was %s", name, again, first)
		}

		s.await(again, "transmitted")
		if stored, received := s.inChart(again); stored != 1 || received != 1 {
			t.Errorf("%s: the EHR holds it %d times, after %d creates", name, stored, received)
		}
	}
}

// A person cancels, in the Temporal Web UI or through the API. The API shows it, and transmit starts again.
func TestACancelledTransmissionIsShown(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cancel func(s *system, id string)
		says   string
	}{
		"in the Web UI": {func(s *system, id string) {
			workflow := workflows.TransmissionWorkflowID(uuid.MustParse(id))
			if err := s.temporal.SignalWorkflow(s.tb.Context(), workflow, "", workflows.SignalCancel, nil); err != nil {
				s.tb.Fatal(err)
			}
		}, "Cancelled by a person"},
		"through the API": {func(s *system, id string) {
			got := s.as(account.DataMonitor).do("POST", "/api/v1/fhir/observations/"+id+"/cancel/", "").want(s.tb, http.StatusAccepted, "")
			if got.text("fhir_status") != "failed" || !strings.HasPrefix(got.text("transmission_id"), "TXN-") {
				s.tb.Errorf("it answers %s", got.body)
			}
		}, "Cancelled by tests"},
	} {
		t.Run(name, func(t *testing.T) { testCancelled(t, test.cancel, test.says) })
	}
}

func testCancelled(t *testing.T, cancel func(s *system, id string), says string) {
	t.Parallel()
	s := start(t, nothing)
	s.fault(`{"kind":"reset_after","target":"create"}`)
	id := s.post(weight(s.patient(kevin)))
	first := s.await(id, "failed").text("transmission", "id")
	cancel(s, id)

	eventually(t, "cancelled", func() bool { return s.observation(id).text("transmission", "error_class") == "cancelled" })
	got := s.do("GET", "/api/v1/fhir/transmissions/"+first+"/", "").want(t, http.StatusOK, "")
	if got.text("status") != "failed" || got.get("next_retry_at") != nil || got.text("error_message") != says ||
		got.text("attempts", 0, "error_class") != "unknown" || got.get("attempts", 1) != nil {
		t.Errorf("it is shown as %s", got.body)
	}

	eventually(t, "nothing is left to cancel", func() bool {
		return s.do("POST", "/api/v1/fhir/observations/"+id+"/cancel/", "").text("code") == "nothing_to_cancel"
	})
	var second string
	eventually(t, "started anew", func() bool { // the workflow ends a moment after it recorded that
		answered := s.transmit(id)
		second = answered.text("transmission_id")
		return answered.status == http.StatusOK
	})
	if done := s.await(id, "transmitted"); done.text("transmission", "id") != second || second == first ||
		done.get("transmission", "attempt_count") != number("1") {
		t.Errorf("afterwards: %s", done.body)
	}
}
