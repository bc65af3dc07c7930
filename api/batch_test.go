package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const batchPath = "/api/v1/observations/batch/"

// weights are n readings of a patient, each at a time of its own.
func weights(patientID string, n int) []string {
	readings := make([]string, n)
	for i := range readings {
		readings[i] = weight(patientID)
	}
	return readings
}

func batch(readings []string) string { return `{"observations":[` + strings.Join(readings, ",") + `]}` }

// A batch of 1,000: the valid readings reach the chart once each, and the others are refused, each with its
// reason.
func TestBatchOfAThousand(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	const valid = 20 // each of these runs a workflow, which takes time
	good := weights(patient, valid)
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	broken := []struct{ reading, code, field string }{
		{strings.Replace(weight(patient), "81.60", "900", 1), "invalid", "values.value"},
		{strings.Replace(weight(patient), `"kg"`, `"stone"`, 1), "invalid", "values.unit"},
		{strings.Replace(weight(patient), "weight", "mood", 1), "invalid", "observation_type"},
		{strings.Replace(weight(patient), "2026-02-06T", "06.02.2026 ", 1), "invalid", "effective_at"},
		{`{"patient_id":"` + patient + `","observation_type":"weight","effective_at":"` + future + `","device":"SCALE-7","values":{"value":81.60,"unit":"kg"}}`, "invalid", "effective_at"},
		{weight("d4e5f6a7-b8c9-0123-defa-234567890123"), "invalid", "patient_id"},
		{weight("nobody"), "invalid", "patient_id"},
		{strings.Replace(weight(patient), `"device"`, `"devise"`, 1), "invalid", "devise"},
		{`"a text"`, "malformed_json", ""},
		{`null`, "malformed_json", ""},
		{`[]`, "malformed_json", ""},
		{`{}`, "invalid", "patient_id"},
	}

	readings, codes := slices.Clone(good), make([]int, valid)
	for i := valid; i < 1000; i++ {
		readings, codes = append(readings, broken[i%len(broken)].reading), append(codes, i%len(broken))
	}

	started := time.Now()
	got := s.do("POST", batchPath, batch(readings)).want(t, http.StatusOK, "")
	t.Logf("answered after %s", time.Since(started))
	if got.get("created") != number(fmt.Sprint(valid)) || got.get("existing") != number("0") ||
		got.get("rejected") != number(fmt.Sprint(1000-valid)) {
		t.Errorf("created %v, existing %v, rejected %v", got.get("created"), got.get("existing"), got.get("rejected"))
	}

	var items struct {
		Results []struct {
			Index, Status int
			ID            *string
			Error         *struct {
				Detail, Code string
				Fields       []struct{ Field, Message string }
			}
		}
	}
	if err := json.Unmarshal(got.body, &items); err != nil || len(items.Results) != 1000 {
		t.Fatalf("%d results: %v", len(items.Results), err)
	}

	for i, item := range items.Results {
		if item.Index != i {
			t.Fatalf("result %d has the index %d", i, item.Index)
		}
		if i < valid {
			if item.Status != http.StatusCreated || item.ID == nil || item.Error != nil {
				t.Errorf("item %d: %+v", i, item)
			}
			continue
		}

		want := broken[codes[i]]
		if item.Status != http.StatusBadRequest || item.ID != nil || item.Error == nil || item.Error.Code != want.code ||
			item.Error.Detail == "" {
			t.Fatalf("item %d, %s: %+v", i, want.reading, item.Error)
		}

		if named := slices.ContainsFunc(item.Error.Fields, func(f struct{ Field, Message string }) bool { return f.Field == want.field }); !named && want.field != "" {
			t.Errorf("%s: the fields named are %v, want %s", want.reading, item.Error.Fields, want.field)
		}
	}

	if n := s.rows("observations"); n != valid {
		t.Errorf("%d readings are stored, want %d", n, valid)
	}

	s.awaitDelivered(valid)

	again := s.do("POST", batchPath, batch(readings)).want(t, http.StatusOK, "")
	if again.get("created") != number("0") || again.get("existing") != number(fmt.Sprint(valid)) ||
		again.text("results", 0, "id") != *items.Results[0].ID {
		t.Errorf("again: created %v, existing %v", again.get("created"), again.get("existing"))
	}

	if n := s.rows("transmissions"); n != valid {
		t.Errorf("%d transmissions, want %d", n, valid)
	}
}

