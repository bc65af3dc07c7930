package api_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	temporallog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/api"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack/devtest"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
	"github.com/vantrexia/vantrexia/payload"
	"github.com/vantrexia/vantrexia/worker"
	"github.com/vantrexia/vantrexia/workflows"
)

const (
	practice    = "FFHEDD"
	clientID    = "client-1"
	keyID       = "vantrexia-ecw-key-1"
	tokenSecret = "an API token secret of the tests, longer than the hash"
)

var stack = devtest.Stack{SearchAttributes: searchAttributes(), Migrate: func(ctx context.Context, url string) error {
	store, err := db.Open(ctx, url, keyringtest.Shared())
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Migrate(ctx)
	return err
}}

func searchAttributes() map[string]string {
	types := map[string]string{}
	for name, indexed := range workflows.SearchAttributes() {
		types[name] = indexed.String()
	}
	return types
}

func TestMain(m *testing.M) { os.Exit(stack.Run(m)) }

// sharedKey is made once: an RSA key costs more than the rest of a test.
var sharedKey = sync.OnceValue(func() *ecw.Key {
	key, err := ecw.GenerateKey(keyID)
	if err != nil {
		panic(err)
	}
	return key
})

// system is everything between a device and the chart: the API, a worker and the sandbox EHR on real ports,
// with a database and a Temporal namespace of their own.
type system struct {
	caller
	store    *db.Store
	conn     *pgx.Conn // the tests' own look at the tables
	temporal client.Client
	// namespace is that of temporal.
	namespace string
	ehr       string // the sandbox's URL
	log       *leakCheck
	handler   http.Handler
}

// without says what a system lacks.
type without int

const (
	nothing without = iota
	aWorker
	temporal
	anAnswer // Temporal takes connections, and says nothing
)

// setup is what a test changes about its system; the zero value is the normal case.
type setup struct {
	missing    without
	temporal   string // the address of a server of the test's own
	zone       *time.Location
	ehr        func(*ecw.Config)
	importWait time.Duration
	change     func(*api.Config)
	watch      func(http.Handler) http.Handler // sees every request to the EHR
	intercept  grpc.UnaryClientInterceptor     // sees every call to Temporal
	patients   int                             // of the EHR; 0: the usual ones
	perMinute  int                             // requests to the EHR, of which people may use a part; 0: no limit
}

func start(tb testing.TB, missing without) *system {
	tb.Helper()
	return startWith(tb, setup{missing: missing})
}

// startWith runs a system until the test ends, and then fails the test if its logs hold anything private.
func startWith(tb testing.TB, how setup) *system {
	tb.Helper()
	url, missing := stack.Postgres(tb), how.missing
	s := &system{log: newLeakCheck(tb)}
	var err error
	if s.store, err = db.Open(tb.Context(), devtest.AsRuntime(tb, url), keyringtest.Shared()); err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(s.store.Close)
	if s.conn, err = pgx.Connect(tb.Context(), url); err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() { _ = s.conn.Close(context.Background()) })
	s.temporal, s.namespace = temporalClient(tb, how, s.log.logger())

	var routes late // the sandbox wants the API's address, and the API the sandbox's
	s.caller = serve(tb, &routes, s.log)
	box := s.startSandbox(tb, how)
	ehr := s.ehrClient(tb, box, how.ehr)
	cfg := api.Config{
		Store:             s.store,
		Temporal:          s.temporal,
		TemporalNamespace: "default",
		TemporalUIURL:     "http://temporal.test",
		Payloads:          sealing(s.namespace),
		EHR:               ehr,
		TimeZone:          cmp.Or(how.zone, time.UTC),
		PracticeCode:      practice,
		JWKS:              jwks(tb),
		Signer:            testSigner(tb),
		ImportWait:        how.importWait,
		Limits:            plenty(),
		Logger:            s.log.logger(),
	}
	if how.perMinute > 0 {
		cfg.Asked = s.gate(how.perMinute).Asked()
		cfg.EHR = s.ehrClient(tb, box, func(c *ecw.Config) { c.Limiter = cfg.Asked })
	}
	if how.change != nil {
		how.change(&cfg)
	}

	s.handler = newAPI(tb, cfg)
	routes.handler.Store(&s.handler)
	if missing == nothing {
		s.startWorker(tb, ehr)
	}
	return s
}

// plenty is more than a test sends: every answer shows a limit, and none is reached.
func plenty() api.Limits {
	return api.Limits{
		Ingestion: 1_000_000,
		Callers:   1_000_000,
		Anonymous: 1_000_000,
		SignIn:    1_000_000,
	}
}

// late is a handler that is known after its server.
type late struct{ handler atomic.Pointer[http.Handler] }

func (l *late) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*l.handler.Load()).ServeHTTP(w, r) }

func newAPI(tb testing.TB, cfg api.Config) http.Handler {
	tb.Helper()
	handler, err := api.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return handler
}

