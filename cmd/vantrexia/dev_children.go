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

// ports are opened before anything slow starts, so that a port that is taken is reported at once.
type ports struct {
	api, sandbox net.Listener
	// codec is where the Web UI has payloads decoded. It may be any port: the Web UI is told.
	codec net.Listener
}

// openPorts opens the ports and puts their addresses into the settings, because port 0 means any free port.
// The caller closes them, also after an error.
func openPorts(cfg *config, withSandbox bool) (p ports, err error) {
	if p.api, err = listen(cfg.APIAddress, "API_ADDRESS"); err != nil {
		return p, err
	}

	cfg.APIAddress = p.api.Addr().String()
	if p.codec, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return p, err
	}
	if !withSandbox {
		return p, nil
	}

	if p.sandbox, err = listen(cfg.SandboxAddress, "SANDBOX_ADDRESS"); err != nil {
		return p, err
	}

	cfg.SandboxAddress = p.sandbox.Addr().String()
	return p, nil
}

// close closes the ports. One that was served is closed already, which does no harm.
func (p ports) close() {
	for _, listener := range []net.Listener{p.api, p.sandbox, p.codec} {
		if listener != nil {
			_ = listener.Close()
		}
	}
}

// startChildren starts Temporal and PostgreSQL, unless the settings name servers to use, and puts their
// addresses into the settings. Temporal comes first, because it starts fast and its ports may be taken. stop
// must be called, also after an error.
func startChildren(ctx context.Context, cfg *config, p ports, log *slog.Logger, out io.Writer) (children []role, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, stop := range stops {
			stop()
		}
	}
	if cfg.TemporalAddress == "" {
		temporal, err := startTemporal(ctx, *cfg, p, log)
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
		Dir:     filepath.Join(stateDir, "postgres"),
		Durable: true,
		Install: true,
		Output:  out,
		Logger:  log,
	})
	if err != nil {
		return nil, err
	}

	if err := postgres.CreateDatabase(ctx, databaseName); err != nil {
		return nil, errors.Join(err, postgres.Stop())
	}
	return postgres, nil
}

func startTemporal(ctx context.Context, cfg config, p ports, log *slog.Logger) (*devstack.Temporal, error) {
	uiPort, err := localPort(cfg.TemporalUIAddress)
	if err != nil {
		return nil, err
	}

	temporal, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{
		Binary:     filepath.Join("bin", "temporaldev"),
		Dir:        filepath.Join(stateDir, "temporal"),
		Port:       cfg.TemporalPort,
		UIPort:     uiPort,
		Codec:      "http://" + p.codec.Addr().String(),
		Namespaces: []string{cfg.TemporalNamespace},
		Logger:     log,
		// Set at the start: a running server takes seconds to notice a new one, and the first reading would
		// wait.
		SearchAttributes: searchAttributeTypes(),
	})

	var taken *devstack.PortError
	switch {
	case errors.As(err, &taken) && taken.Port == cfg.TemporalPort:
		return nil, fmt.Errorf("port %d is taken, which Temporal needs: stop what listens there, choose another port with TEMPORAL_PORT, "+
			"or set TEMPORAL_ADDRESS if a Temporal to use listens there", taken.Port)
	case errors.As(err, &taken):
		return nil, fmt.Errorf("port %d is taken, which the Temporal Web UI needs: stop what listens there, or choose another address "+
			"with TEMPORAL_UI_ADDRESS", taken.Port)
	}

	return temporal, err
}

// searchAttributeTypes returns the type of each search attribute, under the name that the server uses.
func searchAttributeTypes() map[string]string {
	types := map[string]string{}
	for name, kind := range workflows.SearchAttributes() {
		types[name] = kind.String()
	}
	return types
}

// localPort returns the port of the Temporal Web UI. The Web UI has no login, so it must listen on this
// machine only.
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

// childRole is a role that runs until its context ends. It returns an error when the child process ends
// first.
func childRole(name string, done <-chan struct{}, logFile string) role {
	return role{name, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-done:
			return fmt.Errorf("ended by itself; look into %s for the reason", logFile)
		}
	}}
}
