package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// A chunk of a batch is stored in one transaction. These tests have more items than one chunk takes.
const moreThanAChunk = 450

// firstReadings is how many readings stand in the first chunk of mostlyLater.
const firstReadings = 20

// mostlyLater are the items of a batch whose first chunk has few readings, so that a test may wait until they
// are delivered.
func mostlyLater(patientID string) []string {
	none := slices.Repeat([]string{"null"}, 200-firstReadings)
	return slices.Concat(weights(patientID, firstReadings), none, weights(patientID, 800))
}

// itemMark stands between the sender's subject and a key, and between a batch's key and the number of an item.
const itemMark = "\x1f"

// statuses are the results' statuses, in the order of the items.
func (a answer) statuses() (statuses []string) {
	list, _ := a.get("results").([]any)
	for _, item := range list {
		statuses = append(statuses, fmt.Sprint(item.(map[string]any)["status"]))
	}
	return statuses
}

// count is how many results have each status.
func (a answer) count() map[string]int {
	count := map[string]int{}
	for _, status := range a.statuses() {
		count[status]++
	}
	return count
}

// other is the reading with another value.
func other(reading string) string { return strings.Replace(reading, "81.60", "82.10", 1) }

// idOf is the id under which a reading is stored.
func idOf(tb testing.TB, reading string) uuid.UUID {
	tb.Helper()
	var sent struct {
		PatientID       uuid.UUID `json:"patient_id"`
		ObservationType fhir.Type `json:"observation_type"`
		EffectiveAt     time.Time `json:"effective_at"`
		Device          string    `json:"device"`
	}
	if err := json.Unmarshal([]byte(reading), &sent); err != nil {
		tb.Fatal(err)
	}
	return fhir.ReadingID(practice, sent.PatientID, fhir.Reading{
		Type:        sent.ObservationType,
		EffectiveAt: sent.EffectiveAt,
		Device:      sent.Device,
	})
}

// hold stores a reading in a transaction that goes on, as another request does at the same moment.
func (s *system) hold(tb testing.TB, reading string) pgx.Tx {
	tb.Helper()
	tx, err := s.conn.Begin(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}

	_, err = tx.Exec(tb.Context(), `
		INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
		SELECT $3, $2, (r->>'patient_id')::uuid, r->>'observation_type', (r->>'effective_at')::timestamptz, r->>'device',
		       r->'values'
		FROM (SELECT $1::jsonb AS r) sent`, reading, practice, idOf(tb, reading))
	if err != nil {
		tb.Fatal(err)
	}
	return tx
}

// whileBlocked calls do, and then end as soon as do waits for the transaction.
func whileBlocked(tb testing.TB, tx pgx.Tx, do func() answer, end func()) answer {
	tb.Helper()
	answered := make(chan answer, 1)
	go func() { answered <- do() }()
	eventually(tb, "blocked", func() bool { return blocks(tb, tx) })
	end()
	return <-answered
}

