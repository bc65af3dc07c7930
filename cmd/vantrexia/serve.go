package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/worker"
)

// startHelp is what the commands that serve have in common.
const startHelp = `
It may start before PostgreSQL, Temporal or ` + "`vantrexia migrate`" + ` are ready: it waits, and says every few seconds what for.
What waiting cannot mend ends it at once: a setting that cannot be read, a password or a database that is wrong. /healthz
and /readyz answer from the start, also on HEALTH_ADDRESS if that is set; ` + "`vantrexia health`" + ` asks them.`

func apiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "api",
		Short: "Serve the HTTP API",
		Long: `Serves the HTTP API on API_ADDRESS. While the database is away or its schema older than this binary, requests are answered
503; while Temporal is away, readings are stored all the same.
` + startHelp + `

SIGTERM or Ctrl-C stops it: it takes no new requests, and those under way have DRAIN_TIMEOUT (40s) to end. Whatever is set
to kill it afterwards should wait longer (terminationGracePeriodSeconds: 60). A second signal ends it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), parts{api: true}) },
	}
}

func workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Run the workflows and activities that deliver readings",
		Long: `Takes the work of the practice (ECW_PRACTICE_CODE) from Temporal's task queue "transmissions/<practice>". Run as many as you like.
` + startHelp + `

SIGTERM or Ctrl-C stops it: it takes no new work, and what it holds has DRAIN_TIMEOUT (40s) to end. A delivery that takes
longer is given up; its outcome is unknown then, and the next worker asks eCW before it sends again. It ends at most 5
seconds after that, so whatever is set to kill it should wait longer (terminationGracePeriodSeconds: 60). A second signal
ends it at once, which loses nothing, but holds up its deliveries until they are missed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), parts{worker: true}) },
	}
}

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve the HTTP API and run a worker, in one process",
		Long: `Does what "vantrexia api" and "vantrexia worker" do, in one process.
` + startHelp + `

SIGTERM or Ctrl-C stops it: first the API, then the worker, each with DRAIN_TIMEOUT (40s) for what is under way. Whatever is
set to kill it should wait longer than both (terminationGracePeriodSeconds: 100). A second signal ends it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), parts{api: true, worker: true})
		},
	}
}

// parts says what a process does.
type parts struct{ api, worker bool }

// check returns an error for a key or a secret that does not serve, before anything is waited for.
func (p parts) check(cfg config, log *slog.Logger) error {
	if p.api {
		return cfg.checkSecrets(log)
	}
	_, err := cfg.ehr(log, nil) // a worker needs no secret of the API
	return err
}

// serve runs the parts until ctx ends.
func serve(ctx context.Context, p parts) error {
	cfg, err := loadConfig()
	if err != nil {
		return err
	}

	log := cfg.logger(slog.LevelDebug)
	if err := p.check(cfg, log); err != nil {
		return err
	}

	store, err := newStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer store.Close()

	temporal, err := newTemporalClient(cfg)
	if err != nil {
		return err
	}
	defer temporal.Close()

	d := dependencies{
		cfg:      cfg,
		log:      log,
		store:    store,
		temporal: temporal,
		working:  new(atomic.Bool),
	}
	roles, err := serveRoles(ctx, d, p)
	if err != nil {
		return err
	}

	fitMemory(ctx, log)
	return runRoles(ctx, roles)
}

// serveRoles lists what runs, from the bottom up, and opens the ports.
func serveRoles(ctx context.Context, d dependencies, p parts) ([]role, error) {
	migrated := make(chan struct{})
	roles := []role{{"database", func(ctx context.Context) error { return awaitDatabase(ctx, d, migrated) }}}
	if err := d.checkDatabase(ctx); db.IsRefused(err) {
		return nil, databaseError(err)
	}

	if d.cfg.HealthAddress != "" {
		listener, err := listen(d.cfg.HealthAddress, "HEALTH_ADDRESS")
		if err != nil {
			return nil, err
		}
		probes := d.probe(ctx, p).Handler()
		roles = append(roles, role{"health", func(ctx context.Context) error {
			return serveHTTP(ctx, listener, probes, d.cfg.DrainTimeout)
		}})
	}

	if p.worker {
		roles = append(roles, role{"worker", func(ctx context.Context) error {
			select {
			case <-migrated:
				return runWorker(ctx, d)
			case <-ctx.Done():
				return nil
			}
		}})
	}

	if p.api {
		listener, err := listen(d.cfg.APIAddress, "API_ADDRESS")
		if err != nil {
			return nil, err
		}
		roles = append(roles, role{"API", func(ctx context.Context) error { return serveAPI(ctx, d, listener) }})
	}
	return roles, nil
}

// role is a part of the process that runs until its context ends.
type role struct {
	name string
	run  func(context.Context) error
}

// runRoles starts the roles in order and runs them until ctx ends or one of them does. Then it stops them in
// the reverse order, each only after the one above it: what takes work in ends first, what the others stand
// on last.
func runRoles(ctx context.Context, roles []role) error {
	type running struct {
		stop context.CancelFunc
		done chan error
	}
	ended := make(chan struct{}, len(roles))
	all := make([]running, len(roles))
	for i, r := range roles {
		roleCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		all[i] = running{stop: stop, done: make(chan error, 1)}
		go func() {
			all[i].done <- r.run(roleCtx)
			ended <- struct{}{}
		}()
	}

	select {
	case <-ctx.Done():
	case <-ended:
	}

	var first error
	for i := len(roles) - 1; i >= 0; i-- {
		all[i].stop()
		if err := <-all[i].done; err != nil && first == nil {
			first = fmt.Errorf("%s: %w", roles[i].name, err)
		}
	}

	return first
}

const (
	firstPause   = time.Second
	longestPause = 5 * time.Second
	// askTimeout bounds one question, so that a host that swallows packets is told of as well.
	askTimeout = 6 * time.Second
)

// await asks until the answer is good, and logs each time why it is not. It ends with an error that waiting
// cannot fix, and with ctx's as soon as that ends.
func await(ctx context.Context, log *slog.Logger, what string, ask func(context.Context) error, hopeless func(error) bool) error {
	pause := firstPause
	for {
		err := ask(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || hopeless(err) {
			return err
		}

		log.WarnContext(ctx, "waiting for "+what, "reason", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}

		pause = min(2*pause, longestPause)
	}
}

// fitMemory makes the process fit the memory that it may use, GOMEMLIMIT or nine tenths of its container's
// limit: the garbage collector works harder before the kernel would end the process, and waiting workflows
// are kept as far as there is room.
func fitMemory(ctx context.Context, log *slog.Logger) {
	limit, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrCgroupsNotSupported) && !errors.Is(err, memlimit.ErrNoCgroup) {
		log.WarnContext(ctx, "the memory limit could not be read; set GOMEMLIMIT", "error", err)
	}

	cached := worker.CacheSize(limit)
	worker.SetCacheSize(cached)

	known := slog.Int64("limit_mib", limit>>20)
	if limit == math.MaxInt64 {
		known = slog.String("limit", "none")
	}
	log.InfoContext(ctx, "memory", known, "cached_workflows", cached)
}
