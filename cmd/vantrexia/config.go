package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // TIME_ZONE works on machines without a zone database too

	"github.com/caarlos0/env/v11"
	"github.com/joho/godotenv"
	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/secretfile"
)

// config is every setting of every role, read once from the environment. .env.example explains each.
type config struct {
	DatabaseURL       string          `env:"DATABASE_URL"`
	DatabaseURLFile   string          `env:"DATABASE_URL_FILE"`
	KeyringFile       string          `env:"KEYRING_FILE" envDefault:".local/keyring.json"`
	CheckpointsFile   string          `env:"AUDIT_CHECKPOINTS_FILE"`
	UnencryptedHosts  []string        `env:"ALLOW_UNENCRYPTED_HOSTS"`
	TemporalAddress   string          `env:"TEMPORAL_ADDRESS"`
	TemporalNamespace string          `env:"TEMPORAL_NAMESPACE" envDefault:"default"`
	TemporalPort      int             `env:"TEMPORAL_PORT" envDefault:"7233"`
	TemporalUIAddress string          `env:"TEMPORAL_UI_ADDRESS" envDefault:"127.0.0.1:8233"`
	TemporalUIURL     string          `env:"TEMPORAL_UI_URL"`
	APIAddress        string          `env:"API_ADDRESS" envDefault:":8000"`
	PublicURL         string          `env:"API_PUBLIC_URL"`
	HealthAddress     string          `env:"HEALTH_ADDRESS"`
	DrainTimeout      time.Duration   `env:"DRAIN_TIMEOUT" envDefault:"40s"`
	SandboxAddress    string          `env:"SANDBOX_ADDRESS" envDefault:"127.0.0.1:8090"`
	SandboxJWKSURL    string          `env:"SANDBOX_JWKS_URL"`
	SandboxDataDir    string          `env:"SANDBOX_DATA_DIR" envDefault:".local/sandbox"`
	SandboxRateLimit  int             `env:"SANDBOX_RATE_LIMIT" envDefault:"0"`
	SandboxOffset     time.Duration   `env:"SANDBOX_CLOCK_OFFSET" envDefault:"0s"`
	TokenSecret       string          `env:"API_TOKEN_SECRET"`
	TokenSecretFile   string          `env:"API_TOKEN_SECRET_FILE" envDefault:".local/api-token.secret"`
	OtherSecret       string          `env:"API_OTHER_TOKEN_SECRET"`
	OtherSecretFile   string          `env:"API_OTHER_TOKEN_SECRET_FILE"`
	TokenIssuer       string          `env:"API_TOKEN_ISSUER"`
	TokenAudience     string          `env:"API_TOKEN_AUDIENCE"`
	CommandToken      string          `env:"VANTREXIA_TOKEN"`
	TimeZone          string          `env:"TIME_ZONE" envDefault:"UTC"`
	ImportParallel    int             `env:"IMPORT_PARALLEL" envDefault:"10"`
	RetryDelays       []time.Duration `env:"RETRY_DELAYS" envDefault:"5m,15m,45m,2h,6h"`
	LogLevel          slog.Level      `env:"LOG_LEVEL" envDefault:"info"`
	LogFormat         string          `env:"LOG_FORMAT" envDefault:"text"`
	Door              doorConfig      `envPrefix:"API_"`
	Retain            retainConfig    `envPrefix:"RETAIN_"`
	Temporal          temporalConfig  `envPrefix:"TEMPORAL_"`
	ECW               ecwConfig       `envPrefix:"ECW_"`
	OIDC              oidcConfig      `envPrefix:"OIDC_"`
}

