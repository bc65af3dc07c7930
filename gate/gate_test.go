package gate_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack/devtest"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

const practice = "FFHEDD"

var stack = devtest.Stack{Migrate: migrate}

func TestMain(m *testing.M) { os.Exit(stack.Run(m)) }

func migrate(ctx context.Context, url string) error {
	store, err := db.Open(ctx, url, keyringtest.Shared())
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Migrate(ctx)
	return err
}

// rig is a database, on which tests run the gates of several processes.
type rig struct {
	tb    testing.TB
	url   string
	store *db.Store
	sql   *pgx.Conn // for statements that package db does not have
	calls *calls
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{tb: tb, url: stack.Postgres(tb), calls: &calls{}}
	r.store = r.open("")
	r.sql = r.connect()
	// The state after many good answers; a new row begins with one place.
	r.exec("INSERT INTO ecw_gates (practice_code, parallel) VALUES ($1, 1000)", practice)
	return r
}

// calls records the transmissions that were called from the queue, in their order.
type calls struct {
	mu   sync.Mutex
	list []called
	err  error // of every call
}

type called struct {
	observationID uuid.UUID
	wait          time.Duration
}

func (c *calls) call(_ context.Context, _ string, observationID uuid.UUID, call gate.Call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, called{observationID, call.Wait})
	return c.err
}

// take returns those that were called since the last take.
func (c *calls) take() []called {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}

func (c *calls) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// connect makes a connection of its own.
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

// open makes a store with a pool of its own, like that of another process. The parameters are added to the
// URL.
func (r *rig) open(parameters string) *db.Store {
	r.tb.Helper()
	store, err := db.Open(r.tb.Context(), devtest.AsRuntime(r.tb, r.url)+parameters, keyringtest.Shared())
	r.must(err)
	r.tb.Cleanup(store.Close)
	return store
}

// The default settings of the tests. The limit of one request every 10 ms affects only the tests of the
// limit.
const (
	perMinute = 6000
	parallel  = 8
	timeout   = 30 * time.Second
	firstWait = 5 * time.Minute
	// lease is how long a place is kept for a request.
	lease = timeout + 10*time.Second
)

func (r *rig) config(change ...func(*gate.Config)) gate.Config {
	cfg := gate.Config{
		Store:     r.store,
		Practice:  practice,
		PerMinute: perMinute,
		Parallel:  parallel,
		Timeout:   timeout,
		FirstWait: firstWait,
		Call:      r.calls.call,
	}

	for _, c := range change {
		c(&cfg)
	}

	return cfg
}

// gate makes the gate of one process.
func (r *rig) gate(change ...func(*gate.Config)) *gate.Gate { return gate.New(r.config(change...)) }

// processes makes the gates of n processes.
func (r *rig) processes(n int, change ...func(*gate.Config)) []*gate.Gate {
	r.tb.Helper()
	gates := make([]*gate.Gate, n)
	for i := range gates {
		gates[i] = r.gate(append(slices.Clone(change), onStore(r.open("")))...)
	}
	return gates
}

func onStore(s *db.Store) func(*gate.Config) { return func(cfg *gate.Config) { cfg.Store = s } }

func places(n int) func(*gate.Config) { return func(cfg *gate.Config) { cfg.Parallel = n } }

func limit(perMinute int) func(*gate.Config) {
	return func(cfg *gate.Config) { cfg.PerMinute = perMinute }
}

// exec runs a statement that simulates the passing of time, or an event in the database.
func (r *rig) exec(statement string, args ...any) {
	r.tb.Helper()
	_, err := r.sql.Exec(r.tb.Context(), statement, args...)
	r.must(err)
}

// now is the time of the database's clock.
func (r *rig) now() (at time.Time) {
	r.tb.Helper()
	r.must(r.sql.QueryRow(r.tb.Context(), "SELECT clock_timestamp()").Scan(&at))
	return at
}

// row is the practice's row.
func (r *rig) row() db.Gate {
	r.tb.Helper()
	row, err := r.store.GetGate(r.tb.Context(), practice)
	r.must(err)
	return row
}

