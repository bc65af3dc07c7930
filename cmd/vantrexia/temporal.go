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
	"go.temporal.io/sdk/interceptor"
	temporallog "go.temporal.io/sdk/log"
	"google.golang.org/grpc/codes"

	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/payload"
	"github.com/vantrexia/vantrexia/secretfile"
	"github.com/vantrexia/vantrexia/worker"
)

// temporalConfig says how to authenticate with a Temporal server that requires it, such as Temporal Cloud.
// Temporal's command line has the same names.
type temporalConfig struct {
	APIKey         string `env:"API_KEY"`
	APIKeyFile     string `env:"API_KEY_FILE"`
	TLS            bool   `env:"TLS"`
	ClientCertPath string `env:"TLS_CLIENT_CERT_PATH"`
	ClientKeyPath  string `env:"TLS_CLIENT_KEY_PATH"`
	ServerCAPath   string `env:"TLS_SERVER_CA_CERT_PATH"`
	ServerName     string `env:"TLS_SERVER_NAME"`

	PlainPayloadsUntil day `env:"PLAIN_PAYLOADS_UNTIL"`
}

// day is the beginning of a day in UTC; the zero value is none.
type day time.Time

// UnmarshalText reads a day as it stands in a setting.
func (d *day) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	parsed, err := time.Parse(time.DateOnly, string(text))
	*d = day(parsed)
	return err
}

// payloads seals what Temporal stores.
func (c config) payloads(keys *keyring.Keyring) payload.Sealing {
	return payload.Sealing{
		Keys:       keys,
		Namespace:  c.TemporalNamespace,
		PlainUntil: time.Time(c.Temporal.PlainPayloadsUntil),
	}
}

// newTemporalClient connects when it is first used, so that Temporal may start after us.
func newTemporalClient(cfg config, keys *keyring.Keyring) (client.Client, error) {
	options := client.Options{
		HostPort:  cfg.temporalAddress(),
		Namespace: cfg.TemporalNamespace,
		Logger:    temporallog.NewStructuredLogger(cfg.logger(slog.LevelWarn)),
	}

	sealing := cfg.payloads(keys)
	options.DataConverter, options.FailureConverter = sealing.Converters()
	options.Interceptors = []interceptor.ClientInterceptor{sealing.Interceptor()}

	// Our messages are a kilobyte or two: compressing them costs both sides more than it saves.
	options.ConnectionOptions.GrpcCompression = &client.GrpcCompressionNone{}

	var err error
	if options.ConnectionOptions.TLS, err = cfg.Temporal.tls(); err != nil {
		return nil, err
	}
	if err := cfg.checkTemporalTLS(options.ConnectionOptions.TLS != nil); err != nil {
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

// tls returns nil for a connection without TLS. Every setting that only TLS uses switches TLS on.
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

	// The certificate is read at each connection, so that a renewed one needs no restart. It is also read
	// once now, so that a wrong one is reported at once.
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := loadKeyPair(c.ClientCertPath, c.ClientKeyPath)
		return &pair, err
	}
	if _, err := load(nil); err != nil {
		return nil, fmt.Errorf("TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_TLS_CLIENT_KEY_PATH: %w", err)
	}

	settings.GetClientCertificate = load
	return settings, nil
}

// credentials returns nil without an API key. A key in a file is read at each call, so that a renewed one
// needs no restart.
func (c temporalConfig) credentials() (client.Credentials, error) {
	if c.APIKey != "" {
		return client.NewAPIKeyStaticCredentials(c.APIKey), nil
	}
	if c.APIKeyFile == "" {
		return nil, nil
	}

	load := func(context.Context) (string, error) {
		key, err := secretfile.Read(c.APIKeyFile)
		return strings.TrimSpace(string(key)), err
	}
	if _, err := load(context.Background()); err != nil {
		return nil, fmt.Errorf("TEMPORAL_API_KEY_FILE: %w", err)
	}
	return client.NewAPIKeyDynamicCredentials(load), nil
}

// temporalTimeout bounds the first request to Temporal, because its client would repeat it for ever.
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
		return created, nil, ctx.Err() // in place of the error that Temporal's client makes of it
	}
	if err != nil {
		return created, nil, temporalError(cfg, err)
	}
	return created, added, nil
}

// prepareTemporal checks the search attributes and makes the schedules, before the first workflow runs.
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
	ctx, cancel := context.WithTimeout(ctx, askTimeout) // the client itself would repeat it for ever
	defer cancel()
	_, err := d.temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
	return err
}

// refusedByTemporal reports whether the server answered and refuses us, so that waiting does not help.
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
	return fmt.Errorf("check that Temporal runs at %s (TEMPORAL_ADDRESS) and has the namespace %q: %w",
		cfg.temporalAddress(), cfg.TemporalNamespace, err)
}