func commit(tb testing.TB, tx pgx.Tx) {
	tb.Helper()
	if err := tx.Commit(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

// A reading that stands in a batch several times is stored once: the first one. The others get its id, or 409
// when their values differ.
func TestBatchWithDuplicates(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	for name, key := range map[string]string{"no key": "", "a key": "k"} {
		t.Run(name, func(t *testing.T) {
			c := s.in(t)
			observations, keys := s.rows("observations"), s.rows("idempotency_keys")
			readings := weights(patient, moreThanAChunk)
			first := readings[0]
			readings[1], readings[2], readings[4] = first, other(first), strings.Replace(first, "81.60", "81.6", 1)
			readings[300], readings[301] = other(first), first // in another chunk
			want := slices.Repeat([]string{"201"}, moreThanAChunk)
			want[1], want[2], want[4], want[300], want[301] = "200", "409", "200", "409", "200"

			got := c.do("POST", batchPath, batch(readings), "Idempotency-Key", key).want(t, http.StatusOK, "")
			if !slices.Equal(got.statuses(), want) {
				t.Errorf("got %s, want %s", got.statuses(), want)
			}
			id := got.text("results", 0, "id")
			for _, i := range []int{1, 4, 301} {
				if got.text("results", i, "id") != id {
					t.Errorf("item %d got the id %s, want %s", i, got.text("results", i, "id"), id)
				}
			}
			for _, i := range []int{2, 300} {
				refused := got.part("results", i, "error")
				if refused.code() != "conflicting_reading" || !strings.Contains(refused.text("detail"), id) {
					t.Errorf("item %d: %v, want a conflict with %s", i, got.get("results", i), id)
				}
			}
			if shown := s.observation(id); shown.get("values", "value") != number("81.60") {
				t.Errorf("stored is %s, want the first value", shown.body)
			}

			again := c.do("POST", batchPath, batch(readings), "Idempotency-Key", key).want(t, http.StatusOK, "")
			if fmt.Sprint(again.count()) != fmt.Sprint(map[string]int{"200": moreThanAChunk - 2, "409": 2}) {
				t.Errorf("again: %v", again.count())
			}

			if n := s.rows("observations") - observations; n != moreThanAChunk-5 {
				t.Errorf("%d readings are stored, want %d", n, moreThanAChunk-5)
			}
			if n := s.rows("idempotency_keys") - keys; key != "" && n != moreThanAChunk-2 {
				t.Errorf("%d keys are remembered, want %d", n, moreThanAChunk-2)
			}
		})
	}
}

// Of several batches at the same time each reading is created by one. The others get the stored one, or 422
// when it came under the same key and differs.
func TestBatchesAtOnce(t *testing.T) {
	t.Parallel()
	const senders = 4
	s := start(t, temporal)
	patient := s.patient(kevin)
	for _, test := range []struct {
		name, key string
		// change makes the readings of a sender.
		change    func(sender int, readings []string) []string
		otherwise string // the status of those that come later
	}{
		{"the same batch and key", "same", func(_ int, r []string) []string { return r }, "200"},
		{"the same batch, no key", "", func(_ int, r []string) []string { return r }, "200"},
		{"another order, no key", "", func(sender int, r []string) []string { return rotated(r, 100*sender) }, "200"},
		{"another order, a key", "order", func(sender int, r []string) []string { return rotated(r, 100*sender) }, "422"},
		{"other values, no key", "", func(sender int, r []string) []string {
			return strings.Split(strings.ReplaceAll(strings.Join(r, "\n"), "81.60", fmt.Sprint(80+sender)), "\n")
		}, "409"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := s.rows("observations")
			readings := weights(patient, moreThanAChunk)
			answers := make([]answer, senders)
			var group sync.WaitGroup
			for i := range senders {
				body := batch(test.change(i, readings))
				group.Go(func() { answers[i] = s.in(t).do("POST", batchPath, body, "Idempotency-Key", test.key) })
			}
			group.Wait()

			count := map[string]int{}
			for _, a := range answers {
				a.want(t, http.StatusOK, "")
				for status, n := range a.count() {
					count[status] += n
				}
			}
			stored := s.rows("observations") - before
			if test.name == "another order, a key" { // which readings win is open, as each key stands for several
				if count["201"] != stored || count["201"]+count["200"]+count["422"] != senders*moreThanAChunk {
					t.Errorf("answered %v; %d are stored", count, stored)
				}
				return
			}
			want := map[string]int{"201": moreThanAChunk, test.otherwise: (senders - 1) * moreThanAChunk}
			if fmt.Sprint(count) != fmt.Sprint(want) || stored != moreThanAChunk {
				t.Errorf("answered %v, want %v; %d are stored", count, want, stored)
			}
		})
	}
}

// rotated begins with the item of that number.
func rotated(items []string, first int) []string { return slices.Concat(items[first:], items[:first]) }

// PostgreSQL refuses one reading in the middle of a chunk. The others are stored, with and without a key.
func TestBatchWithAReadingThatTheDatabaseRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	for name, key := range map[string]string{"no key": "", "a key": "k"} {
		t.Run(name, func(t *testing.T) {
			observations, keys := s.rows("observations"), s.rows("idempotency_keys")
			readings := weights(patient, moreThanAChunk)
			s.exec("ALTER TABLE observations DROP CONSTRAINT IF EXISTS refused, ADD CONSTRAINT refused CHECK (id <> '" +
				idOf(t, readings[210]).String() + "')")
			readings[211] = readings[209]
			want := slices.Repeat([]string{"201"}, moreThanAChunk)
			want[210], want[211] = "500", "200"

			got := s.in(t).do("POST", batchPath, batch(readings), "Idempotency-Key", key).want(t, http.StatusOK, "")
			if !slices.Equal(got.statuses(), want) || got.text("results", 210, "error", "code") != "internal" {
				t.Errorf("got %s, want %s", got.statuses(), want)
			}
			if n := s.rows("observations") - observations; n != moreThanAChunk-2 {
				t.Errorf("%d readings are stored, want %d", n, moreThanAChunk-2)
			}
			if n := s.rows("idempotency_keys") - keys; key != "" && n != moreThanAChunk-1 {
				t.Errorf("%d keys are remembered, want %d", n, moreThanAChunk-1)
			}
		})
	}
}