func jwks(tb testing.TB) func() []byte {
	tb.Helper()
	set, err := ecw.PublicJWKS(sharedKey())
	if err != nil {
		tb.Fatal(err)
	}
	return func() []byte { return set }
}

// serve puts the API behind a real port, and returns a caller with an admin's token.
func serve(tb testing.TB, handler http.Handler, log *leakCheck) caller {
	tb.Helper()
	web := httptest.NewServer(handler)
	tb.Cleanup(web.Close)
	client := web.Client()
	client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
	c := caller{
		tb:     tb,
		base:   web.URL,
		client: client,
		secret: log.secret,
	}
	return c.as(account.Admin)
}

// sealing is how the payloads of a system are sealed.
func sealing(namespace string) payload.Sealing {
	return payload.Sealing{Keys: keyringtest.Shared(), Namespace: namespace}
}

func temporalClient(tb testing.TB, how setup, log *slog.Logger) (temporalAPI client.Client, namespace string) {
	tb.Helper()
	options := client.Options{HostPort: how.temporal, Namespace: client.DefaultNamespace, Logger: temporallog.NewStructuredLogger(log)}
	if how.intercept != nil {
		options.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(how.intercept)}
	}
	switch {
	case how.missing == temporal:
		options.HostPort = silentPort(tb, false)
	case how.missing == anAnswer:
		options.HostPort = silentPort(tb, true)
	case how.temporal == "":
		options.HostPort, options.Namespace = stack.Temporal(tb)
	}

	seals := sealing(options.Namespace)
	options.DataConverter, options.FailureConverter = seals.Converters()
	options.Interceptors = []interceptor.ClientInterceptor{seals.Interceptor()}

	c, err := client.NewLazyClient(options)
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(c.Close)
	return c, options.Namespace
}

// silentPort is an address where connections are refused, or wait for an answer that never comes.
func silentPort(tb testing.TB, open bool) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if open {
		tb.Cleanup(func() { _ = listener.Close() })
	} else {
		_ = listener.Close()
	}
	return listener.Addr().String()
}

func (s *system) startSandbox(tb testing.TB, how setup) *sandbox.Server {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}

	s.ehr = "http://" + listener.Addr().String()
	ehr, err := sandbox.New(sandbox.Config{
		ClientID:     clientID,
		PracticeCode: practice,
		PublicURL:    s.ehr,
		JWKSURL:      s.base + "/.well-known/jwks.json",
		Patients:     how.patients,
	})
	if err != nil {
		tb.Fatal(err)
	}

	var handler http.Handler = ehr
	if how.watch != nil {
		handler = how.watch(ehr)
	}

	web := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
	web.Start()
	tb.Cleanup(func() {
		if err := ehr.Close(); err != nil {
			tb.Error(err)
		}
		web.Close()
	})
	return ehr
}

func (s *system) ehrClient(tb testing.TB, ehr *sandbox.Server, change func(*ecw.Config)) *ecw.Client {
	tb.Helper()
	cfg := ecw.Config{
		ClientID:     clientID,
		PracticeCode: practice,
		Key:          sharedKey(),
		TokenURL:     ehr.TokenURL(),
		FHIRBaseURL:  ehr.FHIRBaseURL(),
		Logger:       s.log.logger(),
	}
	if change != nil {
		change(&cfg)
	}

	client, err := ecw.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return client
}

// manyRequests is more than a test sends in a minute.
const manyRequests = 100_000

func (s *system) gate(perMinute int) *gate.Gate {
	return gate.New(gate.Config{
		Store:     s.store,
		Practice:  practice,
		PerMinute: perMinute,
		Parallel:  100,
		Timeout:   ecw.DefaultTimeout,
		FirstWait: 5 * time.Minute,
		Call:      worker.Call(s.temporal),
	})
}

func (s *system) startWorker(tb testing.TB, ehr *ecw.Client) {
	tb.Helper()
	entry := s.gate(manyRequests)
	w := worker.New(s.temporal, practice, worker.Activities{
		Transmission: &activities.Transmission{
			Store:       s.store,
			EHR:         ehr,
			Gate:        entry,
			RetryDelays: []time.Duration{5 * time.Minute, 15 * time.Minute},
			Logger:      s.log.logger(),
		},
		Pending: &activities.Pending{Store: s.store},
		PatientImport: &activities.PatientImport{
			Store:    s.store,
			EHR:      ehr,
			Gate:     entry,
			Parallel: 10,
			Start:    worker.Start(s.temporal),
			Logger:   s.log.logger(),
		},
		Circuit: &activities.Circuit{Store: s.store, Gate: entry},
		Prune:   &activities.Prune{Store: s.store, Logger: s.log.logger()},
	}, 40*time.Second)
	if err := w.Start(); err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(w.Stop)
}