// taken is how many places are taken.
func (r *rig) taken() (n int) {
	r.tb.Helper()
	r.must(r.sql.QueryRow(r.tb.Context(), "SELECT count(*) FROM ecw_places WHERE expires_at > clock_timestamp()").Scan(&n))
	return n
}

// hasPlace reports whether a transmission has a place, because it is under way or was called.
func (r *rig) hasPlace(id uuid.UUID) bool {
	r.tb.Helper()
	held, err := r.store.HoldsPlace(r.tb.Context(), id)
	r.must(err)
	return held
}

// expire makes the places of some transmissions expire, or all places.
func (r *rig) expire(ids ...uuid.UUID) {
	r.tb.Helper()
	r.exec("UPDATE ecw_places SET expires_at = clock_timestamp() - interval '1 second' WHERE id = ANY($1) OR cardinality($1) = 0",
		append([]uuid.UUID{}, ids...))
}

// awaitLock waits until n statements wait for locks of other transactions. It needs a connection of its own,
// because in a transaction the server's statistics do not change.
func (r *rig) awaitLock(n int) {
	r.tb.Helper()
	r.await("statements that wait", func() bool {
		var waiting int
		r.must(r.sql.QueryRow(r.tb.Context(), `SELECT count(DISTINCT a.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE NOT l.granted AND a.datname = current_database()`).Scan(&waiting))
		return waiting >= n
	})
}

// await polls until is returns true. It fails the test after a minute, so that no test hangs.
func (r *rig) await(what string, is func() bool) {
	r.tb.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.tb.Fatalf("waited a minute for %s", what)
		}
	}
}

// transmission stores a reading and creates its transmission, the youngest so far.
func (r *rig) transmission() gate.Request {
	r.tb.Helper()
	ctx, observationID := r.tb.Context(), uuid.New()
	patient, err := r.store.CreatePatient(ctx, db.CreatePatientParams{
		PracticeCode: practice,
		Demographics: db.Demographics{
			FirstName:   "Jane",
			LastName:    "Doe",
			DateOfBirth: time.Date(1957, 3, 21, 0, 0, 0, 0, time.UTC),
			MRN:         uuid.NewString(),
		},
		Active: true,
	})

	r.must(err)
	_, err = r.store.CreateObservation(ctx, db.CreateObservationParams{
		ID:              observationID,
		PracticeCode:    practice,
		PatientID:       patient.ID,
		ObservationType: "weight",
		EffectiveAt:     time.Date(2026, 2, 6, 10, 30, 0, 0, time.UTC),
		Device:          "SCALE-1",
		Measured:        json.RawMessage(`{"value": 81.6, "unit": "kg"}`),
	})

	r.must(err)
	request := gate.Request{TransmissionID: uuid.Must(uuid.NewV7()), ObservationID: observationID}
	r.must(r.store.OpenTransmission(ctx, db.OpenTransmissionParams{
		ID:            request.TransmissionID,
		PracticeCode:  practice,
		ObservationID: observationID,
		MaxAttempts:   6,
	}))

	return request
}

// transmissions creates several, the oldest first.
func (r *rig) transmissions(n int) []gate.Request {
	r.tb.Helper()
	list := make([]gate.Request, n)
	for i := range list {
		list[i] = r.transmission()
	}
	return list
}

// stored returns a transmission from the database.
func (r *rig) stored(t gate.Request) db.Transmission {
	r.tb.Helper()
	row, err := r.store.LatestTransmission(r.tb.Context(), db.LatestTransmissionParams{
		PracticeCode:  practice,
		ObservationID: t.ObservationID,
	})
	r.must(err)
	if row.ID != t.TransmissionID {
		r.tb.Fatalf("the latest transmission is %s, want %s", row.ID, t.TransmissionID)
	}
	return row
}

// asked marks a transmission as requested by a person.
func asked(t gate.Request) gate.Request {
	t.Asked = true
	return t
}

// observations returns the observation ids of a list of transmissions.
func observations(list []gate.Request) (ids []uuid.UUID) {
	for _, t := range list {
		ids = append(ids, t.ObservationID)
	}
	return ids
}

