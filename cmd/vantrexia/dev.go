package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/worker"
)

// stateDir is where a laptop keeps what `make run` made: the databases, the key, the secret.
const stateDir = ".local"

func devCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dev",
		Short: "Run the whole system in one terminal (what `make run` ends in)",
		Long: `Runs everything until Ctrl-C: PostgreSQL (unless DATABASE_URL is set), Temporal with its Web UI (unless TEMPORAL_ADDRESS
is set), the sandbox EHR (unless ECW_TOKEN_URL and ECW_FHIR_BASE_URL are set), the API and a worker. Makes a key and a
token secret on first start, and keeps everything under .local/, where the next start finds it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			return runDev(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
}

// runDev starts what is missing, from the bottom up, and stops it from the top down.
func runDev(ctx context.Context, cfg config, out io.Writer) error {
	log := cfg.logger(slog.LevelDebug)
	withSandbox := cfg.ECW.TokenURL == "" && cfg.ECW.FHIRBaseURL == ""
	if withSandbox {
		cfg.useSandbox()
	}
	if err := makeSecrets(cfg); err != nil {
		return err
	}
	ports, err := openPorts(cfg, withSandbox)
	if err != nil {
		return err
	}
	defer ports.close()

	var children []role
	if cfg.DatabaseURL == "" {
		postgres, err := startPostgres(ctx, &cfg, log, out)
		if err != nil {
			return err
		}
		defer stopChild(log, "PostgreSQL", postgres.Stop)
		children = append(children, childRole("PostgreSQL", postgres.Done()))
	}
	if cfg.TemporalAddress == "" {
		temporal, err := startTemporal(ctx, &cfg, log)
		if err != nil {
			return err
		}
		defer stopChild(log, "Temporal", temporal.Stop)
		cfg.TemporalUIURL = temporal.UIURL()
		children = append(children, childRole("Temporal", temporal.Done()))
	}

	store, err := db.Open(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	defer store.Close()
	if _, err := store.Migrate(ctx); err != nil {
		return err
	}
	temporal, err := newTemporalClient(cfg)
	if err != nil {
		return err
	}
	defer temporal.Close()
	if _, err := worker.RegisterSearchAttributes(ctx, temporal, cfg.TemporalNamespace); err != nil {
		return err
	}
	d := dependencies{cfg: cfg, log: log, store: store, temporal: temporal}
	welcome, err := newWelcome(ctx, d, withSandbox)
	if err != nil {
		return err
	}

	roles := children
	if withSandbox {
		roles = append(roles, role{"sandbox EHR", func(ctx context.Context) error { return serveSandbox(ctx, cfg, log, ports.sandbox) }})
	}
	roles = append(roles,
		role{"worker", func(ctx context.Context) error { return runWorker(ctx, d) }},
		role{"API", func(ctx context.Context) error { return serveAPI(ctx, d, ports.api) }},
	)
	go announce(ctx, cfg, out, welcome)
	err = runRoles(ctx, roles)
	fmt.Fprintln(out, "\nStopping; everything is kept in", stateDir+"/.")
	return err
}

// makeSecrets makes the signing key and the secret of the API's tokens when this is the first start.
func makeSecrets(cfg config) error {
	if cfg.ECW.PrivateKey == "" && missing(cfg.ECW.PrivateKeyFile) {
		if _, err := generateKey(cfg.ECW.PrivateKeyFile, cfg.ECW.KeyID); err != nil {
			return err
		}
	}
	if cfg.TokenSecret == "" && missing(cfg.TokenSecretFile) {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		return writeNew(cfg.TokenSecretFile, []byte(hex.EncodeToString(secret)+"\n"))
	}
	return nil
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// ports are opened before anything slow starts, so that a taken one is told at once.
type ports struct{ api, sandbox net.Listener }

func openPorts(cfg config, withSandbox bool) (p ports, err error) {
	if p.api, err = listen(cfg.APIAddress, "API_ADDRESS"); err != nil || !withSandbox {
		return p, err
	}
	if p.sandbox, err = listen(cfg.SandboxAddress, "SANDBOX_ADDRESS"); err != nil {
		return p, errors.Join(err, p.api.Close())
	}
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

func startPostgres(ctx context.Context, cfg *config, log *slog.Logger, out io.Writer) (*devstack.Postgres, error) {
	postgres, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
		Dir: filepath.Join(stateDir, "postgres"), Durable: true, Install: true, Output: out, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	if err := postgres.CreateDatabase(ctx, "vantrexia"); err != nil {
		return nil, errors.Join(err, postgres.Stop())
	}
	cfg.DatabaseURL = postgres.URL("vantrexia")
	return postgres, nil
}

func startTemporal(ctx context.Context, cfg *config, log *slog.Logger) (*devstack.Temporal, error) {
	_, uiPort, err := net.SplitHostPort(cfg.TemporalUIAddress)
	if err != nil {
		return nil, fmt.Errorf("TEMPORAL_UI_ADDRESS %q is not host:port", cfg.TemporalUIAddress)
	}
	port, err := strconv.Atoi(uiPort)
	if err != nil {
		return nil, fmt.Errorf("TEMPORAL_UI_ADDRESS %q has no port number", cfg.TemporalUIAddress)
	}
	temporal, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{
		Binary: filepath.Join("bin", "temporaldev"), Dir: filepath.Join(stateDir, "temporal"),
		Port: 7233, UIPort: port, Namespaces: []string{cfg.TemporalNamespace}, Logger: log,
	})
	var taken *devstack.PortError
	if errors.As(err, &taken) {
		return nil, fmt.Errorf("port %d is taken, where Temporal should run: stop what listens there, or point TEMPORAL_ADDRESS at that server if it is a Temporal of yours (the Web UI's port is TEMPORAL_UI_ADDRESS)", taken.Port)
	}
	if err != nil {
		return nil, err
	}
	cfg.TemporalAddress = temporal.Address()
	return temporal, nil
}

func stopChild(log *slog.Logger, name string, stop func() error) {
	if err := stop(); err != nil {
		log.Error("not stopped cleanly", "child", name, "error", err)
	}
}

// childRole ends with an error when the child process does.
func childRole(name string, done <-chan struct{}) role {
	return role{name, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-done:
			return fmt.Errorf("%s ended by itself: its log is under %s/", name, stateDir)
		}
	}}
}
