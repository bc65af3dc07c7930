package gate_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack/devtest"
	"github.com/vantrexia/vantrexia/gate"
)

const practice = "FFHEDD"

var stack = devtest.Stack{Migrate: migrate}

func TestMain(m *testing.M) { os.Exit(stack.Run(m)) }

func migrate(ctx context.Context, url string) error {
	store, err := db.Open(ctx, url)
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Migrate(ctx)
	return err
}

// rig is a database with processes on it.
type rig struct {
	tb    testing.TB
	url   string
	store *db.Store
	sql   *pgx.Conn // for what package db has no query for
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{tb: tb, url: stack.Postgres(tb)}
	r.store = r.open("")
	r.sql = r.connect()
	return r
}

// connect makes a connection that nobody else uses.
func (r *rig) connect() *pgx.Conn {
	r.tb.Helper()
	conn, err := pgx.Connect(r.tb.Context(), r.url)
	r.must(err)
	r.tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (r *rig) must(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatal(err)
	}
}

// open makes a store with a pool of its own, as another process has; parameters are added to the URL.
func (r *rig) open(parameters string) *db.Store {
	r.tb.Helper()
	store, err := db.Open(r.tb.Context(), r.url+parameters)
	r.must(err)
	r.tb.Cleanup(store.Close)
	return store
}

// processes are the gates of so many processes.
func (r *rig) processes(n, perMinute int) []*gate.Gate {
	r.tb.Helper()
	gates := make([]*gate.Gate, n)
	for i := range gates {
		gates[i] = gate.New(r.open(""), practice, perMinute)
	}
	return gates
}

// exec runs a statement that stands for the passing of time, or for what befalls a database.
func (r *rig) exec(statement string, args ...any) {
	r.tb.Helper()
	_, err := r.sql.Exec(r.tb.Context(), statement, args...)
	r.must(err)
}

// now is the time of the database's clock.
func (r *rig) now() (at time.Time) {
	r.tb.Helper()
	r.must(r.sql.QueryRow(r.tb.Context(), "SELECT now()").Scan(&at))
	return at
}

// row is the practice's.
func (r *rig) row() db.Gate {
	r.tb.Helper()
	row, err := r.store.GetGate(r.tb.Context(), practice)
	r.must(err)
	return row
}

// delay is how far the queue's clock is behind.
func (r *rig) delay() time.Duration {
	r.tb.Helper()
	delay := r.row().QueueDelay
	if delay.Months != 0 {
		r.tb.Fatalf("the queue's delay has months: %+v", delay)
	}
	return time.Duration(delay.Microseconds)*time.Microsecond + time.Duration(delay.Days)*24*time.Hour
}

// inOneMinute checks what has to happen within one minute of the database's clock, again from the start when the minute
// turned: what check returns is then no failure.
func (r *rig) inOneMinute(check func() error) {
	r.tb.Helper()
	for range 3 {
		minute := r.now().Truncate(time.Minute)
		err := check()
		if r.now().Truncate(time.Minute).Equal(minute) {
			r.must(err)
			return
		}
		r.exec("UPDATE ecw_gates SET sent_minute = 'epoch', sent = 0, queue_minute = 'epoch', queue_used = 0")
	}
	r.tb.Fatal("took longer than a minute, three times")
}

// awaitLock waits until some statement waits for a row that another one holds.
func (r *rig) awaitLock() {
	r.tb.Helper()
	for waiting := false; !waiting; {
		err := r.sql.QueryRow(r.tb.Context(), "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database())").Scan(&waiting)
		r.must(err)
	}
}

// transmission stores a reading and opens its transmission.
func (r *rig) transmission() string {
	r.tb.Helper()
	ctx := r.tb.Context()
	patient, err := r.store.CreatePatient(ctx, db.CreatePatientParams{
		PracticeCode: practice, FirstName: "Jane", LastName: "Doe", BirthDate: time.Date(1957, 3, 21, 0, 0, 0, 0, time.UTC), MRN: uuid.NewString(), Active: true,
	})
	r.must(err)
	reading, err := r.store.CreateObservation(ctx, db.CreateObservationParams{
		PracticeCode: practice, PatientID: patient.ID, ObservationType: "weight", EffectiveAt: time.Date(2026, 2, 6, 10, 30, 0, 0, time.UTC),
		Device: "SCALE-1", Measured: json.RawMessage(`{"value": 81.6, "unit": "kg"}`),
	})
	r.must(err)
	r.must(r.store.OpenTransmission(ctx, db.OpenTransmissionParams{PracticeCode: practice, ObservationID: reading.ID, MaxAttempts: 6}))
	row, err := r.store.LatestTransmission(ctx, db.LatestTransmissionParams{PracticeCode: practice, ObservationID: reading.ID})
	r.must(err)
	return row.ID
}
