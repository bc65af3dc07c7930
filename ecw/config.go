package ecw

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Environment names one of eCW's installations; it decides the default URLs.
type Environment string

const (
	// Staging is eCW's sandbox.
	Staging Environment = "staging"
	// Production holds real charts.
	Production Environment = "production"
)

// AppType is how the application is registered in eCW's developer portal; it decides how we authenticate.
type AppType string

const (
	// BackendService authenticates with an assertion signed by our key; the client secret is never sent.
	BackendService AppType = "backend_service"
	// ConfidentialClient authenticates with the client secret (RFC 6749 §2.3.1).
	ConfidentialClient AppType = "confidential_client"
)

// WriteMode is how an Observation is written.
type WriteMode string

const (
	// WriteObservation POSTs the Observation itself to {base}/Observation.
	WriteObservation WriteMode = "observation"
	// WriteBundle POSTs a transaction Bundle of one entry to {base}, as some production contracts of eCW demand.
	WriteBundle WriteMode = "bundle"
)

// DefaultScope is the scope if [Config.Scope] is empty. Production may want the names of SMART v2 instead,
// such as "system/Observation.c system/Observation.rs".
const DefaultScope = "system/Patient.read system/Observation.write system/Observation.read"

// DefaultTimeout bounds one request if [Config.Timeout] is zero.
const DefaultTimeout = 30 * time.Second

// practicePlaceholder in FHIRBaseURL is replaced by the practice code.
const practicePlaceholder = "{practice_code}"

var practiceForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Config says how to reach eCW and how to authenticate. A field is required unless a default is named.
type Config struct {
	ClientID     string      // ECW_CLIENT_ID
	ClientSecret string      `json:"-"` // ECW_CLIENT_SECRET, for ConfidentialClient only
	PracticeCode string      // ECW_PRACTICE_CODE: letters, digits, "-" and "_"
	AppType      AppType     // ECW_APP_TYPE, default BackendService
	Environment  Environment // ECW_ENVIRONMENT, default Staging
	TokenURL     string      // ECW_TOKEN_URL, default the environment's; set both URLs or none
	FHIRBaseURL  string      // ECW_FHIR_BASE_URL, default the environment's; "{practice_code}" in it is replaced
	Scope        string      // ECW_SCOPE, default DefaultScope; separated by spaces
	WriteMode    WriteMode   // ECW_WRITE_MODE, default WriteObservation
	Key          *Key        // ECW_PRIVATE_KEY; BackendService needs it, or SigningKey

	// SigningKey returns the key that signs the next assertion, in place of Key: a key that is rotated while the
	// client is in use. It is called for each token request, by several goroutines.
	SigningKey func() *Key

	// AllowHTTPHost (ECW_ALLOW_HTTP_HOST) is the one host, apart from this machine, that may be reached
	// without TLS: a sandbox EHR in a container of its own. It is refused in Production.
	AllowHTTPHost string

	// Limiter is asked before every request, token requests included. Without one nothing is limited.
	Limiter Limiter

	Timeout time.Duration    // of one request, answer included; default DefaultTimeout
	Logger  *slog.Logger     // default: no logs
	Now     func() time.Time // default time.Now
}

// String shows the settings without the secret and the key.
func (c Config) String() string {
	return fmt.Sprintf("environment=%s practice=%s app_type=%s client_id=%s token_url=%s fhir_base_url=%s scope=%q write_mode=%s",
		c.Environment, c.PracticeCode, c.AppType, c.ClientID, c.TokenURL, c.FHIRBaseURL, c.Scope, c.WriteMode)
}

// GoString keeps the secret out of %#v.
func (c Config) GoString() string { return "ecw.Config{" + c.String() + "}" }

