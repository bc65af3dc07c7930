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

	"github.com/vantrexia/vantrexia/worker"
)

// startHelp is the part of the help that api, worker and serve share.
const startHelp = `
It may start before PostgreSQL, Temporal or ` + "`vantrexia migrate`" + ` are ready. It waits for them, and logs every few seconds
what it waits for. An error that waiting cannot fix ends it at once: a setting that cannot be read, a wrong password, a wrong
database name. /healthz and /readyz answer from the start, also on HEALTH_ADDRESS if that is set. ` + "`vantrexia health`" + `
asks them.`

func apiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "api",
		Short: "Serve the HTTP API",
		Long: `Serves the HTTP API on API_ADDRESS. It answers 503 while the database is away, or while its schema is older than this
binary. While Temporal is away, readings are stored, and delivered later.
` + startHelp + `

SIGTERM or Ctrl-C stops it. It takes no new requests, and those under way have DRAIN_TIMEOUT (40s) to end. A service manager
should wait longer before it kills the process (terminationGracePeriodSeconds: 60). A second signal ends it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), parts{api: true}) },
	}
}

func workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Run the workflows and activities that deliver readings",
		Long: `Takes the work of the practice (ECW_PRACTICE_CODE) from Temporal's task queue "transmissions/<practice>". Run as many
workers as you like.
` + startHelp + `

SIGTERM or Ctrl-C stops it. It takes no new work, and deliveries under way have DRAIN_TIMEOUT (40s) to end. A delivery that
takes longer is given up, and its outcome is unknown: the next worker asks eCW for it before it sends again. The worker ends
at most 5 seconds after that. A service manager should wait longer before it kills the process
(terminationGracePeriodSeconds: 60). A second signal ends it at once. Nothing is lost then, but its deliveries wait until
Temporal notices that the worker is gone.`,
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

SIGTERM or Ctrl-C stops it: first the API, then the worker, each with DRAIN_TIMEOUT (40s) for what is under way. A service
manager should wait longer than both together before it kills the process (terminationGracePeriodSeconds: 100). A second
signal ends it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), parts{api: true, worker: true})
		},
	}
}

// parts says which parts a process runs.
type parts struct{ api, worker bool }

// String is the name of the command that runs them.
func (p parts) String() string {
	switch p {
	case parts{api: true}:
		return "api"
	case parts{worker: true}:
		return "worker"
	}
	return "serve"
}

// check returns an error for a key or a secret that cannot be used, before the process waits for anything.
func (p parts) check(cfg config, log *slog.Logger) error {
	if p.api {
		return cfg.checkSecrets(log)
	}
	keys, err := cfg.ecwKeys(log) // a worker needs no secret of the API
	if err != nil {
		return err
	}
	_, err = cfg.ehr(log, nil, keys)
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
	if err := cfg.checkCheckpoints(log); err != nil {
		return err
	}

	d := dependencies{cfg: cfg, log: log, working: new(atomic.Bool)}
	defer d.close()

	if d.keys, err = cfg.keyring(); err != nil {
		return err
	}
	warnOfOldKeys(log, d.keys)

	if d.store, err = newStore(ctx, cfg, d.keys); err != nil {
		return err
	}
	go d.keys.Watch(ctx, log, d.acceptKeyring)

	if d.temporal, err = newTemporalClient(cfg, d.keys); err != nil {
		return err
	}

	roles, err := serveRoles(ctx, d, p)
	if err != nil {
		return err
	}

	thisBuild().log(log, p.String())
	fitMemory(ctx, log)
	return runRoles(ctx, roles)
}

// serveRoles lists the roles in the order of their start, and opens the ports.
func serveRoles(ctx context.Context, d dependencies, p parts) ([]role, error) {
	migrated := make(chan struct{})
	roles := []role{{"database", func(ctx context.Context) error { return awaitDatabase(ctx, d, migrated) }}}
	if err := d.checkDatabase(ctx); neverWorks(err) {
		return nil, databaseError(err)
	}

	roles = append(roles, role{"audit trail", after(migrated, func(ctx context.Context) error { return sealTrail(ctx, d) })})

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
		roles = append(roles, role{"worker", after(migrated, func(ctx context.Context) error { return runWorker(ctx, d) })})
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

// after waits before it runs a role.
func after(ready <-chan struct{}, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ready:
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// runRoles starts the roles in order and runs them until ctx ends or one of them ends. Then it stops them in
// reverse order, one after the other: a role that takes work ends first, a server that others need ends last.
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
	// askTimeout bounds one question, so that a host that drops packets is reported as well.
	askTimeout = 6 * time.Second
)

// await repeats ask until it returns no error, and logs each error. It returns an error for which hopeless is
// true, because waiting cannot fix it, and ctx's error as soon as ctx ends.
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

// fitMemory sets the memory limit: GOMEMLIMIT, or nine tenths of the container's limit. Near the limit the
// garbage collector works harder, so that the kernel does not kill the process. The worker caches as many
// waiting workflows as fit.
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