// ecwConfig says how to reach the practice's eCW. The tutorial prescribes the names without a default.
type ecwConfig struct {
	ClientID       string        `env:"CLIENT_ID"`
	ClientSecret   string        `env:"CLIENT_SECRET"`
	SecretFile     string        `env:"CLIENT_SECRET_FILE"`
	Environment    string        `env:"ENVIRONMENT" envDefault:"staging"`
	PracticeCode   string        `env:"PRACTICE_CODE"`
	AppType        string        `env:"APP_TYPE" envDefault:"backend_service"`
	PrivateKey     string        `env:"PRIVATE_KEY"`
	PrivateKeyFile string        `env:"PRIVATE_KEY_FILE" envDefault:".local/ecw-private.pem"`
	KeyID          string        `env:"KEY_ID" envDefault:"vantrexia-ecw-key-1"`
	OtherKeyFile   string        `env:"OTHER_KEY_FILE"`
	OtherKeyID     string        `env:"OTHER_KEY_ID"`
	KeysDir        string        `env:"KEYS_DIR"`
	Scope          string        `env:"SCOPE"`
	WriteMode      string        `env:"WRITE_MODE" envDefault:"observation"`
	TokenURL       string        `env:"TOKEN_URL"`
	FHIRBaseURL    string        `env:"FHIR_BASE_URL"`
	MRNSystem      string        `env:"MRN_SYSTEM"`
	AllowHTTPHost  string        `env:"ALLOW_HTTP_HOST"`
	Timeout        time.Duration `env:"TIMEOUT" envDefault:"30s"`
	RateLimit      int           `env:"RATE_LIMIT" envDefault:"240"`
	Parallel       int           `env:"PARALLEL" envDefault:"8"`
}

// doorConfig is what stands between the API and its callers.
type doorConfig struct {
	TrustedProxies []netip.Prefix `env:"TRUSTED_PROXIES"`
	TLSCert        string         `env:"TLS_CERT"`
	TLSKey         string         `env:"TLS_KEY"`
	// The limits of requests; 0 is none.
	Ingestion int `env:"INGESTION_LIMIT" envDefault:"100"`
	Callers   int `env:"CALLER_LIMIT" envDefault:"10000"`
	Anonymous int `env:"ANONYMOUS_LIMIT" envDefault:"100"`
	SignIn    int `env:"SIGN_IN_LIMIT" envDefault:"20"`
	// The most connections, altogether and of one address.
	Connections int `env:"CONNECTIONS" envDefault:"1000"`
	PerAddress  int `env:"CONNECTIONS_PER_ADDRESS" envDefault:"100"`
}

func (c doorConfig) check() (errs []error) {
	for _, limit := range []struct {
		setting string
		value   int
		least   int
		remedy  string
	}{
		{"API_INGESTION_LIMIT", c.Ingestion, 0, "for example 100 a second, or 0 for no limit"},
		{"API_CALLER_LIMIT", c.Callers, 0, "for example 10000 an hour, or 0 for no limit"},
		{"API_ANONYMOUS_LIMIT", c.Anonymous, 0, "for example 100 an hour, or 0 for no limit"},
		{"API_SIGN_IN_LIMIT", c.SignIn, 0, "for example 20 a minute, or 0 for no limit"},
		{"API_CONNECTIONS", c.Connections, 1, "for example 1000"},
		{"API_CONNECTIONS_PER_ADDRESS", c.PerAddress, 1, "for example 100"},
	} {
		if limit.value < limit.least {
			errs = append(errs, fmt.Errorf("%s %d is too small: use %s", limit.setting, limit.value, limit.remedy))
		}
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("API_TLS_CERT and API_TLS_KEY belong together: set both to the files of a certificate and its key, or none"))
	}
	return errs
}

// retainConfig is how long data is kept; 0 is for ever.
type retainConfig struct {
	IdempotencyKeys time.Duration `env:"IDEMPOTENCY_KEYS" envDefault:"168h"`
	Imports         time.Duration `env:"IMPORTS" envDefault:"2160h"`
	Attempts        time.Duration `env:"ATTEMPTS" envDefault:"17520h"`
	Readings        time.Duration `env:"READINGS" envDefault:"0"`
	Audit           time.Duration `env:"AUDIT" envDefault:"61488h"`
	// Histories are kept by Temporal; 0 leaves that as it is.
	Histories time.Duration `env:"HISTORIES"`
}

// leastRetained is the shortest time that data may be kept. Temporal takes no shorter one for its histories, and whatever is
// under way with the data of a day is over by then.
const leastRetained = 24 * time.Hour