// LogValue keeps the secret out of structured logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// complete returns c with its defaults, and an error that lists everything that is wrong with it.
func (c Config) complete() (Config, error) {
	c.AppType = orDefault(c.AppType, BackendService)
	c.Environment = orDefault(c.Environment, Staging)
	c.WriteMode = orDefault(c.WriteMode, WriteObservation)
	c.Scope = orDefault(strings.Join(strings.Fields(c.Scope), " "), DefaultScope)
	c.Timeout = orDefault(c.Timeout, DefaultTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}

	if c.SigningKey == nil && c.Key != nil {
		c.SigningKey = func() *Key { return c.Key }
	}

	pair := c.checkPair()
	tokenURL, baseURL := defaultURLs(c.Environment)
	c.TokenURL = orDefault(c.TokenURL, tokenURL)
	c.FHIRBaseURL = strings.ReplaceAll(orDefault(c.FHIRBaseURL, baseURL), practicePlaceholder, c.PracticeCode)
	c.FHIRBaseURL = strings.TrimRight(c.FHIRBaseURL, "/")

	return c, errors.Join(
		c.checkIdentity(),
		c.checkNames(),
		pair,
		c.checkURL("ECW_TOKEN_URL", c.TokenURL),
		c.checkURL("ECW_FHIR_BASE_URL", c.FHIRBaseURL),
	)
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// defaultURLs are the token URL and the FHIR base URL of an environment.
func defaultURLs(env Environment) (tokenURL, baseURL string) {
	if env == Production {
		return "https://oauthserver.eclinicalworks.com/oauth/oauth2/token",
			"https://fhir4.eclinicalworks.com/fhir/r4/" + practicePlaceholder
	}
	return "https://staging-oauthserver.eclinicalworks.com/oauth/oauth2/token",
		"https://sandbox-fhir4.eclinicalworks.com/fhir/r4/" + practicePlaceholder
}

// checkIdentity checks the settings by which we authenticate.
func (c Config) checkIdentity() error {
	var errs []error
	if c.ClientID == "" {
		errs = append(errs, errors.New("ECW_CLIENT_ID is empty; copy the client id from eCW's developer portal"))
	}

	if !practiceForm.MatchString(c.PracticeCode) {
		errs = append(errs, fmt.Errorf("ECW_PRACTICE_CODE %q is not a practice code; set the one eCW assigned, for example FFHEDD",
			c.PracticeCode))
	}

	switch c.AppType {
	case BackendService:
		if c.Key == nil && c.SigningKey == nil {
			errs = append(errs, errors.New("ECW_APP_TYPE backend_service needs a private key; set ECW_PRIVATE_KEY_FILE, ECW_PRIVATE_KEY or "+
				"ECW_KEYS_DIR"))
		}
	case ConfidentialClient:
		if c.ClientSecret == "" {
			errs = append(errs, errors.New("ECW_APP_TYPE confidential_client needs a client secret; set ECW_CLIENT_SECRET"))
		}
	default:
		errs = append(errs, fmt.Errorf("ECW_APP_TYPE %q is unknown; use backend_service or confidential_client", c.AppType))
	}

	return errors.Join(errs...)
}

// checkPair demands both URLs or neither. It must run before the defaults are filled in: if only one were
// replaced, the token of one EHR would be sent to another.
func (c Config) checkPair() error {
	switch {
	case c.TokenURL == "" && c.FHIRBaseURL != "":
		return errors.New("ECW_TOKEN_URL is not set, but ECW_FHIR_BASE_URL is; set both, or neither for eCW's own")
	case c.TokenURL != "" && c.FHIRBaseURL == "":
		return errors.New("ECW_FHIR_BASE_URL is not set, but ECW_TOKEN_URL is; set both, or neither for eCW's own")
	}
	return nil
}

// checkNames checks the settings that choose from a list, and the timeout.
func (c Config) checkNames() error {
	var errs []error
	if c.Environment != Staging && c.Environment != Production {
		errs = append(errs, fmt.Errorf("ECW_ENVIRONMENT %q is unknown; use staging or production", c.Environment))
	}
	if c.WriteMode != WriteObservation && c.WriteMode != WriteBundle {
		errs = append(errs, fmt.Errorf("ECW_WRITE_MODE %q is unknown; use observation or bundle", c.WriteMode))
	}
	if c.AllowHTTPHost != "" && c.Environment == Production {
		errs = append(errs, errors.New("ECW_ALLOW_HTTP_HOST is for a sandbox EHR only; remove it, or set ECW_ENVIRONMENT to staging"))
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("the eCW timeout %s is negative; use for example 30s", c.Timeout))
	}

	return errors.Join(errs...)
}

// checkURL demands https, except for this machine and AllowHTTPHost: a token that is read on its way gives
// access to every chart of the practice.
func (c Config) checkURL(setting, raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Hostname() == "", u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%s is not an absolute http(s) URL; set one like https://host/path", setting)
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return fmt.Errorf("%s must have no user, query or fragment; remove them", setting)
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && u.Hostname() != c.AllowHTTPHost:
		return fmt.Errorf("%s uses http with host %s; use https (http is allowed only for localhost, "+
			"because the access token would travel in the clear)", setting, u.Hostname())
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
