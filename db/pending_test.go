package db_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
)

// pendingStates are readings as the sweep may find them: a change of their transmission, and whether the
// sweep should take them then. All were stored, and last changed, an hour ago.
var pendingStates = []struct {
	name  string
	sql   string // on the transmission $1; empty: there is none
	taken bool
}{
	{"never started", "", true},
	{"opened, and no more", set("status = 'pending'"), true},
	{"in the middle of a delivery", set("status = 'processing', attempt_count = 1"), true},
	{"due since long", set("status = 'failed', error_class = 'unknown', next_retry_at = now() - interval '30 minutes'"), true},
	{"due later", set("status = 'failed', error_class = 'unknown', next_retry_at = now() + interval '30 minutes'"), false},
	{"throttled until later", set("next_retry_at = now() + interval '30 minutes'"), false},
	{"in the queue", set("held_at = now() - interval '1 hour'"), false},
	{"failed for good", set("status = 'failed', error_class = 'permanent_data'"), false},
	{"delivered", set("status = 'transmitted', ecw_observation_id = 'obs-1'"), false},
	{"with a place before eCW", place("+"), false},
	{"whose place has expired", place("-"), true},
}

func set(columns string) string { return "UPDATE transmissions SET " + columns + " WHERE id = $1" }

// place is the statement for a place that expires a minute from now (+), or expired a minute ago (-).
func place(sign string) string {
	return `
INSERT INTO ecw_places (id, practice_code, kind, expires_at)
VALUES ($1, 'FFHEDD', 'delivery', now() ` + sign + ` interval '1 minute')`
}

// storePending stores a reading in each of those states, and returns those that the sweep should take.
func storePending(t *testing.T, store *db.Store, conn *pgx.Conn) (want []uuid.UUID) {
	t.Helper()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, state := range pendingStates {
		o := reading(t, store, `{}`)
		if state.taken {
			want = append(want, o.ID)
		}
		if state.sql != "" {
			exec("UPDATE observations SET transformed_at = now(), plain_resource = '{}', resource_version = 1 WHERE id = $1", o.ID)
			exec(state.sql, transmission(t, store, o).ID)
		}
	}
	exec("UPDATE observations SET created_at = created_at - interval '1 hour'")
	exec("UPDATE transmissions SET created_at = created_at - interval '1 hour', updated_at = updated_at - interval '1 hour'")
	return want
}

func TestWhatTheSweepTakes(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	want := storePending(t, store, conn)

	if got := storedPending(t, store, 100, 2*time.Hour); len(got) != 0 {
		t.Errorf("with a grace of two hours it takes %v", got)
	}

	got := storedPending(t, store, 100, time.Minute)
	slices.SortFunc(got, compareIDs)
	slices.SortFunc(want, compareIDs)
	if !slices.Equal(got, want) {
		t.Errorf("it takes %d readings, want these %d:\n%v\n%v", len(got), len(want), got, want)
	}
}

// Readings that are stuck come back each time. However many they are, the pages go on to those behind them.
func TestTheSweepTakesPageAfterPage(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	storePending(t, store, conn)
	// Some were stored in one transaction, at the same moment.
	if _, err := conn.Exec(t.Context(), "UPDATE observations SET created_at = (SELECT min(created_at) FROM observations)"); err != nil {
		t.Fatal(err)
	}

	whole := storedPending(t, store, 100, time.Minute)
	for size := 1; size <= len(whole)+1; size++ {
		if got := storedPending(t, store, size, time.Minute); !slices.Equal(got, whole) {
			t.Errorf("in pages of %d it finds %v, want %v", size, got, whole)
		}
	}
}

// storedPending lists everything that is pending, in pages of the given size.
func storedPending(t *testing.T, store *db.Store, size int, grace time.Duration) (ids []uuid.UUID) {
	t.Helper()
	next := db.ListPendingObservationsParams{PracticeCode: "FFHEDD", Grace: grace.Seconds(), Batch: int32(size)}
	for {
		rows, err := store.ListPendingObservations(t.Context(), next)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			ids = append(ids, row.ID)
			next.AfterCreatedAt, next.AfterID = row.CreatedAt, row.ID
		}
		if len(rows) < size || len(ids) > len(pendingStates) {
			return ids
		}
	}
}

func compareIDs(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }

// A failed transmission whose retry is due is about to be delivered. The database says which are due,
// whatever our clock does.
func TestOutcomesSayWhatIsDue(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	o := reading(t, store, `{}`)
	transmission(t, store, o)
	for retry, due := range map[string]bool{
		"NULL":                          false,
		"now() + interval '30 minutes'": false,
		"now() - interval '30 minutes'": true,
	} {
		update := "UPDATE transmissions SET status = 'failed', error_class = 'unknown', next_retry_at = " + retry
		if _, err := conn.Exec(t.Context(), update); err != nil {
			t.Fatal(err)
		}

		asked := db.ListOutcomesParams{PracticeCode: "FFHEDD", ObservationIDs: []uuid.UUID{o.ID}}
		rows, err := store.ListOutcomes(t.Context(), asked)
		if err != nil || len(rows) != 1 || rows[0].Due != due {
			t.Errorf("with a retry at %s: %+v, %v, want it due: %t", retry, rows, err, due)
		}
	}
}

// Only a delivery that has not ended is deleted: one that ended was sent, and has to be looked up.
func TestAFinishedAttemptStays(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	o := reading(t, store, `{}`)
	mine := transmission(t, store, o)

	now := time.Now()
	for delivery := range int32(2) {
		start := db.StartAttemptParams{
			TransmissionID: mine.ID,
			ObservationID:  o.ID,
			Delivery:       delivery + 1,
			Number:         1,
			StartedAt:      now,
		}
		if err := db.Written(store.StartAttempt(t.Context(), start)); err != nil {
			t.Fatal(err)
		}
	}

	finish := db.FinishAttemptParams{
		TransmissionID: mine.ID,
		ObservationID:  o.ID,
		Delivery:       1,
		FinishedAt:     now,
		ErrorClass:     "unknown",
	}
	if err := db.Written(store.FinishAttempt(t.Context(), finish)); err != nil {
		t.Fatal(err)
	}
	for delivery := range int32(2) {
		unsend := db.UnsendAttemptParams{TransmissionID: mine.ID, Delivery: delivery + 1}
		if err := store.UnsendAttempt(t.Context(), unsend); err != nil {
			t.Fatal(err)
		}
	}

	if made, err := store.ListAttempts(t.Context(), mine.ID); err != nil || len(made) != 1 || made[0].Delivery != 1 {
		t.Errorf("left are %+v, %v, want the first, which had ended", made, err)
	}
}
