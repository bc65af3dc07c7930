package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/api"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/worker"
)

// dependencies is what the API and the worker both stand on.
type dependencies struct {
	cfg      config
	log      *slog.Logger
	store    *db.Store
	temporal client.Client
	working  *atomic.Bool // set while the worker takes work
}

// newStore makes the pool without connecting.
func newStore(ctx context.Context, cfg config) (*db.Store, error) {
	if cfg.DatabaseURL == "" {
		return nil, errors.New("DATABASE_URL is not set: set it to postgres://user:password@host:5432/database, or use `make run`, " +
			"which brings a database of its own")
	}
	return db.NewStore(ctx, cfg.DatabaseURL)
}

// openStore is newStore for commands that need the database at once.
func openStore(ctx context.Context, cfg config) (*db.Store, error) {
	store, err := newStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := store.Ping(ctx); err != nil {
		store.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, databaseError(err)
	}
	return store, nil
}

// databaseError says in one line why there is no connection.
func databaseError(err error) error {
	var refused *pgconn.ConnectError
	if !errors.As(err, &refused) {
		return err
	}
	// Of the addresses and encryptions that pgx tried, one reason is enough.
	reason := strings.ReplaceAll(refused.Unwrap().Error(), "\n", "; ")
	var answer *pgconn.PgError
	var dial *net.OpError
	var lookup *net.DNSError
	switch {
	case errors.As(refused, &answer):
		reason = answer.Message
	case errors.As(refused, &dial):
		reason = dial.Error()
	case errors.As(refused, &lookup):
		reason = lookup.Error()
	}
	text := fmt.Sprintf("no connection to the database %q at %s (%s): check that it runs and that DATABASE_URL is right",
		refused.Config.Database, net.JoinHostPort(refused.Config.Host, strconv.Itoa(int(refused.Config.Port))), reason)
	return &explained{text: text, cause: err}
}

// explained is an error in our words.
type explained struct {
	text  string
	cause error
}

func (e *explained) Error() string { return e.text }

func (e *explained) Unwrap() error { return e.cause }

// temporalTimeout bounds the first question to Temporal, whose client would ask for ever.
const temporalTimeout = 15 * time.Second

// prepareNamespace creates the namespace when it is missing, and adds the search attributes that it lacks.
func prepareNamespace(ctx context.Context, c client.Client, cfg config) (created bool, added []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	created, err = worker.EnsureNamespace(ctx, c, cfg.TemporalNamespace)
	if err == nil {
		added, err = worker.RegisterSearchAttributes(ctx, c, cfg.TemporalNamespace)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return created, nil, ctx.Err() // not the way in which Temporal's client says so
	}
	if err != nil {
		return created, nil, temporalError(cfg, err)
	}
	return created, added, nil
}

func temporalError(cfg config, err error) error {
	return fmt.Errorf("is Temporal running at %s (TEMPORAL_ADDRESS), with the namespace %q? %w",
		cfg.temporalAddress(), cfg.TemporalNamespace, err)
}

func serveAPI(ctx context.Context, d dependencies, listener net.Listener) error {
	handler, err := newAPI(d)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	d.log.InfoContext(ctx, "API listening", "address", listener.Addr().String())
	return serveHTTP(ctx, listener, handler, d.cfg.DrainTimeout)
}

func newAPI(d dependencies) (http.Handler, error) {
	jwks, err := d.cfg.jwks()
	if err != nil {
		return nil, err
	}
	secret, err := d.cfg.tokenSecret()
	if err != nil {
		return nil, err
	}
	log := d.log.With("component", "api")
	ehr, err := d.cfg.ehr(log, d.gate(log))
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(d.cfg.TimeZone)
	if err != nil {
		return nil, err
	}
	made := d.apiConfig()
	made.EHR, made.JWKS, made.TimeZone, made.TokenSecret, made.Logger = ehr, jwks, zone, secret, log
	return api.New(made)
}

// apiConfig is what of the API's configuration takes no making.
func (d dependencies) apiConfig() api.Config {
	return api.Config{
		Store:             d.store,
		Temporal:          d.temporal,
		TemporalNamespace: d.cfg.TemporalNamespace,
		TemporalUIURL:     d.cfg.TemporalUIURL,
		PublicURL:         strings.TrimRight(d.cfg.PublicURL, "/"),
		PracticeCode:      d.cfg.ECW.PracticeCode,
		MRNSystem:         d.cfg.ECW.MRNSystem,
		TokenIssuer:       d.cfg.TokenIssuer,
		TokenAudience:     d.cfg.TokenAudience,
	}
}