// While a batch is stored, another request stores one of its readings.
func TestBatchMeetsAReadingOfAnotherRequest(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	for _, test := range []struct {
		name   string
		change func(reading string) string
		end    func(testing.TB, pgx.Tx)
		status string
	}{
		{"the same", func(r string) string { return r }, commit, "200"},
		{"with other values", other, commit, "409"},
		{"that is taken back", other, func(tb testing.TB, tx pgx.Tx) {
			if err := tx.Rollback(tb.Context()); err != nil {
				tb.Fatal(err)
			}
		}, "201"},
	} {
		for name, key := range map[string]string{"no key": "", "a key": test.name} {
			t.Run(test.name+", "+name, func(t *testing.T) {
				readings := weights(patient, 10)
				tx := s.hold(t, test.change(readings[5]))
				got := whileBlocked(t, tx, func() answer {
					return s.in(t).do("POST", batchPath, batch(readings), "Idempotency-Key", key)
				}, func() { test.end(t, tx) }).want(t, http.StatusOK, "")
				want := slices.Repeat([]string{"201"}, 10)
				want[5] = test.status
				if !slices.Equal(got.statuses(), want) {
					t.Errorf("got %s, want %s", got.statuses(), want)
				}
			})
		}
	}
}

// While a request with a key is stored, another request takes the key.
func TestKeyIsTakenMeanwhile(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	known := s.post(weight(patient))
	take := func(t *testing.T, key string) pgx.Tx {
		tx, err := s.conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		digest := keyringtest.Shared().Digest("idempotency_keys.key", practice, "tests"+itemMark+key)
		_, err = tx.Exec(t.Context(), "INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id) VALUES ($1, $2, 'x', $3)",
			practice, digest, known)
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}

	t.Run("a batch", func(t *testing.T) {
		before := s.rows("observations")
		readings := weights(patient, 10)
		tx := take(t, "batch"+itemMark+"5")
		got := whileBlocked(t, tx, func() answer {
			return s.in(t).do("POST", batchPath, batch(readings), "Idempotency-Key", "batch")
		}, func() { commit(t, tx) }).want(t, http.StatusOK, "")
		want := slices.Repeat([]string{"201"}, 10)
		want[5] = "422"
		if !slices.Equal(got.statuses(), want) || s.rows("observations")-before != 9 {
			t.Errorf("got %s, want %s; %d are stored", got.statuses(), want, s.rows("observations")-before)
		}
	})

	stored := weight(patient)
	s.post(stored)
	for name, reading := range map[string]string{"a new reading": weight(patient), "a stored reading": stored} {
		t.Run(name, func(t *testing.T) {
			before := s.rows("observations")
			tx := take(t, name)
			whileBlocked(t, tx, func() answer {
				return s.in(t).do("POST", "/api/v1/observations/", reading, "Idempotency-Key", name)
			}, func() { commit(t, tx) }).want(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
			if n := s.rows("observations") - before; n != 0 {
				t.Errorf("%d readings were stored", n)
			}
		})
	}
}

// The database goes away in the middle of a batch. What was stored before stays, and the batch again stores
// the rest.
func TestDatabaseDiesInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	readings := mostlyLater(s.patient(kevin))
	tx := s.hold(t, readings[250])
	whileBlocked(t, tx, func() answer { return s.do("POST", batchPath, batch(readings), "Idempotency-Key", "k") }, func() {
		_, err := tx.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pg_backend_pid() = ANY (pg_blocking_pids(pid))`)
		if err != nil {
			t.Fatal(err)
		}
	}).want(t, http.StatusServiceUnavailable, "database_unavailable")
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}

	if n, keys := s.rows("observations"), s.rows("idempotency_keys"); n != firstReadings || keys != n {
		t.Fatalf("%d readings are stored, with %d keys, want %d", n, keys, firstReadings)
	}
	s.awaitDelivered(firstReadings) // they were started

	again := s.do("POST", batchPath, batch(readings), "Idempotency-Key", "k").want(t, http.StatusOK, "")
	want := map[string]int{"200": firstReadings, "201": 800, "400": 200 - firstReadings}
	if fmt.Sprint(again.count()) != fmt.Sprint(want) {
		t.Errorf("the batch again: %v, want %v", again.count(), want)
	}
}