// awaitDelivered waits until n readings are in the EHR, each once, and are recorded as delivered.
func (s *system) awaitDelivered(n int) {
	s.tb.Helper()
	eventually(s.tb, "delivered", func() bool {
		var delivered int
		if err := s.conn.QueryRow(s.tb.Context(), "SELECT count(*) FROM transmissions WHERE status = 'transmitted'").Scan(&delivered); err != nil {
			s.tb.Fatal(err)
		}
		return delivered == n
	})

	stats := s.stats()
	for id, times := range stats.Creates.Stored {
		if times != 1 {
			s.tb.Errorf("%s stands in the chart %d times", id, times)
		}
	}

	if len(stats.Creates.Stored) != n {
		s.tb.Errorf("the chart holds %d readings, want %d", len(stats.Creates.Stored), n)
	}
}

func TestBatchOfTheWrongSize(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	for name, body := range map[string]string{
		"none": batch(nil), "null": `{"observations":null}`, "missing": `{}`, "1001": batch(weights(patient, 1001)), "no list": `{"observations":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got := s.in(t).do("POST", batchPath, body).want(t, http.StatusBadRequest, "invalid")
			if fields := got.fields(); !slices.Contains(fields, "observations") {
				t.Errorf("the fields named are %v", fields)
			}
		})
	}

	if s.rows("observations") != 0 {
		t.Error("something was stored")
	}
}

// While Temporal is away a batch is still stored.
func TestBatchWhileTemporalIsDown(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	got := s.do("POST", batchPath, batch(weights(s.patient(kevin), 3))).want(t, http.StatusOK, "")
	if got.get("created") != number("3") || s.rows("observations") != 3 {
		t.Errorf("got %s", got.body)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	post := func(key, body string) answer {
		return s.do("POST", "/api/v1/observations/", body, "Idempotency-Key", key)
	}

	one, other := weight(patient), weight(patient)
	first := post("key-1", one).want(t, http.StatusCreated, "")
	if again := post("key-1", one).want(t, http.StatusOK, ""); again.text("id") != first.text("id") {
		t.Errorf("the same request again gave %s", again.body)
	}

	post("key-1", other).want(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	if again := post("key-2", one).want(t, http.StatusOK, ""); again.text("id") != first.text("id") {
		t.Errorf("the same reading with another key gave %s", again.body)
	}

	post("key-3", strings.Replace(other, "81.60", "900", 1)).want(t, http.StatusBadRequest, "invalid")
	post("key-3", other).want(t, http.StatusCreated, "") // a refused request took no key
	for name, key := range map[string]string{"too long": strings.Repeat("k", 201), "not UTF-8": "key-\xff"} {
		t.Run(name, func(t *testing.T) {
			s.in(t).do("POST", "/api/v1/observations/", weight(patient), "Idempotency-Key", key).want(t, http.StatusBadRequest, "invalid")
		})
	}

	readings := weights(patient, 2)
	post2 := func(key string, readings ...string) answer {
		return s.do("POST", batchPath, batch(readings), "Idempotency-Key", key).want(t, http.StatusOK, "")
	}

	created := post2("batch-1", readings...)
	if again := post2("batch-1", readings...); again.get("existing") != number("2") ||
		again.text("results", 1, "id") != created.text("results", 1, "id") {
		t.Errorf("the same batch again gave %s", again.body)
	}

	mixed := post2("batch-1", readings[0], weight(patient))
	if mixed.get("existing") != number("1") || mixed.get("results", 1, "status") != number("422") ||
		mixed.text("results", 1, "error", "code") != "idempotency_key_reused" {
		t.Errorf("another batch with its key gave %s", mixed.body)
	}

	// A single request may have any key, also one that looks like an item's.
	post("batch-1#0", weight(patient)).want(t, http.StatusCreated, "")
	post("batch-2#0", weight(patient)).want(t, http.StatusCreated, "")
	if created := post2("batch-2", weight(patient)); created.get("created") != number("1") {
		t.Errorf("a batch beside a request of a like key gave %s", created.body)
	}

	if n := s.rows("observations"); n != 7 {
		t.Errorf("%d readings are stored, want 7", n)
	}
}

// Gateways that count their requests use the same keys. None of them takes another one's key, alone or in a batch.
func TestIdempotencyKeysAreTheirSenders(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	_, one := s.makeKey(`{"name":"one"}`)
	_, two := s.makeKey(`{"name":"two"}`)
	for _, gateway := range []caller{one, two} {
		reading, readings := weight(patient), weights(patient, 2)
		post := func(status int) answer {
			return gateway.do("POST", "/api/v1/observations/", reading, "Idempotency-Key", "1").want(t, status, "")
		}
		if first := post(http.StatusCreated); post(http.StatusOK).text("id") != first.text("id") {
			t.Errorf("the same request again does not give %s", first.body)
		}
		for _, field := range []string{"created", "existing"} {
			got := gateway.do("POST", batchPath, batch(readings), "Idempotency-Key", "2").want(t, http.StatusOK, "")
			if got.get(field) != number("2") {
				t.Errorf("got %s, want 2 %s", got.body, field)
			}
		}
		gateway.do("POST", "/api/v1/observations/", weight(patient), "Idempotency-Key", "1").
			want(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	}
}

// Of several requests with one key at the same time, one is stored. The others get the same reading, or 422
// when their body differs.
func TestIdempotencyKeyAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	const senders = 12
	for name, sameBody := range map[string]bool{"the same body": true, "other bodies": false} {
		t.Run(name, func(t *testing.T) {
			before := s.rows("observations")
			readings := weights(patient, senders)
			answers := make([]answer, senders)
			var group sync.WaitGroup
			for i := range senders {
				body := readings[0]
				if !sameBody {
					body = readings[i]
				}
				group.Go(func() { answers[i] = s.in(t).do("POST", "/api/v1/observations/", body, "Idempotency-Key", name) })
			}

			group.Wait()
			count := map[int]int{}
			for _, a := range answers {
				count[a.status]++
			}

			want := map[int]int{http.StatusCreated: 1, http.StatusOK: senders - 1}
			if !sameBody {
				want = map[int]int{http.StatusCreated: 1, http.StatusUnprocessableEntity: senders - 1}
			}
			if fmt.Sprint(count) != fmt.Sprint(want) || s.rows("observations")-before != 1 {
				t.Errorf("answered %v, want %v; %d readings were stored", count, want, s.rows("observations")-before)
			}
		})
	}
}

// Two people change different fields of a patient at the same time. Both changes are kept.
func TestTwoPatchesAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := "/api/v1/patients/" + s.patient("") + "/"
	fields := []string{"phone", "first_name", "last_name", "mrn"}
	for round := range 10 {
		var group sync.WaitGroup
		for _, field := range fields {
			group.Go(func() {
				s.do("PATCH", patient, fmt.Sprintf(`{%q:"Round %d"}`, field, round)).want(t, http.StatusOK, "")
			})
		}

		group.Wait()
		got := s.do("GET", patient, "")
		for _, field := range fields {
			if got.text(field) != fmt.Sprintf("Round %d", round) {
				t.Fatalf("round %d: %s was undone: %s", round, field, got.body)
			}
		}
	}
}

// The database goes away and comes back while the API runs. Requests get 503 meanwhile, and nothing needs a
// restart.
func TestDatabaseGoesAndComesBack(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	var name string
	if err := s.conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}

	from := s.conn.Config().Copy() // the database cannot be closed from within
	from.Database = "postgres"
	admin, err := pgx.ConnectConfig(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	alter := func(allow string) {
		if _, err := admin.Exec(t.Context(), "ALTER DATABASE "+name+" WITH ALLOW_CONNECTIONS "+allow); err != nil {
			t.Fatal(err)
		}
	}

	alter("false")
	s.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	reading := weight(patient)
	for _, request := range [][3]string{
		{"POST", "/api/v1/observations/", reading}, {"GET", "/api/v1/patients/", ""}, {"PATCH", "/api/v1/patients/" + patient, `{}`},
		{"GET", "/api/v1/fhir/transmissions/", ""}, {"GET", "/api/v1/fhir/status/", ""}, {"POST", importPath, `{"ecw_patient_ids":["x"]}`},
		{"POST", batchPath, batch([]string{reading, reading})},
	} {
		s.do(request[0], request[1], request[2]).want(t, http.StatusServiceUnavailable, "database_unavailable")
	}

	alter("true")
	s.post(reading)
}