// leastAudit is six years, for which 45 CFR 164.316(b)(2)(i) has the audit trail kept. The database drops nothing younger either.
const leastAudit = 2192 * 24 * time.Hour

func (c retainConfig) check() (errs []error) {
	for _, kept := range []struct {
		setting string
		time    time.Duration
		least   time.Duration
		remedy  string
	}{
		{"RETAIN_IDEMPOTENCY_KEYS", c.IdempotencyKeys, leastRetained, "for example 168h, or 0 to keep them for ever"},
		{"RETAIN_IMPORTS", c.Imports, leastRetained, "for example 2160h, or 0 to keep them for ever"},
		{"RETAIN_ATTEMPTS", c.Attempts, leastRetained, "for example 17520h, or 0 to keep them for ever"},
		{"RETAIN_READINGS", c.Readings, leastRetained, "for example 87600h, or 0 to keep them for ever"},
		{"RETAIN_AUDIT", c.Audit, leastAudit, "which is the six years of 45 CFR 164.316, or 0 to keep it for ever"},
		{"RETAIN_HISTORIES", c.Histories, leastRetained, "for example 720h, or leave it out"},
	} {
		if kept.time != 0 && kept.time < kept.least {
			errs = append(errs, fmt.Errorf("%s %s is too short: use %.0fh or more, %s", kept.setting, kept.time, kept.least.Hours(), kept.remedy))
		}
	}
	return errs
}

// devAddress is where `make run` listens by default. It is closed to other machines, because the token is on
// the screen.
const devAddress = "127.0.0.1:8000"

// loadDevConfig is loadConfig with devAddress as the default of API_ADDRESS.
func loadDevConfig() (config, error) {
	cfg, err := loadConfig()
	if os.Getenv("API_ADDRESS") == "" {
		cfg.APIAddress = devAddress
	}
	return cfg, err
}

func loadConfig() (config, error) {
	if err := godotenv.Load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		reason, _, _ := strings.Cut(err.Error(), " near ") // what follows is the rest of the file, with its secrets
		return config{}, fmt.Errorf("read .env: %s", reason)
	}

	cfg, err := env.ParseAs[config]()
	if err != nil {
		return config{}, nameSettings(err)
	}

	cfg.DatabaseURL, err = secret{"DATABASE_URL", cfg.DatabaseURL, cfg.DatabaseURLFile}.read()
	if err != nil {
		return config{}, err
	}

	cfg.findKey()
	return cfg, errors.Join(cfg.check(), cfg.ECW.checkKeysDir(os.Getenv))
}

// tutorialKey is where the integration's tutorial puts the key.
const tutorialKey = "backend/keys/private.pem"

// findKey chooses the tutorial's key when no setting names a key. If that file exists but cannot be read, the
// error comes when the key is needed: no other key is used in its place.
func (c *config) findKey() {
	if c.ECW.PrivateKey == "" && os.Getenv("ECW_PRIVATE_KEY_FILE") == "" && !missing(tutorialKey) {
		c.ECW.PrivateKeyFile = tutorialKey
	}
}

// nameSettings turns the library's errors, which name fields of our struct, into errors that name environment
// variables.
func nameSettings(err error) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return fmt.Errorf("read settings: %w", err)
	}

	var named []error
	for _, err := range all.Errors {
		var parse env.ParseError
		if errors.As(err, &parse) {
			err = fmt.Errorf("%s cannot be read; .env.example shows its form: %w", variable(parse.Name), parse.Err)
		}
		named = append(named, err)
	}

	return errors.Join(named...)
}

// variable returns the environment variable that a field is read from.
func variable(field string) string {
	all := reflect.TypeFor[config]()
	if f, ok := all.FieldByName(field); ok {
		return f.Tag.Get("env")
	}

	for group := range all.Fields() {
		prefix, ok := group.Tag.Lookup("envPrefix")
		if !ok {
			continue
		}
		if f, ok := group.Type.FieldByName(field); ok {
			return prefix + f.Tag.Get("env")
		}
	}

	return field
}

