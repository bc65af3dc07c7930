package main

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/db"
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

// check tells about a key or a secret that does not serve before anything is waited for.
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
	d := dependencies{cfg: cfg, log: log, store: store, temporal: temporal, working: new(atomic.Bool)}
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
		roles = append(roles, role{"health", func(ctx context.Context) error { return serveHTTP(ctx, listener, probes, d.cfg.DrainTimeout) }})
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
