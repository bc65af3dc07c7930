package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/workflows"
)

// ports are opened before anything slow starts, so that a taken one is told at once.
type ports struct{ api, sandbox net.Listener }

// openPorts opens them, and puts the addresses it got into the settings: port 0 chooses a free one.
func openPorts(cfg *config, withSandbox bool) (p ports, err error) {
	if p.api, err = listen(cfg.APIAddress, "API_ADDRESS"); err != nil {
		return p, err
	}
	cfg.APIAddress = p.api.Addr().String()
	if !withSandbox {
		return p, nil
	}
	if p.sandbox, err = listen(cfg.SandboxAddress, "SANDBOX_ADDRESS"); err != nil {
		return p, errors.Join(err, p.api.Close())
	}
	cfg.SandboxAddress = p.sandbox.Addr().String()
	return p, nil
}

// close is for a start that fails half-way; who serves a port closes it first, and a second time does no harm.
func (p ports) close() {
	for _, listener := range []net.Listener{p.api, p.sandbox} {
		if listener != nil {
			_ = listener.Close()
		}
	}
}

// startChildren starts Temporal and PostgreSQL as far as the settings name none, and puts where they are into the
// settings. Temporal comes first: it is fast, and its ports may be taken. stop must be called, after an error too.
func startChildren(ctx context.Context, cfg *config, log *slog.Logger, out io.Writer) (children []role, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, stop := range stops {
			stop()
		}
	}
	if cfg.TemporalAddress == "" {
		temporal, err := startTemporal(ctx, *cfg, log)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, func() { stopChild(log, "Temporal", temporal.Stop) })
		children = append(children, childRole("Temporal", temporal.Done(), filepath.Join(stateDir, "temporal", "temporal.log")))
		cfg.TemporalAddress, cfg.TemporalUIURL = temporal.Address(), temporal.UIURL()
	}
	if cfg.DatabaseURL == "" {
		postgres, err := startPostgres(ctx, log, out)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, func() { stopChild(log, "PostgreSQL", postgres.Stop) })
		children = append(children, childRole("PostgreSQL", postgres.Done(), filepath.Join(stateDir, "postgres", "log")))
		cfg.DatabaseURL = postgres.URL(databaseName)
	}
	return children, stop, nil
}

// databaseName is our database in the private cluster.
const databaseName = "vantrexia"

func startPostgres(ctx context.Context, log *slog.Logger, out io.Writer) (*devstack.Postgres, error) {
	postgres, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir: filepath.Join(stateDir, "postgres"), Durable: true, Install: true, Output: out, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	if err := postgres.CreateDatabase(ctx, databaseName); err != nil {
		return nil, errors.Join(err, postgres.Stop())
	}
	return postgres, nil
}

func startTemporal(ctx context.Context, cfg config, log *slog.Logger) (*devstack.Temporal, error) {
	uiPort, err := localPort(cfg.TemporalUIAddress)
	if err != nil {
		return nil, err
	}
	temporal, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{
		Binary: filepath.Join("bin", "temporaldev"), Dir: filepath.Join(stateDir, "temporal"),
		Port: cfg.TemporalPort, UIPort: uiPort, Namespaces: []string{cfg.TemporalNamespace}, Logger: log,
		// Known from the start: a server that runs takes seconds to notice new ones, and the first reading waits for it.
		SearchAttributes: searchAttributeTypes(),
	})
	var taken *devstack.PortError
	switch {
	case errors.As(err, &taken) && taken.Port == cfg.TemporalPort:
		return nil, fmt.Errorf("port %d is taken, where Temporal should run: stop what listens there, choose another port with TEMPORAL_PORT, "+
			"or set TEMPORAL_ADDRESS if that is a Temporal to use", taken.Port)
	case errors.As(err, &taken):
		return nil, fmt.Errorf("port %d is taken, where the Temporal Web UI should run: stop what listens there, or choose another address "+
			"with TEMPORAL_UI_ADDRESS", taken.Port)
	}
	return temporal, err
}

// searchAttributeTypes names the type of each search attribute as the server does.
func searchAttributeTypes() map[string]string {
	types := map[string]string{}
	for name, kind := range workflows.SearchAttributes() {
		types[name] = kind.String()
	}
	return types
}

// localPort is the port of the Temporal Web UI, which has no login and therefore stays on this machine.
func localPort(address string) (int, error) {
	host, text, err := net.SplitHostPort(address)
	port, portErr := strconv.ParseUint(text, 10, 16)
	if err != nil || portErr != nil || host != "127.0.0.1" && host != "localhost" {
		return 0, fmt.Errorf("TEMPORAL_UI_ADDRESS %q must be a port on this machine, for example 127.0.0.1:8233: the Web UI has no login",
			address)
	}
	return int(port), nil
}

func stopChild(log *slog.Logger, name string, stop func() error) {
	if err := stop(); err != nil {
		log.Error("not stopped cleanly", "child", name, "error", err)
	}
}

// childRole ends with an error when the child process does.
func childRole(name string, done <-chan struct{}, logFile string) role {
	return role{name, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-done:
			return fmt.Errorf("ended by itself; %s tells why", logFile)
		}
	}}
}
