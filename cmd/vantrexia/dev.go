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
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"
)

// stateDir is where `make run` keeps the databases, the key and the secret.
const stateDir = ".local"

func devCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dev",
		Short: "Run the whole system in one terminal, as `make run` does",
		Long: `Runs everything until Ctrl-C: PostgreSQL (unless DATABASE_URL is set), Temporal with its Web UI (unless TEMPORAL_ADDRESS
is set), the sandbox EHR (unless ECW_TOKEN_URL or ECW_FHIR_BASE_URL is set), the API and a worker. The first start makes a
key and a token secret. Everything is kept under .local/ for the next start. It listens on API_ADDRESS, SANDBOX_ADDRESS,
TEMPORAL_PORT and TEMPORAL_UI_ADDRESS. It does not start with ECW_ENVIRONMENT=production.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadDevConfig()
			if err != nil {
				return err
			}
			if err := cfg.checkNotProduction("`vantrexia dev`", "it shows a token and a password on the screen"); err != nil {
				return err
			}
			return runDev(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
}

// runDev starts the servers that are missing and then our own roles, and stops them in reverse order. It
// checks all settings before it starts anything slow.
func runDev(ctx context.Context, cfg config, out io.Writer) error {
	log := cfg.logger(slog.LevelDebug)
	withSandbox := cfg.ECW.TokenURL == "" && cfg.ECW.FHIRBaseURL == ""
	ports, err := prepareDev(&cfg, log, withSandbox)
	defer ports.close()

	if err != nil {
		return err
	}

	fmt.Fprintln(out, "Starting Vantrexia …")
	children, stop, err := startChildren(ctx, &cfg, ports, log, out)
	defer stop()

	if err != nil {
		return cmp.Or(ctx.Err(), err) // a Ctrl-C in the terminal ends initdb too, which then complains
	}

	d := dependencies{cfg: cfg, log: log, working: new(atomic.Bool)}
	defer d.close()

	if err := d.connectDev(ctx); err != nil {
		return err
	}

	welcome, err := newWelcome(ctx, d, withSandbox)
	if err != nil {
		return err
	}

	go announce(ctx, cfg, out, welcome)
	context.AfterFunc(ctx, func() { fmt.Fprintf(out, "\nStopping; everything is kept in %s/.\n", stateDir) })
	return runRoles(ctx, append(children, devRoles(d, ports)...))
}

// prepareDev opens the ports, completes and checks the settings, and makes the secrets that are missing. The
// ports must be closed, also after an error.
func prepareDev(cfg *config, log *slog.Logger, withSandbox bool) (ports, error) {
	opened, err := openPorts(cfg, withSandbox)
	if err != nil {
		return opened, err
	}

	if withSandbox {
		cfg.useSandbox()
	}

	cfg.PublicURL = cmp.Or(cfg.PublicURL, cfg.apiURL())

	if err := makeSecrets(*cfg); err != nil {
		return opened, err
	}
	return opened, errors.Join(cfg.checkSecrets(log), cfg.checkCheckpoints(log))
}

// connectDev connects to the database and to Temporal, and brings both up to date.
func (d *dependencies) connectDev(ctx context.Context) (err error) {
	if d.keys, err = d.cfg.keyring(); err != nil {
		return err
	}
	if d.store, err = openStore(ctx, d.cfg, d.keys); err != nil {
		return err
	}

	if _, err := d.store.Migrate(ctx); err != nil {
		return err
	}
	go d.keys.Watch(ctx, d.log, d.acceptKeyring)

	if d.temporal, err = newTemporalClient(d.cfg, d.keys); err != nil {
		return err
	}

	_, _, err = prepareNamespace(ctx, d.temporal, d.cfg)
	return err
}

// devRoles lists our own roles in the order of their start.
func devRoles(d dependencies, p ports) (roles []role) {
	if p.sandbox != nil {
		roles = append(roles, role{"sandbox EHR", func(ctx context.Context) error { return serveSandbox(ctx, d.cfg, d.log, p.sandbox) }})
	}
	if d.cfg.TemporalUIURL != "" {
		roles = append(roles, role{"codec", func(ctx context.Context) error { return serveCodec(ctx, d.cfg, p.codec) }})
	}
	return append(roles,
		role{"audit trail", func(ctx context.Context) error { return sealTrail(ctx, d) }},
		role{"worker", func(ctx context.Context) error { return runWorker(ctx, d) }},
		role{"API", func(ctx context.Context) error { return serveAPI(ctx, d, p.api) }},
	)
}

// serveCodec shows the developer, whose machine has all secrets, what workflows hold.
func serveCodec(ctx context.Context, cfg config, listener net.Listener) error {
	f, err := newForwarder(cfg, cfg.TemporalUIURL)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	api, err := newAPIClient(cfg, "", "none yet")
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	f.host, f.token = listener.Addr().String(), ownToken{cfg, api}
	return serveHTTP(ctx, listener, f, cfg.DrainTimeout)
}

// makeSecrets makes the keyring, the signing key and the secret of the API's tokens when this is the first start.
func makeSecrets(cfg config) error {
	if missing(cfg.KeyringFile) && !missing(filepath.Join(stateDir, "postgres", "data")) {
		return fmt.Errorf("KEYRING_FILE: %s is missing, and there is a database in %s: restore the keyring from its copy, "+
			"or move %s away to begin anew. A database of a version before 2026-11-29 has none: run `vantrexia keys create`",
			cfg.KeyringFile, stateDir, stateDir)
	}
	if missing(cfg.KeyringFile) {
		if err := createKeyring(cfg.KeyringFile); err != nil {
			return fmt.Errorf("KEYRING_FILE: %w", err)
		}
	}
	if cfg.ECW.KeysDir == "" && cfg.ECW.PrivateKey == "" && missing(cfg.ECW.PrivateKeyFile) {
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
