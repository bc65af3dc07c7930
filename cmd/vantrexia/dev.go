package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/spf13/cobra"
)

// stateDir is where a laptop keeps what `make run` made: the databases, the key, the secret.
const stateDir = ".local"

func devCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dev",
		Short: "Run the whole system in one terminal (what `make run` ends in)",
		Long: `Runs everything until Ctrl-C: PostgreSQL (unless DATABASE_URL is set), Temporal with its Web UI (unless TEMPORAL_ADDRESS
is set), the sandbox EHR (unless ECW_TOKEN_URL or ECW_FHIR_BASE_URL is set), the API and a worker. Makes a key and a
token secret on first start, and keeps everything under .local/, where the next start finds it. It listens on
API_ADDRESS, SANDBOX_ADDRESS, TEMPORAL_PORT and TEMPORAL_UI_ADDRESS.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadDevConfig()
			if err != nil {
				return err
			}
			return runDev(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
}

// runDev starts what is missing, from the bottom up, and stops it from the top down. What a setting can spoil is tried
// before anything that takes time.
func runDev(ctx context.Context, cfg config, out io.Writer) error {
	log := cfg.logger(slog.LevelDebug)
	withSandbox := cfg.ECW.TokenURL == "" && cfg.ECW.FHIRBaseURL == ""
	ports, err := openPorts(&cfg, withSandbox)
	if err != nil {
		return err
	}
	defer ports.close()
	if withSandbox {
		cfg.useSandbox()
	}
	if cfg.PublicURL == "" {
		cfg.PublicURL = localURL(cfg.APIAddress)
	}
	if err := makeSecrets(cfg); err != nil {
		return err
	}
	if err := cfg.checkSecrets(log); err != nil {
		return err
	}

	fmt.Fprintln(out, "Starting Vantrexia …")
	children, stop, err := startChildren(ctx, &cfg, log, out)
	defer stop()
	if err != nil {
		return cmp.Or(ctx.Err(), err) // a Ctrl-C in the terminal ends initdb too, which then complains
	}
	store, err := openStore(ctx, cfg)
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
	if _, _, err := prepareNamespace(ctx, temporal, cfg); err != nil {
		return err
	}
	d := dependencies{cfg: cfg, log: log, store: store, temporal: temporal, working: new(atomic.Bool)}
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
	context.AfterFunc(ctx, func() { fmt.Fprintf(out, "\nStopping; everything is kept in %s/.\n", stateDir) })
	return runRoles(ctx, roles)
}

// makeSecrets makes the signing key and the secret of the API's tokens when this is the first start.
func makeSecrets(cfg config) error {
	if cfg.ECW.PrivateKey == "" && missing(cfg.ECW.PrivateKeyFile) {
		if _, err := generateKey(cfg.ECW.PrivateKeyFile, cfg.ECW.KeyID); err != nil {
			return fmt.Errorf("ECW_PRIVATE_KEY_FILE: %w", err)
		}
	}
	if cfg.TokenSecret == "" && missing(cfg.TokenSecretFile) {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		if err := writeNew(cfg.TokenSecretFile, []byte(hex.EncodeToString(secret)+"\n")); err != nil {
			return fmt.Errorf("API_TOKEN_SECRET_FILE: %w", err)
		}
	}
	return nil
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
