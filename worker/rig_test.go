// Package worker_test runs the whole way of a reading, from the database into the EHR: a real PostgreSQL, a real
// Temporal, and the sandbox EHR over HTTP.
package worker_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	temporallog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack/devtest"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
	"github.com/vantrexia/vantrexia/payload"
	"github.com/vantrexia/vantrexia/worker"
	"github.com/vantrexia/vantrexia/workflows"
)

const (
	practice = "FFHEDD"
	clientID = "vantrexia-test"
	// patience is how long a test waits for something that takes milliseconds on an idle machine.
	patience = 30 * time.Second
)

var stack = devtest.Stack{
	Migrate:          migrate,
	SearchAttributes: searchAttributes(),
	DynamicConfig:    map[string]any{"frontend.WorkflowTimeSkippingEnabled": true},
}

func searchAttributes() map[string]string {
	types := map[string]string{}
	for name, indexed := range workflows.SearchAttributes() {
		types[name] = indexed.String()
	}
	return types
}

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

func documentedDelays() []time.Duration {
	return []time.Duration{5 * time.Minute, 15 * time.Minute, 45 * time.Minute, 2 * time.Hour, 6 * time.Hour}
}

// soon are the documented delays, but for a first one that a test can wait out.
func soon() []time.Duration {
	delays := documentedDelays()
	delays[0] = time.Second
	return delays
}

// sharedKey is made once: an RSA key costs more than the rest of a test.
var sharedKey = sync.OnceValues(func() (*ecw.Key, error) { return ecw.GenerateKey("vantrexia-ecw-key-1") })

// setup is what tests change about their rig; the zero value is the normal case.
type setup struct {
	writeMode         ecw.WriteMode
	ignoreIfNoneExist bool                            // the EHR has no conditional create
	watch             func(http.Handler) http.Handler // sees every request to the EHR
	intercept         grpc.UnaryClientInterceptor     // sees every call to Temporal
	log               slog.Handler
	idle              bool            // no worker runs until the test starts one
	delays            []time.Duration // between deliveries; nil: the documented ones
	drain             time.Duration   // that a worker which stops has; 0: enough
	perMinute         int             // requests to eCW, for us and for the sandbox; 0: more than a test sends
	parallel          int             // requests to eCW at once; 0: more than a test sends
	timeout           time.Duration   // of a request to eCW; 0: the usual one
	keep              activities.Keep // the zero value keeps all for ever
	patients          int             // of the EHR; 0: the usual ones
	keys              *keyring.Keyring
	importParallel    int // chunks of an import at a time; 0: the usual number
}

// rig is one practice with everything it needs, shared with no other test.
type rig struct {
	t         *testing.T
	store     *db.Store
	sql       *pgx.Conn // for what package db has no query for
	address   string    // of Temporal
	namespace string
	keys      *keyring.Keyring
	temporal  client.Client
	ehr       *ecw.Client
	gate      *gate.Gate
	ehrURL    string
	log       *slog.Logger
	patient   db.Patient
	worker    *worker.Worker // nil when idle
	delays    []time.Duration
	drain     time.Duration
	keep      activities.Keep
	importing int // chunks at a time
}

func newRig(t *testing.T, s setup) *rig {
	t.Helper()
	r := &rig{
		t:         t,
		log:       slog.New(cmp.Or[slog.Handler](s.log, slog.DiscardHandler)),
		keys:      cmp.Or(s.keys, keyringtest.Shared()),
		delays:    s.delays,
		drain:     cmp.Or(s.drain, patience),
		keep:      s.keep,
		importing: cmp.Or(s.importParallel, 10),
	}
	if r.delays == nil {
		r.delays = documentedDelays()
	}
	url := stack.Postgres(t)
	r.store = must(db.Open(t.Context(), devtest.AsRuntime(t, url), keyringtest.Shared()))(t)
	t.Cleanup(r.store.Close)
	r.sql = must(pgx.Connect(t.Context(), url))(t)
	t.Cleanup(func() { _ = r.sql.Close(context.Background()) })
	r.address, r.namespace = stack.Temporal(t)
	r.temporal = r.dial(s.intercept)
	r.gate = gate.New(gate.Config{
		Store:     r.store,
		Practice:  practice,
		PerMinute: cmp.Or(s.perMinute, 100_000),
		Parallel:  cmp.Or(s.parallel, 100),
		Timeout:   cmp.Or(s.timeout, ecw.DefaultTimeout),
		FirstWait: r.delays[0],
		Call: func(ctx context.Context, practice string, id uuid.UUID, call gate.Call) error {
			return worker.Call(r.temporal)(ctx, practice, id, call)
		},
		Logger: r.log,
	})
	r.startEHR(s)
	r.linkPatient()
	if !s.idle {
		r.worker = r.startWorker(r.temporal)
	}
	return r
}

// on is the rig for a subtest.
func (r *rig) on(t *testing.T) *rig {
	sub := *r
	sub.t = t
	return &sub
}

// sealing is how the rig's payloads are sealed.
func (r *rig) sealing() payload.Sealing {
	return payload.Sealing{Keys: r.keys, Namespace: r.namespace}
}