// fix takes every fault of the EHR back.
func (s *system) fix() {
	s.tb.Helper()
	req, err := http.NewRequestWithContext(s.tb.Context(), http.MethodDelete, s.ehr+"/admin/faults", nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.tb.Fatal(err)
	}
	_ = res.Body.Close()
}

// fault breaks something in the EHR.
func (s *system) fault(body string) {
	s.tb.Helper()
	res, err := s.client.Post(s.ehr+"/admin/faults", "application/json", textBody(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		s.tb.Fatalf("fault %s: %s", body, res.Status)
	}
}

// stats are what the EHR saw so far.
func (s *system) stats() (stats sandbox.Stats) {
	s.tb.Helper()
	res, err := s.client.Get(s.ehr + "/admin/stats")
	if err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&stats); err != nil {
		s.tb.Fatal(err)
	}
	return stats
}

// exec changes the tables directly.
func (s *system) exec(sql string, args ...any) {
	s.tb.Helper()
	if _, err := s.conn.Exec(s.tb.Context(), sql, args...); err != nil {
		s.tb.Fatal(err)
	}
}

// useTOTP gives an account two-factor sign-in with a secret.
func (s *system) useTOTP(id uuid.UUID, secret string) {
	s.tb.Helper()
	offer := db.OfferTOTPParams{PracticeCode: practice, ID: id, Secret: secret}
	if err := errors.Join(s.store.OfferTOTP(s.tb.Context(), offer), s.store.EnableTOTP(s.tb.Context(), id)); err != nil {
		s.tb.Fatal(err)
	}
}

// edit changes a patient directly in the table, past what the API checks.
func (s *system) edit(id string, change func(*db.Demographics)) {
	s.tb.Helper()
	err := s.store.InTx(s.tb.Context(), func(q *db.Queries) error {
		p, err := q.LockPatient(s.tb.Context(), db.LockPatientParams{PracticeCode: practice, ID: uuid.MustParse(id)})
		if err != nil {
			return err
		}
		change(&p.Demographics)
		_, err = q.UpdatePatient(s.tb.Context(), db.UpdatePatientParams{
			PracticeCode:  practice,
			ID:            p.ID,
			Demographics:  p.Demographics,
			Active:        p.ArchivedAt == nil,
			MismatchSince: p.MismatchSince,
		})
		return err
	})
	if err != nil {
		s.tb.Fatal(err)
	}
}

// setMRN and link change one field of a patient directly in the table.
func (s *system) setMRN(id, mrn string) {
	s.tb.Helper()
	s.edit(id, func(d *db.Demographics) { d.MRN = mrn })
}

func (s *system) link(id, ecwID string) {
	s.tb.Helper()
	s.edit(id, func(d *db.Demographics) { d.ExternalID = &ecwID })
}

// patient stores Jane Doe, linked to a patient of the EHR, directly in the table: the API would ask the EHR,
// which may be broken, and would find another name. An empty ecwID leaves the patient unlinked.
func (s *system) patient(ecwID string) (id string) {
	s.tb.Helper()
	mrn := fmt.Sprintf("MRN-SECRET-%04d", numbers.Add(1))
	s.secret(mrn, "Jane", "Doe", "1957-03-21", "555-0142")
	body := fmt.Sprintf(`{"first_name":"Jane","last_name":"Doe","date_of_birth":"1957-03-21","mrn":%q,"phone":"555-0142"}`, mrn)
	id = s.do("POST", "/api/v1/patients/", body).want(s.tb, http.StatusCreated, "").text("id")
	if ecwID != "" {
		s.link(id, ecwID)
	}
	return id
}

// inChart is how often the EHR holds an observation, and how many creates of it the EHR has seen.
func (s *system) inChart(observationID string) (stored, received int) {
	s.tb.Helper()
	stats := s.stats()
	key := "https://vantrexia.com/fhir/sid/observation|" + observationID
	return stats.Creates.Stored[key], stats.Creates.Received[key]
}

// rows counts the rows of a table.
func (s *system) rows(table string) (n int) {
	s.tb.Helper()
	if err := s.conn.QueryRow(s.tb.Context(), "SELECT count(*) FROM "+pgx.Identifier{table}.Sanitize()).Scan(&n); err != nil {
		s.tb.Fatal(err)
	}
	return n
}

// eventually asks until the answer is yes.
func eventually(tb testing.TB, what string, ask func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeoutCause(tb.Context(), time.Minute, errors.New("never "+what))
	defer cancel()

	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()

	for !ask() {
		select {
		case <-ctx.Done():
			tb.Fatal(context.Cause(ctx))
		case <-again.C:
		}
	}
}

// testSigner signs the tokens of the tests.
func testSigner(tb testing.TB) *account.Signer {
	tb.Helper()
	signer, err := account.NewSigner("vantrexia", "tests", []byte(tokenSecret))
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}
