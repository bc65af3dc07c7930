package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/test/proof"
)

// retryDelays are short, and there are enough of them for a reading to outlast a series of faults.
const retryDelays = "1s,2s,3s,5s,8s,8s,8s,8s,8s,8s,8s,8s"

const (
	// drainTimeout is how long a process may take after SIGTERM to finish its work. stopTimeout is how long
	// it may take in all to end: a worker has five more seconds to report, and this machine may be busy.
	drainTimeout = 15 * time.Second
	stopTimeout  = drainTimeout + 10*time.Second
	// ehrMargin is how many requests a minute the EHR allows above our own limit, as eCW does with 250 and
	// our default of 240.
	ehrMargin = 10
)

// system is everything that runs: two servers, and the roles of the binary as processes of their own.
type system struct {
	cfg       config
	ehr       ehr
	vantrexia devstack.Vantrexia
	temporal  client.Client
	database  string // URL
	dir       string
	log       *slog.Logger
	ports     map[string]int
	parts     map[string]*part
	order     []*part // of their start
}

const sandboxPart = "sandbox"

// startSystem starts everything in dir, and returns when it is ready for readings. stop must be called, also
// after an error.
func startSystem(ctx context.Context, cfg config, e ehr, dir string, log *slog.Logger) (*system, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	s := &system{
		cfg:   cfg,
		ehr:   e,
		dir:   dir,
		log:   log,
		parts: map[string]*part{},
	}

	var err error
	if s.ports, err = devstack.ChoosePorts(append(disturbed(), sandboxPart)...); err != nil {
		return s, err
	}

	if s.database, err = s.startServers(ctx); err != nil {
		return s, err
	}

	s.temporal, err = client.NewLazyClient(client.Options{
		HostPort: s.address(temporalPart),
		Logger:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return s, err
	}

	s.vantrexia, err = devstack.Install(ctx, devstack.Vantrexia{
		Binary:   cfg.Binary,
		Dir:      dir,
		Settings: s.environment(),
	}, s.address(sandboxPart), s.address(firstAPI))
	if err != nil {
		return s, err
	}

	for _, start := range []func(context.Context) error{
		s.startRole(sandboxPart, "sandbox", "SANDBOX_RATE_LIMIT="+strconv.Itoa(cfg.RateLimit+ehrMargin)),
		s.startRole(firstAPI, "api", "API_ADDRESS="+s.address(firstAPI)),
		s.startRole(secondAPI, "api", "API_ADDRESS="+s.address(secondAPI)),
		s.startRole(firstWorker, "worker", "HEALTH_ADDRESS="+s.address(firstWorker)),
		s.startRole(secondWorker, "worker", "HEALTH_ADDRESS="+s.address(secondWorker)),
	} {
		if err := start(ctx); err != nil {
			return s, err
		}
	}

	if err := s.awaitReady(ctx); err != nil {
		return s, err
	}
	return s, s.heal(ctx)
}

// startServers starts PostgreSQL and Temporal, and returns the URL of the database. Neither syncs to the
// disk, because only processes die here, not the machine.
func (s *system) startServers(ctx context.Context) (string, error) {
	var database string
	err := s.keep(ctx, postgresPart, "", func(ctx context.Context) (running, error) {
		server, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
			Dir:     filepath.Join(s.dir, postgresPart),
			Port:    s.ports[postgresPart],
			Install: true,
		})
		if err != nil {
			return nil, err
		}
		if database == "" {
			if err := server.CreateDatabase(ctx, "vantrexia"); err != nil {
				return nil, errors.Join(err, server.Stop())
			}
			database = server.URL("vantrexia")
		}
		return server, nil
	})
	if err != nil {
		return "", err
	}

	return database, s.keep(ctx, temporalPart, "", func(ctx context.Context) (running, error) {
		server, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{
			Binary:   s.cfg.TemporalBinary,
			Dir:      filepath.Join(s.dir, temporalPart),
			Port:     s.ports[temporalPart],
			Headless: true,
		})
		if err != nil { // no typed nil in the interface
			return nil, err
		}
		return server, nil
	})
}