// dial makes a client of the rig's namespace.
func (r *rig) dial(intercept grpc.UnaryClientInterceptor) client.Client {
	r.t.Helper()
	return r.dialWith(r.sealing(), intercept)
}

func (r *rig) dialWith(sealing payload.Sealing, intercept grpc.UnaryClientInterceptor) client.Client {
	r.t.Helper()
	options := client.Options{HostPort: r.address, Namespace: r.namespace, Identity: "tests", Logger: temporallog.NewStructuredLogger(r.log)}
	if intercept != nil {
		options.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(intercept)}
	}
	options.DataConverter, options.FailureConverter = sealing.Converters()
	options.Interceptors = []interceptor.ClientInterceptor{sealing.Interceptor()}
	c := must(client.DialContext(r.t.Context(), options))(r.t)
	r.t.Cleanup(c.Close)
	return c
}

func (r *rig) startEHR(s setup) {
	r.t.Helper()
	key := must(sharedKey())(r.t)
	jwks := must(ecw.PublicJWKS(key))(r.t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(jwks) }))
	r.t.Cleanup(app.Close)

	listener := must(net.Listen("tcp", "127.0.0.1:0"))(r.t)
	r.ehrURL = "http://" + listener.Addr().String()
	server := must(sandbox.New(sandbox.Config{
		ClientID: clientID, PracticeCode: practice, JWKSURL: app.URL, PublicURL: r.ehrURL, IgnoreIfNoneExist: s.ignoreIfNoneExist,
		RatePerMinute: s.perMinute, Patients: s.patients,
	}))(r.t)
	var handler http.Handler = server
	if s.watch != nil {
		handler = s.watch(server)
	}
	web := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
	web.Start()
	r.t.Cleanup(func() {
		_ = server.Close()
		web.Close()
	})
	r.ehr = must(ecw.New(ecw.Config{
		ClientID: clientID, PracticeCode: practice, Key: key, WriteMode: s.writeMode, Logger: r.log, Limiter: r.gate, Timeout: s.timeout,
		TokenURL: server.TokenURL(), FHIRBaseURL: server.FHIRBaseURL(),
	}))(r.t)
}

func (r *rig) linkPatient() {
	r.t.Helper()
	person := sandbox.People()[0]
	r.patient = must(r.store.CreatePatient(r.t.Context(), db.CreatePatientParams{
		PracticeCode: practice,
		Demographics: db.Demographics{
			FirstName:   person.FirstName,
			LastName:    person.LastName,
			DateOfBirth: must(time.Parse(time.DateOnly, person.BirthDate))(r.t),
			MRN:         person.MRN,
			ExternalID:  &person.FHIRID,
		},
		Active: true,
	}))(r.t)
}

// startWorker runs a worker until the test ends, or stops it.
func (r *rig) startWorker(c client.Client) *worker.Worker {
	r.t.Helper()
	w := worker.New(c, practice, worker.Activities{
		Transmission:  &activities.Transmission{Store: r.store, EHR: r.ehr, Gate: r.gate, RetryDelays: r.delays, Logger: r.log},
		Pending:       &activities.Pending{Store: r.store},
		PatientImport: &activities.PatientImport{Store: r.store, EHR: r.ehr, Gate: r.gate, Parallel: r.importing, Start: worker.Start(r.temporal), Logger: r.log},
		Circuit:       &activities.Circuit{Store: r.store, Gate: r.gate},
		Prune:         &activities.Prune{Store: r.store, Keep: r.keep, Logger: r.log},
	}, r.drain)
	if err := w.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(w.Stop)
	return w
}

// admin asks the sandbox for something under /admin/ and decodes its answer, if into is not nil.
func (r *rig) admin(method, path string, body, into any) {
	r.t.Helper()
	sent := must(json.Marshal(body))(r.t)
	req := must(http.NewRequestWithContext(r.t.Context(), method, r.ehrURL+"/admin/"+path, bytes.NewReader(sent)))(r.t)
	res := must(http.DefaultClient.Do(req))(r.t)
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		r.t.Fatalf("%s /admin/%s: %s", method, path, res.Status)
	}
	if into == nil {
		return
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		r.t.Fatal(err)
	}
}

// fault is one that the sandbox is asked for; see ecw/sandbox/README.md.
type fault struct {
	Kind       string `json:"kind"`
	Target     string `json:"target,omitempty"`
	Count      int    `json:"count,omitempty"`
	For        string `json:"for,omitempty"`
	Delay      string `json:"delay,omitempty"`
	Work       string `json:"work,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
}

func (r *rig) breakEHR(f fault) {
	r.t.Helper()
	r.admin(http.MethodPost, "faults", f, nil)
}

// faultsLeft counts the faults that still wait for a request.
func (r *rig) faultsLeft() int {
	r.t.Helper()
	var list struct{ Faults []any }
	r.admin(http.MethodGet, "faults", nil, &list)
	return len(list.Faults)
}

func (r *rig) stats() sandbox.Stats {
	r.t.Helper()
	var s sandbox.Stats
	r.admin(http.MethodGet, "stats", nil, &s)
	return s
}

// must returns a function that ends the test when a call failed, else gives its result: must(f())(t).
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually asks until the answer is yes. Nothing tells us of a change in the database or in the sandbox.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
