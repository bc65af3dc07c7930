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
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/api"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/worker"
)

// drainTimeout bounds how long requests that are under way may take to end after a signal.
const drainTimeout = 15 * time.Second

func apiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "api",
		Short: "Serve the HTTP API",
		Long: `Serves the HTTP API on API_ADDRESS until SIGTERM or Ctrl-C, then lets the requests under way end. Needs DATABASE_URL
with a migrated schema; Temporal may come and go, readings are stored meanwhile.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withDependencies(cmd.Context(), func(ctx context.Context, d dependencies) error {
				listener, err := listen(d.cfg.APIAddress, "API_ADDRESS")
				if err != nil {
					return err
				}
				return serveAPI(ctx, d, listener)
			})
		},
	}
}

func workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Run the workflows and activities that deliver readings",
		Long: `Takes work from Temporal's task queue "transmissions" until SIGTERM or Ctrl-C, then lets the deliveries under way end.
Run as many as you like.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return withDependencies(cmd.Context(), runWorker) },
	}
}

// dependencies is what the API and the worker both stand on.
type dependencies struct {
	cfg      config
	log      *slog.Logger
	store    *db.Store
	temporal client.Client
}

// withDependencies opens what a role needs, runs it until ctx ends, and closes everything again.
func withDependencies(ctx context.Context, run func(context.Context, dependencies) error) error {
	cfg, err := loadConfig()
	if err != nil {
		return err
	}
	store, err := openStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.CheckMigrated(ctx); err != nil {
		return err
	}
	temporal, err := newTemporalClient(cfg)
	if err != nil {
		return err
	}
	defer temporal.Close()
	return run(ctx, dependencies{cfg: cfg, log: cfg.logger(slog.LevelDebug), store: store, temporal: temporal})
}

// openStore opens the database, and says in one line what is wrong when that fails.
func openStore(ctx context.Context, cfg config) (*db.Store, error) {
	if cfg.DatabaseURL == "" {
		return nil, errors.New("DATABASE_URL is not set: set it to postgres://user:password@host:5432/database, or use `make run`, which brings a database of its own")
	}
	store, err := db.Open(ctx, cfg.DatabaseURL)
	var refused *pgconn.ConnectError
	if err == nil || !errors.As(err, &refused) || ctx.Err() != nil {
		return store, err
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
	return nil, fmt.Errorf("no connection to the database %q at %s (%s): check that it runs and that DATABASE_URL is right",
		refused.Config.Database, net.JoinHostPort(refused.Config.Host, strconv.Itoa(int(refused.Config.Port))), reason)
}

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
	return fmt.Errorf("is Temporal running at %s (TEMPORAL_ADDRESS), with the namespace %q? %w", cfg.temporalAddress(), cfg.TemporalNamespace, err)
}

func serveAPI(ctx context.Context, d dependencies, listener net.Listener) error {
	handler, err := newAPI(d)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	d.log.InfoContext(ctx, "API listening", "address", listener.Addr().String())
	return serveHTTP(ctx, listener, handler)
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
	ehr, err := d.cfg.ehr(log)
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(d.cfg.TimeZone)
	if err != nil {
		return nil, err
	}
	return api.New(api.Config{
		Store: d.store, Temporal: d.temporal, TemporalNamespace: d.cfg.TemporalNamespace, TemporalUIURL: d.cfg.TemporalUIURL,
		EHR: ehr, PracticeCode: d.cfg.ECW.PracticeCode, JWKS: jwks, TimeZone: zone, Logger: log,
		TokenSecret: secret, TokenIssuer: d.cfg.TokenIssuer, TokenAudience: d.cfg.TokenAudience,
	})
}

func runWorker(ctx context.Context, d dependencies) error {
	log := d.log.With("component", "ecw_sync")
	ehr, err := d.cfg.ehr(log)
	if err != nil {
		return err
	}
	w := worker.New(d.temporal, worker.Activities{
		Transmission:  &activities.Transmission{Store: d.store, EHR: ehr, RetryDelays: d.cfg.RetryDelays, Logger: log},
		Pending:       &activities.Pending{Store: d.store},
		PatientImport: &activities.PatientImport{Store: d.store, EHR: ehr, Parallel: d.cfg.ImportParallel},
	})
	err = prepareTemporal(ctx, d)
	if ctx.Err() != nil { // told to stop before it had quite started
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.Start(); err != nil {
		return temporalError(d.cfg, err)
	}
	log.InfoContext(ctx, "worker started", "practice", d.cfg.ECW.PracticeCode, "environment", d.cfg.ECW.Environment)
	<-ctx.Done()
	w.Stop()
	return nil
}

// prepareTemporal makes sure of what the workflows need around them, before the first of them runs.
func prepareTemporal(ctx context.Context, d dependencies) error {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	if _, err := d.temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return temporalError(d.cfg, err)
	}
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
func serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		stopped <- server.Shutdown(drain)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	return <-stopped
}