// expectCalls checks which transmissions were called since the last check, and in which order.
func (r *rig) expectCalls(why string, want ...gate.Request) []called {
	r.tb.Helper()
	got := r.calls.take()
	var ids []uuid.UUID
	for _, c := range got {
		ids = append(ids, c.observationID)
	}
	if !slices.Equal(ids, observations(want)) {
		r.tb.Errorf("%s: called %v, want %v", why, ids, observations(want))
	}
	return got
}

func (r *rig) admit(g *gate.Gate, request gate.Request) gate.Admission {
	r.tb.Helper()
	a, err := g.Admit(r.tb.Context(), request)
	r.must(err)
	return a
}

// goes asks for admission of a transmission, which must be admitted at once.
func (r *rig) goes(g *gate.Gate, request gate.Request) {
	r.tb.Helper()
	if a := r.admit(g, request); a != (gate.Admission{}) {
		r.tb.Fatalf("told %+v, want it to go", a)
	}
}

// waits asks for admission of a transmission, which must have to wait in the queue.
func (r *rig) waits(g *gate.Gate, list ...gate.Request) {
	r.tb.Helper()
	for _, t := range list {
		if a := r.admit(g, t); a != (gate.Admission{Held: true}) {
			r.tb.Fatalf("told %+v, want it to wait", a)
		}
	}
}

// starts records the beginning of an admitted delivery.
func (r *rig) starts(t gate.Request, number int32) {
	r.tb.Helper()
	r.must(db.Written(r.store.StartAttempt(r.tb.Context(), db.StartAttemptParams{
		TransmissionID: t.TransmissionID,
		ObservationID:  t.ObservationID,
		Delivery:       number,
		Number:         number,
		StartedAt:      r.now(),
	})))
}

// report reports an outcome to a gate in a transaction, like the one that records it.
func (r *rig) report(g *gate.Gate, id uuid.UUID, f gate.Finding) gate.Change {
	r.tb.Helper()
	change, err := r.take(r.tb.Context(), g, id, f)
	r.must(err)
	return change
}

func (r *rig) take(ctx context.Context, g *gate.Gate, id uuid.UUID, f gate.Finding) (change gate.Change, err error) {
	report := gate.Report{
		TransmissionID: id,
		StartedAt:      time.Now().UTC(),
		Finding:        f,
		Message:        "eCW said something",
	}
	err = r.store.InTx(ctx, func(q *db.Queries) (err error) {
		change, err = g.Report(ctx, q, report)
		return err
	})
	return change, err
}

// delivered reports a successful delivery, and calls the next one.
func (r *rig) delivered(g *gate.Gate, t gate.Request) {
	r.tb.Helper()
	r.must(r.deliver(r.tb.Context(), r.store, g, t))
	g.CallNext(r.tb.Context())
}

// deliver records a success.
func (r *rig) deliver(ctx context.Context, store *db.Store, g *gate.Gate, t gate.Request) error {
	ecwID := "obs-" + t.ObservationID.String()
	return store.InTx(ctx, func(q *db.Queries) error {
		err := db.Written(q.RecordOutcome(ctx, db.RecordOutcomeParams{
			ID:               t.TransmissionID,
			ObservationID:    t.ObservationID,
			Status:           db.StatusTransmitted,
			AttemptCount:     1,
			ECWObservationID: &ecwID,
		}))
		if err != nil {
			return err
		}

		_, err = g.Report(ctx, q, gate.Report{TransmissionID: t.TransmissionID, StartedAt: time.Now(), Finding: gate.Answers})
		return err
	})
}

// openCircuit opens the circuit by a refusal, and dates that back.
func (r *rig) openCircuit(g *gate.Gate, age time.Duration) {
	r.tb.Helper()
	if change := r.report(g, uuid.New(), gate.Refuses); !change.Opened {
		r.tb.Fatalf("a refusal changed the circuit by %+v", change)
	}
	r.exec("UPDATE ecw_gates SET failing_since = now() - $1::interval, opened_at = now() - $1::interval", age)
}