// environment returns the settings of every role, except for those of devstack.SandboxSettings.
func (s *system) environment() []string {
	return []string{
		"DATABASE_URL=" + s.database,
		"AUDIT_CHECKPOINTS_FILE=" + s.checkpoints(),
		"TEMPORAL_ADDRESS=" + s.address(temporalPart),
		"DRAIN_TIMEOUT=" + drainTimeout.String(),
		"API_TOKEN_SECRET=" + strings.Repeat("chaos", 8),
		"API_INGESTION_LIMIT=0", // one caller sends and asks for all
		"API_CALLER_LIMIT=0",
		"RETRY_DELAYS=" + retryDelays,
		"SANDBOX_CLOCK_OFFSET=" + s.ehr.Clock.String(),
		"ECW_WRITE_MODE=" + s.ehr.WriteMode,
		"ECW_TIMEOUT=3s",
		"ECW_RATE_LIMIT=" + strconv.Itoa(s.cfg.RateLimit),
	}
}

func (s *system) address(name string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[name]))
}

func (s *system) url(name string) string { return "http://" + s.address(name) }

func (s *system) keep(ctx context.Context, name, alive string, start func(context.Context) (running, error)) error {
	p, err := keep(ctx, &part{
		name:  name,
		start: start,
		alive: alive,
		log:   s.log,
	})
	if err != nil {
		return err
	}

	s.parts[name], s.order = p, append(s.order, p)
	return nil
}

// startRole starts "vantrexia api" and the like.
func (s *system) startRole(name, role string, settings ...string) func(context.Context) error {
	start := func(context.Context) (running, error) {
		p, err := s.vantrexia.Start(name, role, settings...)
		if err != nil { // no typed nil in the interface
			return nil, err
		}
		return p, nil
	}
	return func(ctx context.Context) error { return s.keep(ctx, name, s.url(name)+"/healthz", start) }
}

// awaitReady asks until every API and every worker reaches both servers.
func (s *system) awaitReady(ctx context.Context) error {
	for _, name := range []string{firstAPI, secondAPI, firstWorker, secondWorker} {
		for {
			var answer struct{ Status string }
			err := proof.Call(ctx, http.MethodGet, s.url(name)+"/readyz", "", nil, &answer)
			if err == nil && answer.Status == "ready" {
				break
			}
			pause(ctx, 100*time.Millisecond)
			if ctx.Err() != nil {
				return fmt.Errorf("%s does not get ready: %w", name, ctx.Err())
			}
		}
	}

	return nil
}

func (s *system) addFault(ctx context.Context, f fault) error {
	return proof.Call(ctx, http.MethodPost, s.url(sandboxPart)+"/admin/faults", "", f, nil)
}

// heal ends every fault of the EHR, except for its habits.
func (s *system) heal(ctx context.Context) error {
	if err := proof.Call(ctx, http.MethodDelete, s.url(sandboxPart)+"/admin/faults", "", nil, nil); err != nil {
		return fmt.Errorf("end the faults: %w", err)
	}
	for _, habit := range s.ehr.Habits {
		if err := s.addFault(ctx, habit); err != nil {
			return fmt.Errorf("set the EHR's habit %s: %w", habit.Kind, err)
		}
	}
	return nil
}

// openEHR starts the EHR again on its stored data, without its limit and its habits, so that every reading
// can be searched.
func (s *system) openEHR(ctx context.Context) error {
	s.parts[sandboxPart].end()
	if err := s.startRole(sandboxPart, "sandbox")(ctx); err != nil {
		return err
	}

	for proof.Call(ctx, http.MethodGet, s.url(sandboxPart)+"/admin/faults", "", nil, nil) != nil {
		pause(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("the EHR does not start again: %w", ctx.Err())
		}
	}

	return nil
}

// witnesses returns whom to ask for the verdict.
func (s *system) witnesses(o proof.Operator) (w proof.Witnesses, err error) {
	client, err := s.vantrexia.EHR(s.address(sandboxPart))
	if err != nil {
		return w, err
	}

	w = proof.Witnesses{
		Operator: o,
		Sandbox:  s.url(sandboxPart),
		EHR:      client,
		Temporal: s.temporal,
		Settled:  s.openEHR,
	}
	for _, name := range []string{firstAPI, secondAPI, firstWorker, secondWorker, sandboxPart} {
		w.Processes = append(w.Processes, s.vantrexia.LogFile(name))
	}

	return w, nil
}

// stop stops everything from the top down, and returns what went wrong with the processes.
func (s *system) stop() (problems []string) {
	for _, p := range slices.Backward(s.order) {
		p.end()
		problems = append(problems, p.wrong()...)
	}
	if s.temporal != nil {
		s.temporal.Close()
	}
	return problems
}