func (d dependencies) patientImport(ehr *ecw.Client, entry *gate.Gate, log *slog.Logger) *activities.PatientImport {
	return &activities.PatientImport{
		Store:     d.store,
		EHR:       ehr,
		Gate:      entry,
		MRNSystem: d.cfg.ECW.MRNSystem,
		Parallel:  d.cfg.ImportParallel,
		Logger:    log,
	}
}

// gate is the one way to the practice's eCW.
func (d dependencies) gate(log *slog.Logger) *gate.Gate {
	return gate.New(gate.Config{
		Store:     d.store,
		Practice:  d.cfg.ECW.PracticeCode,
		PerMinute: d.cfg.ECW.RateLimit,
		Parallel:  d.cfg.ECW.Parallel,
		Timeout:   d.cfg.ECW.Timeout,
		FirstWait: d.cfg.RetryDelays[0],
		Call:      worker.Call(d.temporal),
		Logger:    log,
	})
}

func runWorker(ctx context.Context, d dependencies) error {
	log := d.log.With("component", "ecw_sync")
	entry := d.gate(log)
	ehr, err := d.cfg.ehr(log, entry)
	if err != nil {
		return err
	}
	w := worker.New(d.temporal, d.cfg.ECW.PracticeCode, worker.Activities{
		Transmission:  &activities.Transmission{Store: d.store, EHR: ehr, Gate: entry, RetryDelays: d.cfg.RetryDelays, Logger: log},
		Pending:       &activities.Pending{Store: d.store},
		PatientImport: d.patientImport(ehr, entry, log),
		Circuit:       &activities.Circuit{Store: d.store, Gate: entry},
	}, d.cfg.DrainTimeout)
	started := func() {
		d.working.Store(true)
		warnOfOthers(ctx, d, log)
		log.InfoContext(ctx, "worker started", "practice", d.cfg.ECW.PracticeCode, "environment", d.cfg.ECW.Environment)
	}
	err = await(ctx, log, "Temporal", func(ctx context.Context) error { return prepareTemporal(ctx, d) }, refusedByTemporal)
	if ctx.Err() != nil { // told to stop before it had quite started
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.Run(ctx, started); err != nil {
		return temporalError(d.cfg, err)
	}
	return nil
}

// warnOfOthers says when readings of another practice wait, which this worker does not take: perhaps ECW_PRACTICE_CODE was
// changed while they were under way.
func warnOfOthers(ctx context.Context, d dependencies, log *slog.Logger) {
	others, err := d.store.OpenElsewhere(ctx, d.cfg.ECW.PracticeCode)
	if err != nil {
		log.WarnContext(ctx, "readings of other practices could not be counted", "error", err)
	}
	for _, other := range others {
		log.WarnContext(ctx, "readings of another practice are under way, and wait for a worker with its ECW_PRACTICE_CODE",
			"practice", other.PracticeCode, "readings", other.Open)
	}
}

// prepareTemporal makes sure of what the workflows need around them, before the first of them runs.
func prepareTemporal(ctx context.Context, d dependencies) error {
	if err := checkTemporal(ctx, d); err != nil {
		return temporalError(d.cfg, err)
	}
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	if err := worker.CheckSearchAttributes(ctx, d.temporal, d.cfg.TemporalNamespace); err != nil {
		return err
	}
	return worker.EnsureSchedules(ctx, d.temporal, d.cfg.ECW.PracticeCode)
}

// listen opens a TCP port; setting is the name of the one that chose it.
func listen(address, setting string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken: stop what listens there, or choose another address with %s", address, setting)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q cannot be listened on, use host:port or :port: %w", setting, address, err)
	}
	return listener, nil
}

// serveHTTP serves until ctx ends, then lets the requests under way end.
func serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler, drain time.Duration) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		err := server.Shutdown(limited)
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.Join(fmt.Errorf("requests were cut off that had not ended after %s (DRAIN_TIMEOUT)", drain), server.Close())
		}
		stopped <- err
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	return <-stopped
}