// begin begins a request, which must be permitted.
func (r *rig) begin(ctx context.Context, g *gate.Gate) (end func(context.Context, ecw.Observed)) {
	r.tb.Helper()
	end, wait, err := g.Begin(ctx)
	if err != nil || wait != 0 {
		r.tb.Fatalf("told to wait %s (%v), want it to leave", wait, err)
	}
	return end
}

// Observations with which the tests end requests.
var (
	prompt   = ecw.Observed{Took: time.Second, Answered: true}
	slow     = ecw.Observed{Took: timeout/2 + time.Second, Answered: true}
	overload = ecw.Observed{Took: timeout, Overloaded: true}
	nothing  = ecw.Observed{Took: time.Second}
)

// hold stores readings that the open circuit holds, each a second younger than the one before.
func (r *rig) hold(g *gate.Gate, n int) (list []gate.Request) {
	r.tb.Helper()
	for i := range n {
		t := r.transmission()
		r.admit(g, t)
		at := r.now().Add(time.Duration(i-n) * time.Second)
		r.exec("UPDATE transmissions SET created_at = $2, updated_at = $2 WHERE id = $1", t.TransmissionID, at)
		list = append(list, t)
	}
	return list
}

// fail records a failed delivery that began some time ago, with a retry in an hour.
func (r *rig) fail(t gate.Request, ago time.Duration) {
	r.tb.Helper()
	at := r.now()
	retry := at.Add(time.Hour)
	r.exec("UPDATE transmissions SET created_at = least(created_at, $2) WHERE id = $1", t.TransmissionID, at.Add(-ago))

	r.must(db.Written(r.store.StartAttempt(r.tb.Context(), db.StartAttemptParams{
		TransmissionID: t.TransmissionID,
		ObservationID:  t.ObservationID,
		Delivery:       1,
		Number:         1,
		StartedAt:      at.Add(-ago),
	})))

	r.must(db.Written(r.store.RecordOutcome(r.tb.Context(), db.RecordOutcomeParams{
		ID:            t.TransmissionID,
		ObservationID: t.ObservationID,
		Status:        db.StatusFailed,
		ErrorClass:    "retryable",
		AttemptCount:  1,
		NextRetryAt:   &retry,
	})))
}

// If the database is restored to a state before the practice's row existed, the gate makes the row again.
func TestARowThatIsGoneComesBack(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(context.Context, *rig, *gate.Gate) error{
		"Begin": func(ctx context.Context, _ *rig, g *gate.Gate) error {
			_, _, err := g.Begin(ctx)
			return err
		},
		"Admit": func(ctx context.Context, r *rig, g *gate.Gate) error {
			_, err := g.Admit(ctx, r.transmission())
			return err
		},
		"State": func(ctx context.Context, _ *rig, g *gate.Gate) error { _, err := g.State(ctx); return err },
		"Pause": func(ctx context.Context, _ *rig, g *gate.Gate) error { return g.Pause(ctx, time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			g := r.gate()
			_, err := g.State(t.Context())
			r.must(err)
			r.must(ask(t.Context(), r, g))
			r.exec("DELETE FROM ecw_gates")
			_ = ask(t.Context(), r, g) // may fail, but finds that the row is gone

			if err := ask(t.Context(), r, g); err != nil {
				t.Errorf("asked again: %v", err)
			}

			r.row()
		})
	}
}

func TestSinceAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gates := r.processes(2)

	for name, finding := range map[string]gate.Finding{"nothing": gate.Nothing, "an outage": gate.Unavailable} {
		r.report(gates[0], uuid.New(), finding)
		if ago, err := gates[1].SinceAnswered(t.Context()); err != nil || ago < 24*time.Hour {
			t.Errorf("%s: eCW answered %s ago (%v), want never", name, ago, err)
		}
	}

	r.exec("UPDATE ecw_gates SET answered_at = clock_timestamp() - interval '1 hour'")
	r.report(gates[0], uuid.New(), gate.Answers)
	if ago, err := gates[1].SinceAnswered(t.Context()); err != nil || ago < 0 || ago > 30*time.Second {
		t.Errorf("eCW answered %s ago (%v), want just now", ago, err)
	}
}
