package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	temporallog "go.temporal.io/sdk/log"
	"google.golang.org/grpc/codes"

	"github.com/vantrexia/vantrexia/worker"
)

// temporalConfig is how a Temporal that wants to know us is reached, such as Temporal Cloud. The names are
// those of Temporal's own command line.
type temporalConfig struct {
	APIKey         string `env:"API_KEY"`
	APIKeyFile     string `env:"API_KEY_FILE"`
	TLS            bool   `env:"TLS"`
	ClientCertPath string `env:"TLS_CLIENT_CERT_PATH"`
	ClientKeyPath  string `env:"TLS_CLIENT_KEY_PATH"`
	ServerCAPath   string `env:"TLS_SERVER_CA_CERT_PATH"`
	ServerName     string `env:"TLS_SERVER_NAME"`
}

// newTemporalClient connects when it is first used, so that Temporal may start after us.
func newTemporalClient(cfg config) (client.Client, error) {
	options := client.Options{
		HostPort:  cfg.temporalAddress(),
		Namespace: cfg.TemporalNamespace,
		Logger:    temporallog.NewStructuredLogger(cfg.logger(slog.LevelWarn)),
	}
	var err error
	if options.ConnectionOptions.TLS, err = cfg.Temporal.tls(); err != nil {
		return nil, err
	}
	if options.Credentials, err = cfg.Temporal.credentials(); err != nil {
		return nil, err
	}

	c, err := client.NewLazyClient(options)
	if err != nil {
		return nil, fmt.Errorf("TEMPORAL_ADDRESS %s: %w", cfg.temporalAddress(), err)
	}
	return c, nil
}

// tls is nil for a connection in the clear. Every setting that only TLS has a use for switches it on.
func (c temporalConfig) tls() (*tls.Config, error) {
	if !c.TLS && c.APIKey == "" && c.APIKeyFile == "" &&
		c.ClientCertPath == "" && c.ClientKeyPath == "" && c.ServerCAPath == "" && c.ServerName == "" {
		return nil, nil
	}

	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.ServerCAPath != "" {
		pem, err := os.ReadFile(c.ServerCAPath)
		if err != nil {
			return nil, fmt.Errorf("TEMPORAL_TLS_SERVER_CA_CERT_PATH: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("TEMPORAL_TLS_SERVER_CA_CERT_PATH: %s holds no certificate in PEM form", c.ServerCAPath)
		}
	}
	if (c.ClientCertPath == "") != (c.ClientKeyPath == "") {
		return nil, errors.New("TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH go together: set both or neither")
	}
	if c.ClientCertPath == "" {
		return settings, nil
	}

	// Read at each connection, so that a renewed certificate needs no restart; once now, to tell about a
	// wrong one at once.
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.ClientCertPath, c.ClientKeyPath)
		return &pair, err
	}
	if _, err := load(nil); err != nil {
		return nil, fmt.Errorf("TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_TLS_CLIENT_KEY_PATH: %w", err)
	}

	settings.GetClientCertificate = load
	return settings, nil
}

// credentials are nil without an API key. One in a file is read at each call, so that a renewed key needs no
// restart.
func (c temporalConfig) credentials() (client.Credentials, error) {
	if c.APIKey != "" {
		return client.NewAPIKeyStaticCredentials(c.APIKey), nil
	}
	if c.APIKeyFile == "" {
		return nil, nil
	}

	load := func(context.Context) (string, error) {
		key, err := os.ReadFile(c.APIKeyFile)
		return strings.TrimSpace(string(key)), err
	}
	if _, err := load(context.Background()); err != nil {
		return nil, fmt.Errorf("TEMPORAL_API_KEY_FILE: %w", err)
	}
	return client.NewAPIKeyDynamicCredentials(load), nil
}

// temporalTimeout bounds the first question to Temporal, whose client would ask for ever.
const temporalTimeout = 15 * time.Second

// prepareNamespace creates the namespace when it is missing, has it keep histories for as long as is set, and adds the search
// attributes that it lacks.
func prepareNamespace(ctx context.Context, c client.Client, cfg config) (created bool, added []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()

	created, err = worker.EnsureNamespace(ctx, c, cfg.TemporalNamespace, cfg.Retain.Histories)
	if err == nil {
		added, err = worker.RegisterSearchAttributes(ctx, c, cfg.TemporalNamespace)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return created, nil, ctx.Err() // not the way in which Temporal's client says so
	}
	if err != nil {
		return created, nil, temporalError(cfg, err)
	}
	return created, added, nil
}

// prepareTemporal makes sure of what the workflows need around them, before the first of them runs.
func prepareTemporal(ctx context.Context, d dependencies) error {
	if err := checkTemporal(ctx, d); err != nil {
		return temporalError(d.cfg, err)
	}

	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	if err := worker.CheckSearchAttributes(ctx, d.temporal, d.cfg.TemporalNamespace); err != nil {
		return err
	}
	return worker.EnsureSchedules(ctx, d.temporal, d.cfg.ECW.PracticeCode)
}

func checkTemporal(ctx context.Context, d dependencies) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout) // the client itself would ask for ever
	defer cancel()
	_, err := d.temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
	return err
}

// refusedByTemporal reports whether the server answered, and will not take us however long we wait.
func refusedByTemporal(err error) bool {
	var answer serviceerror.ServiceError
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Status().Code() {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return true
	}
	return false
}

func temporalError(cfg config, err error) error {
	return fmt.Errorf("is Temporal running at %s (TEMPORAL_ADDRESS), with the namespace %q? %w",
		cfg.temporalAddress(), cfg.TemporalNamespace, err)
}