// secret is a setting that may also be a file, which is how Docker and Kubernetes pass secrets. It is read by
// the roles that use it, because the others do not have the file.
type secret struct{ setting, value, file string }

func (s secret) read() (string, error) {
	if s.file == "" {
		return s.value, nil
	}
	if s.value != "" {
		return "", fmt.Errorf("%s and %s_FILE are both set: set one of them", s.setting, s.setting)
	}

	text, err := secretfile.Read(s.file)
	if err != nil {
		return "", fmt.Errorf("%s_FILE: %w", s.setting, err)
	}

	value := strings.TrimSpace(string(text))
	if value == "" {
		return "", fmt.Errorf("%s_FILE: %s is empty", s.setting, s.file)
	}
	return value, nil
}

func (c config) check() error {
	var errs []error
	if c.LogFormat != "text" && c.LogFormat != "json" {
		errs = append(errs, fmt.Errorf("LOG_FORMAT %q is unknown: use text or json", c.LogFormat))
	}
	if c.LogLevel < slog.LevelInfo && ecw.Environment(c.ECW.Environment) == ecw.Production {
		errs = append(errs, errors.New("LOG_LEVEL is debug while ECW_ENVIRONMENT is production: use info, "+
			"because debug names patients and shows values"))
	}
	if !isPublicURL(c.PublicURL) {
		errs = append(errs, errors.New("API_PUBLIC_URL must be an http(s) URL without user, query and fragment: "+
			"use for example https://your-domain.com"))
	}

	if _, err := time.LoadLocation(c.TimeZone); err != nil {
		errs = append(errs, fmt.Errorf("TIME_ZONE %q is unknown: use an IANA name such as America/New_York", c.TimeZone))
	}

	if c.TemporalPort < 0 || c.TemporalPort > 65535 {
		errs = append(errs, fmt.Errorf("TEMPORAL_PORT %d is not a port: use 1 to 65535", c.TemporalPort))
	}
	if c.DrainTimeout <= 0 {
		errs = append(errs, fmt.Errorf("DRAIN_TIMEOUT %s is not positive: use for example 40s", c.DrainTimeout))
	}
	if c.ImportParallel < 1 {
		errs = append(errs, fmt.Errorf("IMPORT_PARALLEL %d is too small: use 1 or more", c.ImportParallel))
	}
	if c.ECW.RateLimit < gate.MinPerMinute {
		errs = append(errs, fmt.Errorf("ECW_RATE_LIMIT %d is too small: use %d or more requests a minute; eCW allows 250",
			c.ECW.RateLimit, gate.MinPerMinute))
	}
	if c.ECW.Parallel < 1 {
		errs = append(errs, fmt.Errorf("ECW_PARALLEL %d is too small: use 1 or more requests at once, for example 8", c.ECW.Parallel))
	}
	if len(c.RetryDelays) == 0 {
		errs = append(errs, errors.New("RETRY_DELAYS is empty: use for example 5m,15m,45m,2h,6h"))
	}

	for _, delay := range c.RetryDelays {
		if delay <= 0 {
			errs = append(errs, fmt.Errorf("RETRY_DELAYS has %s, which is not positive: use for example 5m,15m,45m,2h,6h", delay))
		}
	}

	return errors.Join(slices.Concat(errs, c.Door.check(), c.Retain.check(), c.OIDC.check(c.PublicURL))...)
}

