package db_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack/devtest"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

var stack devtest.Stack

func TestMain(m *testing.M) { os.Exit(stack.Run(m)) }

// open returns a store on an empty database, and a connection for statements that no query of ours has.
func open(t *testing.T) (*db.Store, *pgx.Conn) {
	t.Helper()
	url := stack.Postgres(t)
	store, err := db.Open(t.Context(), url, keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)

	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return store, conn
}

func migrated(t *testing.T) (*db.Store, *pgx.Conn) {
	t.Helper()
	store, conn := open(t)
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store, conn
}

func reading(t *testing.T, store *db.Store, measured string) db.Observation {
	t.Helper()
	patient, err := store.CreatePatient(t.Context(), db.CreatePatientParams{
		PracticeCode: "FFHEDD",
		Demographics: db.Demographics{
			FirstName:   "Jane",
			LastName:    "Doe",
			DateOfBirth: time.Date(1957, 3, 21, 0, 0, 0, 0, time.UTC),
			MRN:         uuid.NewString(),
		},
		Active: true,
	})
	if err != nil {
		t.Fatal(err)
	}

	stored, err := store.CreateObservation(t.Context(), db.CreateObservationParams{
		ID:              uuid.New(),
		PracticeCode:    "FFHEDD",
		PatientID:       patient.ID,
		ObservationType: "weight",
		EffectiveAt:     time.Date(2026, 2, 6, 10, 30, 0, 0, time.UTC),
		Device:          "SCALE-1",
		Measured:        json.RawMessage(measured),
	})
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func TestProcessesThatStartTogetherMigrateOnce(t *testing.T) {
	t.Parallel()
	store, _ := open(t)
	if err := store.CheckMigrated(t.Context()); !errors.Is(err, db.ErrMigrationsPending) {
		t.Fatalf("an empty database: %v, want %v", err, db.ErrMigrationsPending)
	}

	ran := make([]int, 4)
	var group errgroup.Group
	for i := range ran {
		group.Go(func() (err error) {
			ran[i], err = store.Migrate(t.Context())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := store.CheckMigrated(t.Context()); err != nil {
		t.Fatal(err)
	}

	busy := 0
	for _, n := range ran {
		if n > 0 {
			busy++
		}
	}
	if busy != 1 {
		t.Errorf("migrations run by each process: %v, want all by one", ran)
	}
}

func TestReadingKeepsThePrecisionOfItsDevice(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	id := reading(t, store, `{"unit": "kg", "value": 81.60}`).ID
	stored, err := store.GetObservation(t.Context(), db.GetObservationParams{PracticeCode: thePractice, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(stored.Measured); !strings.Contains(got, "81.60") {
		t.Errorf("stored %s, want the 81.60 that was measured", got)
	}
	if zone := stored.EffectiveAt.Location(); zone != time.UTC {
		t.Errorf("times come back in %s, want UTC", zone)
	}
}

func TestTransmissionNumbersOutgrowFiveDigits(t *testing.T) {
	t.Parallel()
	store, conn := migrated(t)
	year := time.Now().UTC().Format("2006")
	for number, want := range map[int]string{
		7:         "TXN-" + year + "-00007",
		99_999:    "TXN-" + year + "-99999",
		1_234_567: "TXN-" + year + "-1234567",
	} {
		if _, err := conn.Exec(t.Context(), "SELECT setval('transmission_numbers', $1, false)", number); err != nil {
			t.Fatal(err)
		}
		o := reading(t, store, `{}`)
		if got := transmission(t, store, o).Number; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func transmission(t *testing.T, store *db.Store, o db.Observation) db.Transmission {
	t.Helper()
	err := store.OpenTransmission(t.Context(), db.OpenTransmissionParams{
		ID:            uuid.Must(uuid.NewV7()),
		PracticeCode:  o.PracticeCode,
		ObservationID: o.ID,
		MaxAttempts:   6,
	})
	if err != nil {
		t.Fatal(err)
	}

	latest := db.LatestTransmissionParams{PracticeCode: o.PracticeCode, ObservationID: o.ID}
	row, err := store.LatestTransmission(t.Context(), latest)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// An observation has one transmission that is under way or delivered. Only one that failed for good makes
// room for another.
func TestOneLiveTransmissionForAnObservation(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	o := reading(t, store, `{}`)
	first := transmission(t, store, o)

	later, delivered := time.Now().Add(time.Hour), "obs-1"
	for _, step := range []struct {
		outcome db.RecordOutcomeParams
		another bool
	}{
		{db.RecordOutcomeParams{Status: db.StatusPending}, false},
		{db.RecordOutcomeParams{Status: db.StatusProcessing, AttemptCount: 1}, false},
		{db.RecordOutcomeParams{Status: db.StatusFailed, ErrorClass: "unknown", AttemptCount: 1, NextRetryAt: &later}, false},
		{db.RecordOutcomeParams{Status: db.StatusFailed, ErrorClass: "permanent_data", AttemptCount: 2}, true},
	} {
		step.outcome.ID, step.outcome.ObservationID = first.ID, o.ID
		if err := db.Written(store.RecordOutcome(t.Context(), step.outcome)); err != nil {
			t.Fatal(err)
		}
		if got := transmission(t, store, o).ID != first.ID; got != step.another {
			t.Errorf("%s: another transmission opened: %t, want %t", step.outcome.Status, got, step.another)
		}
	}

	second := transmission(t, store, o)
	outcome := db.RecordOutcomeParams{
		ID:               second.ID,
		ObservationID:    o.ID,
		Status:           db.StatusTransmitted,
		AttemptCount:     1,
		ECWObservationID: &delivered,
	}
	if err := db.Written(store.RecordOutcome(t.Context(), outcome)); err != nil {
		t.Fatal(err)
	}
	if got := transmission(t, store, o).ID; got != second.ID {
		t.Errorf("another transmission opened after it was delivered")
	}
}

// A write names the row by its key and by its observation, and changes nothing where the two do not belong
// together. Nothing overwrites what was delivered.
func TestWritesNameWhatTheyAreAbout(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	o, other := reading(t, store, `{}`), reading(t, store, `{}`)
	mine, theirs := transmission(t, store, o), transmission(t, store, other)

	now, delivered, elsewhere := time.Now(), "obs-1", "obs-2"
	start := func(id, observation uuid.UUID) error {
		return db.Written(store.StartAttempt(t.Context(), db.StartAttemptParams{
			TransmissionID: id,
			ObservationID:  observation,
			Delivery:       1,
			Number:         1,
			StartedAt:      now,
		}))
	}
	if err := start(mine.ID, o.ID); err != nil {
		t.Fatal(err)
	}

	record := db.RecordOutcomeParams{
		ID:               mine.ID,
		ObservationID:    o.ID,
		Status:           db.StatusTransmitted,
		AttemptCount:     1,
		ECWObservationID: &delivered,
	}
	if err := db.Written(store.RecordOutcome(t.Context(), record)); err != nil {
		t.Fatal(err)
	}
	again := record
	if err := db.Written(store.RecordOutcome(t.Context(), again)); err != nil {
		t.Errorf("the same outcome a second time: %v, want nothing said", err)
	}

	failed := db.RecordOutcomeParams{
		ID:            mine.ID,
		ObservationID: o.ID,
		Status:        db.StatusFailed,
		ErrorClass:    "unknown",
		AttemptCount:  1,
	}
	foreign := record
	foreign.ID = theirs.ID
	moved := record
	moved.ECWObservationID = &elsewhere
	hold := func(id, observation uuid.UUID) error {
		_, err := store.HoldTransmission(t.Context(), db.HoldTransmissionParams{ID: id, ObservationID: observation})
		if db.IsNotFound(err) {
			return db.ErrForgotten
		}
		return err
	}
	finish := db.FinishAttemptParams{
		TransmissionID: mine.ID,
		ObservationID:  other.ID,
		Delivery:       1,
		FinishedAt:     now,
	}
	sent := db.MarkSentParams{
		TransmissionID: mine.ID,
		ObservationID:  other.ID,
		Delivery:       1,
		SentAt:         now,
		ChartID:        uuid.New(),
	}

	for name, err := range map[string]error{
		"a failure after the delivery":           db.Written(store.RecordOutcome(t.Context(), failed)),
		"another Observation after the delivery": db.Written(store.RecordOutcome(t.Context(), moved)),
		"an outcome of another observation":      db.Written(store.RecordOutcome(t.Context(), foreign)),
		"an attempt of what was delivered":       start(mine.ID, o.ID),
		"an attempt of another observation":      start(theirs.ID, o.ID),
		"an attempt of an unknown transmission":  start(uuid.New(), o.ID),
		"the end of another's attempt":           db.Written(store.FinishAttempt(t.Context(), finish)),
		"a send of another's attempt":            db.Written(store.MarkSent(t.Context(), sent)),
		"holding what was delivered":             hold(mine.ID, o.ID),
		"holding another observation's":          hold(theirs.ID, o.ID),
		"holding an unknown transmission":        hold(uuid.New(), o.ID),
	} {
		if !errors.Is(err, db.ErrForgotten) {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}

	if row := transmission(t, store, other); row.Status != db.StatusPending || row.AttemptCount != 0 {
		t.Errorf("the other transmission is recorded as %+v, want it untouched", row)
	}
}

// The table itself refuses columns that do not fit together.
func TestTransmissionStatesAreConsistent(t *testing.T) {
	t.Parallel()
	store, _ := migrated(t)
	o := reading(t, store, `{}`)
	id := transmission(t, store, o).ID
	later, delivered := time.Now().Add(time.Hour), "obs-1"
	for name, outcome := range map[string]db.RecordOutcomeParams{
		"unknown state":                 {Status: "sent"},
		"delivered without eCW's id":    {Status: db.StatusTransmitted},
		"eCW's id without delivery":     {Status: db.StatusFailed, ErrorClass: "unknown", ECWObservationID: &delivered},
		"failed without a class":        {Status: db.StatusFailed},
		"processing and waiting":        {Status: db.StatusProcessing, NextRetryAt: &later},
		"delivered and waiting":         {Status: db.StatusTransmitted, ECWObservationID: &delivered, NextRetryAt: &later},
		"more attempts than there are":  {Status: db.StatusFailed, ErrorClass: "unknown", AttemptCount: 7},
		"fewer attempts than there are": {Status: db.StatusFailed, ErrorClass: "unknown", AttemptCount: -1},
	} {
		outcome.ID, outcome.ObservationID = id, o.ID
		if err := db.Written(store.RecordOutcome(t.Context(), outcome)); err == nil || errors.Is(err, db.ErrForgotten) {
			t.Errorf("%s: %v, want it refused by the table", name, err)
		}
	}
}

func TestOpenExplainsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"postgres://localhost:notaport/db":                   "DATABASE_URL cannot be read",
		"postgres://u:secret@127.0.0.1:1/db?sslmode=disable": "does not answer",
	} {
		_, err := db.Open(t.Context(), url, keyringtest.Shared())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q without the password", url, err, want)
		}
	}
}
