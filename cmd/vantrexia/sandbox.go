package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

func sandboxCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sandbox",
		Short: "Serve the sandbox EHR, a stand-in for eClinicalWorks",
		Long: `Serves a stand-in for eClinicalWorks on SANDBOX_ADDRESS: token endpoint, FHIR R4 server with 142 made-up patients, and
faults on demand under /admin/. It checks what eCW checks, with the public keys from SANDBOX_JWKS_URL, and stores what it
accepts in SANDBOX_DATA_DIR. Do not send it patient data. It does not start with ECW_ENVIRONMENT=production.

"vantrexia dev" starts it. An API and a worker that you start yourself find it with the settings in the example.`,
		Example: `  export ECW_CLIENT_ID=vantrexia-sandbox-client ECW_PRACTICE_CODE=FFHEDD
  export ECW_TOKEN_URL=http://127.0.0.1:8090/oauth/oauth2/token
  export ECW_FHIR_BASE_URL=http://127.0.0.1:8090/fhir/r4/{practice_code}
  vantrexia sandbox`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig()
			if err != nil {
				return err
			}
			if err := cfg.checkNotProduction("the sandbox EHR", "its /admin/ asks for no password, and it takes every reading"); err != nil {
				return err
			}
			cfg.useSandbox()
			listener, err := listen(cfg.SandboxAddress, "SANDBOX_ADDRESS")
			if err != nil {
				return err
			}
			return serveSandbox(cmd.Context(), cfg, cfg.logger(slog.LevelDebug), listener)
		},
	}
}

// checkNotProduction returns an error unless ECW_ENVIRONMENT is staging. An unknown one counts as production.
func (c config) checkNotProduction(what, because string) error {
	if ecw.Environment(c.ECW.Environment) == ecw.Staging {
		return nil
	}
	return fmt.Errorf("ECW_ENVIRONMENT is %q, where %s does not start: %s. Use `vantrexia serve` with the practice's eCW, "+
		"or for development ECW_ENVIRONMENT=staging", c.ECW.Environment, what, because)
}

// useSandbox fills in the settings that are empty, so that the API, the worker and the sandbox on this
// machine find each other.
func (c *config) useSandbox() {
	base := localURL(c.SandboxAddress)
	for setting, value := range map[*string]string{
		&c.ECW.ClientID:     "vantrexia-sandbox-client",
		&c.ECW.PracticeCode: "FFHEDD",
		&c.ECW.TokenURL:     base + sandbox.TokenPath,
		&c.ECW.FHIRBaseURL:  base + sandbox.FHIRPath + "{practice_code}",
		&c.SandboxJWKSURL:   c.apiURL() + "/.well-known/jwks.json",
	} {
		if *setting == "" {
			*setting = value
		}
	}

	if _, set := os.LookupEnv("ECW_RATE_LIMIT"); !set {
		c.ECW.RateLimit = sandboxRateLimit
	}
}

// jwksTLS is how the sandbox fetches our keys; nil: as usual.
func (c config) jwksTLS() *tls.Config {
	if strings.HasPrefix(c.SandboxJWKSURL, c.apiURL()+"/") {
		return c.localTLS()
	}
	return nil
}

// sandboxRateLimit is more than one machine can send, because the sandbox has no limit by default.
const sandboxRateLimit = 60_000

func serveSandbox(ctx context.Context, cfg config, log *slog.Logger, listener net.Listener) error {
	ehr, err := sandbox.New(sandbox.Config{
		ClientID:      cfg.ECW.ClientID,
		PracticeCode:  cfg.ECW.PracticeCode,
		JWKSURL:       cfg.SandboxJWKSURL,
		JWKSTLS:       cfg.jwksTLS(),
		PublicURL:     localURL(cfg.SandboxAddress),
		DataDir:       cfg.SandboxDataDir,
		RatePerMinute: cfg.SandboxRateLimit,
		Logger:        log.With("component", "sandbox"),
		Now:           func() time.Time { return time.Now().Add(cfg.SandboxOffset) },
	})
	if err != nil {
		return err
	}
	defer ehr.Close()

	context.AfterFunc(ctx, func() { _ = ehr.Close() }) // ends answers that a fault makes slow: they would delay the stop
	log.InfoContext(ctx, "sandbox EHR listening", "address", listener.Addr().String())
	return serveHTTP(ctx, listener, ehr, cfg.DrainTimeout)
}