// isPublicURL reports whether links can begin with the text. An empty text means that links are paths.
func isPublicURL(text string) bool {
	if text == "" {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && !strings.ContainsAny(text, "?#")
}

// logger writes to standard error, so that the output of a command can be piped. least is the lowest level
// that is logged.
func (c config) logger(least slog.Level) *slog.Logger {
	level := max(c.LogLevel, least)
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(newLineHandler(os.Stderr, level))
}

// temporalAddress returns TEMPORAL_ADDRESS, or the address on which Temporal listens by default.
func (c config) temporalAddress() string {
	return cmp.Or(c.TemporalAddress, client.DefaultHostPort)
}

// tokenSecret is the key of the API's bearer tokens.
func (c config) tokenSecret() ([]byte, error) {
	if c.TokenSecret != "" {
		return []byte(c.TokenSecret), nil
	}
	text, err := secretfile.Read(c.TokenSecretFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no secret for API tokens: set API_TOKEN_SECRET, or API_TOKEN_SECRET_FILE to a file that exists (%w)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("API_TOKEN_SECRET_FILE: %w", err)
	}
	return []byte(strings.TrimSpace(string(text))), nil
}

// signer signs the API's bearer tokens, and takes those of the other secret too.
func (c config) signer() (*account.Signer, error) {
	signing, err := c.tokenSecret()
	if err != nil {
		return nil, err
	}
	other, err := secret{"API_OTHER_TOKEN_SECRET", c.OtherSecret, c.OtherSecretFile}.read()
	if err != nil {
		return nil, err
	}
	secrets := [][]byte{signing}
	if other != "" {
		secrets = append(secrets, []byte(other))
	}

	// Without these, a token that another system signed with the same secret would be taken.
	const ours = "vantrexia"
	signer, err := account.NewSigner(cmp.Or(c.TokenIssuer, ours), cmp.Or(c.TokenAudience, ours), secrets...)
	if err != nil {
		return nil, fmt.Errorf("API_TOKEN_SECRET or API_OTHER_TOKEN_SECRET: %w", err)
	}
	return signer, nil
}

// signToken makes a machine's bearer token that the API of this installation accepts.
func (c config) signToken(subject string, role account.Role, life time.Duration) (string, error) {
	signer, err := c.signer()
	if err != nil {
		return "", err
	}
	return signer.Sign(subject, role, "", life)
}

// keyring reads the keys with which stored data is sealed.
func (c config) keyring() (*keyring.Keyring, error) {
	keys, err := keyring.Open(c.KeyringFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("KEYRING_FILE: %s does not exist: run `vantrexia keys create` for a new installation, "+
			"or restore the file from its escrow copy", c.KeyringFile)
	}
	if err != nil {
		return nil, fmt.Errorf("KEYRING_FILE: %w", err)
	}
	return keys, nil
}

// checkSecrets returns an error for a key or a secret that cannot be used, before anything slow starts.
func (c config) checkSecrets(log *slog.Logger) error {
	keys, err := c.ecwKeys(log)
	if err != nil {
		return err
	}
	if _, err := c.ehr(log, nil, keys); err != nil {
		return err
	}
	if _, err := c.OIDC.secret(); err != nil {
		return err
	}
	_, err = c.signer()
	return err
}

// ehr returns a client of the practice's eCW.
func (c config) ehr(log *slog.Logger, limiter ecw.Limiter, keys ecwKeys) (*ecw.Client, error) {
	made, err := c.ehrConfig(log, limiter, keys)
	if err != nil {
		return nil, err
	}
	return ecw.New(made)
}

func (c config) ehrConfig(log *slog.Logger, limiter ecw.Limiter, keys ecwKeys) (ecw.Config, error) {
	clientSecret, err := secret{"ECW_CLIENT_SECRET", c.ECW.ClientSecret, c.ECW.SecretFile}.read()
	if err != nil {
		return ecw.Config{}, err
	}
	return ecw.Config{
		ClientID:      c.ECW.ClientID,
		ClientSecret:  clientSecret,
		PracticeCode:  c.ECW.PracticeCode,
		AppType:       ecw.AppType(c.ECW.AppType),
		Environment:   ecw.Environment(c.ECW.Environment),
		TokenURL:      c.ECW.TokenURL,
		FHIRBaseURL:   c.ECW.FHIRBaseURL,
		Scope:         c.ECW.Scope,
		WriteMode:     ecw.WriteMode(c.ECW.WriteMode),
		AllowHTTPHost: c.ECW.AllowHTTPHost,
		SigningKey:    keys.signing,
		Timeout:       c.ECW.Timeout,
		Logger:        log,
		Limiter:       limiter,
	}, nil
}
