package main

import (
	"bytes"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestEverySettingReachesTheClient: every ECW_ setting has an effect.
func TestEverySettingReachesTheClient(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"usual", "other"} {
		if _, err := generateKey(filepath.Join(dir, name), "kid"); err != nil {
			t.Fatal(err)
		}
	}

	usual := map[string]string{"ECW_CLIENT_ID": "client", "ECW_PRACTICE_CODE": "FFHEDD", "ECW_PRIVATE_KEY_FILE": filepath.Join(dir, "usual")}
	load := func(t *testing.T, more map[string]string) (config, ecw.Config) {
		t.Helper()
		for _, settings := range []map[string]string{usual, more} {
			for name, value := range settings {
				t.Setenv(name, value)
			}
		}

		cfg, err := loadConfig()
		if err != nil {
			t.Fatal(err)
		}

		log := slog.New(slog.DiscardHandler)
		keys, err := cfg.ecwKeys(log)
		if err != nil {
			t.Fatal(err)
		}
		made, err := cfg.ehrConfig(log, nil, keys)
		if err != nil {
			t.Fatal(err)
		}
		return cfg, made
	}

	secret := filepath.Join(dir, "secret")
	if err := writeNew(secret, []byte("from a file\n")); err != nil {
		t.Fatal(err)
	}

	thumbprint := func(c ecw.Config) string {
		set, err := ecw.PublicJWKS(c.SigningKey())
		if err != nil {
			t.Fatal(err)
		}
		return string(set)
	}

	_, before := load(t, nil)

	tested := map[string]bool{}
	for name, tc := range map[string]struct {
		value   string
		reached func(ecw.Config) bool
	}{
		"ECW_CLIENT_ID":          {"another", func(c ecw.Config) bool { return c.ClientID == "another" }},
		"ECW_CLIENT_SECRET":      {"a secret", func(c ecw.Config) bool { return c.ClientSecret == "a secret" }},
		"ECW_CLIENT_SECRET_FILE": {secret, func(c ecw.Config) bool { return c.ClientSecret == "from a file" }},
		"ECW_ENVIRONMENT":        {"production", func(c ecw.Config) bool { return c.Environment == ecw.Production }},
		"ECW_PRACTICE_CODE":      {"OTHER", func(c ecw.Config) bool { return c.PracticeCode == "OTHER" }},
		"ECW_APP_TYPE": {"confidential_client", func(c ecw.Config) bool {
			return c.AppType == ecw.ConfidentialClient && c.SigningKey == nil
		}},
		"ECW_PRIVATE_KEY_FILE": {filepath.Join(dir, "other"), func(c ecw.Config) bool { return thumbprint(c) != thumbprint(before) }},
		"ECW_PRIVATE_KEY":      {text(t, filepath.Join(dir, "other")), func(c ecw.Config) bool { return thumbprint(c) != thumbprint(before) }},
		"ECW_KEY_ID":           {"another-kid", func(c ecw.Config) bool { return strings.Contains(thumbprint(c), "another-kid") }},
		"ECW_SCOPE":            {"system/Observation.c", func(c ecw.Config) bool { return c.Scope == "system/Observation.c" }},
		"ECW_WRITE_MODE":       {"bundle", func(c ecw.Config) bool { return c.WriteMode == ecw.WriteBundle }},
		"ECW_TOKEN_URL":        {"https://oauth.example/token", func(c ecw.Config) bool { return c.TokenURL == "https://oauth.example/token" }},
		"ECW_FHIR_BASE_URL":    {"https://fhir.example/r4", func(c ecw.Config) bool { return c.FHIRBaseURL == "https://fhir.example/r4" }},
		"ECW_ALLOW_HTTP_HOST":  {"sandbox", func(c ecw.Config) bool { return c.AllowHTTPHost == "sandbox" }},
		"ECW_TIMEOUT":          {"7s", func(c ecw.Config) bool { return c.Timeout == 7*time.Second }},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.reached(before) {
				t.Fatal("it is so without the setting")
			}
			if _, got := load(t, map[string]string{name: tc.value}); !tc.reached(got) {
				t.Errorf("%s=%s did not reach the client: %v", name, tc.value, got)
			}
		})
		tested[name] = true
	}

	// These settings are not the client's: they go to the published keys, the patients and the gate.
	elsewhere := map[string]string{
		"ECW_OTHER_KEY_FILE": filepath.Join(dir, "other"),
		"ECW_OTHER_KEY_ID":   "other-kid",
		"ECW_MRN_SYSTEM":     "urn:a:b",
		"ECW_RATE_LIMIT":     "77",
		"ECW_PARALLEL":       "5",
	}

	t.Run("elsewhere", func(t *testing.T) {
		cfg, _ := load(t, elsewhere)
		if got := publishedKeys(t, cfg); !slices.Contains(got, "other-kid") {
			t.Errorf("published are %v", got)
		}

		d := dependencies{cfg: cfg, log: slog.New(slog.DiscardHandler)}
		if got := d.patientImport(nil, nil, d.log); got.MRNSystem != "urn:a:b" {
			t.Errorf("imports know the MRN system %q", got.MRNSystem)
		}

		if got := d.apiConfig(); got.MRNSystem != "urn:a:b" {
			t.Errorf("the API knows the MRN system %q", got.MRNSystem)
		}

		if cfg.ECW.RateLimit != 77 || cfg.ECW.Parallel != 5 {
			t.Errorf("the limit is %d, at once %d", cfg.ECW.RateLimit, cfg.ECW.Parallel)
		}
	})

	tested["ECW_KEYS_DIR"] = true // by TestADirectoryOfKeys
	for name := range settings(reflect.TypeFor[config](), "") {
		if _, isElsewhere := elsewhere[name]; strings.HasPrefix(name, "ECW_") && !tested[name] && !isElsewhere {
			t.Errorf("no test checks where %s goes", name)
		}
	}
}

// TestSettingsFileIsReadAtEachStart: a restart takes up a change of .env. The environment wins over the file.
func TestSettingsFileIsReadAtEachStart(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	for _, step := range []struct {
		file, environment string
		code              int
		says              string
	}{
		{"API_TOKEN_SECRET=" + strings.Repeat("s", 32) + "\nLOG_FORMAT=xml\n", "", 1, "LOG_FORMAT"},
		{"API_TOKEN_SECRET=" + strings.Repeat("s", 32) + "\nLOG_FORMAT=json\n", "", 0, ""},
		{"API_TOKEN_SECRET=" + strings.Repeat("s", 32) + "\nLOG_FORMAT=xml\n", "LOG_FORMAT=text", 0, ""},
	} {
		if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(step.file), 0o600); err != nil {
			t.Fatal(err)
		}
		mustSay(t, run(t, dir, []string{step.environment}, "token"), step.code, step.says)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestBoundsOfSettings tries a value on each side of every bound.
func TestBoundsOfSettings(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		setting string // that the error names; "" is none
		change  func(*config)
	}{
		{"", func(*config) {}},
		{"", func(c *config) { c.LogFormat = "json" }},
		{"LOG_FORMAT", func(c *config) { c.LogFormat = "xml" }},
		{"", func(c *config) { c.TimeZone = "America/New_York" }},
		{"TIME_ZONE", func(c *config) { c.TimeZone = "Tulsa" }},
		{"", func(c *config) { c.TemporalPort = 0 }},
		{"", func(c *config) { c.TemporalPort = 65535 }},
		{"TEMPORAL_PORT", func(c *config) { c.TemporalPort = -1 }},
		{"TEMPORAL_PORT", func(c *config) { c.TemporalPort = 65536 }},
		{"", func(c *config) { c.DrainTimeout = 1 }},
		{"DRAIN_TIMEOUT", func(c *config) { c.DrainTimeout = 0 }},
		{"", func(c *config) { c.ImportParallel = 1 }},
		{"IMPORT_PARALLEL", func(c *config) { c.ImportParallel = 0 }},
		{"", func(c *config) {
			c.Retain.Attempts, c.Retain.Readings, c.Retain.Histories = 24*time.Hour, 24*time.Hour, 24*time.Hour
		}},
		{"", func(c *config) { c.Retain = retainConfig{} }},
		{"RETAIN_IDEMPOTENCY_KEYS", func(c *config) { c.Retain.IdempotencyKeys = 24*time.Hour - 1 }},
		{"RETAIN_IMPORTS", func(c *config) { c.Retain.Imports = 24*time.Hour - 1 }},
		{"RETAIN_ATTEMPTS", func(c *config) { c.Retain.Attempts = 24*time.Hour - 1 }},
		{"RETAIN_READINGS", func(c *config) { c.Retain.Readings = -24 * time.Hour }},
		{"", func(c *config) { c.Retain.Audit = 2192 * 24 * time.Hour }},
		{"RETAIN_AUDIT", func(c *config) { c.Retain.Audit = 2192*24*time.Hour - 1 }},
		{"RETAIN_HISTORIES", func(c *config) { c.Retain.Histories = 24*time.Hour - 1 }},
		{"", func(c *config) { c.Door.Ingestion, c.Door.Callers, c.Door.Anonymous, c.Door.SignIn = 0, 0, 0, 0 }},
		{"API_INGESTION_LIMIT", func(c *config) { c.Door.Ingestion = -1 }},
		{"API_CALLER_LIMIT", func(c *config) { c.Door.Callers = -1 }},
		{"API_ANONYMOUS_LIMIT", func(c *config) { c.Door.Anonymous = -1 }},
		{"API_SIGN_IN_LIMIT", func(c *config) { c.Door.SignIn = -1 }},
		{"", func(c *config) { c.Door.Connections, c.Door.PerAddress = 1, 1 }},
		{"API_CONNECTIONS", func(c *config) { c.Door.Connections = 0 }},
		{"API_CONNECTIONS_PER_ADDRESS", func(c *config) { c.Door.PerAddress = 0 }},
		{"", func(c *config) { c.Door.TLSCert, c.Door.TLSKey = "cert.pem", "key.pem" }},
		{"API_TLS_CERT", func(c *config) { c.Door.TLSCert = "cert.pem" }},
		{"API_TLS_CERT", func(c *config) { c.Door.TLSKey = "key.pem" }},
		{"", func(c *config) { c.ECW.RateLimit = 10 }},
		{"ECW_RATE_LIMIT", func(c *config) { c.ECW.RateLimit = 9 }},
		{"", func(c *config) { c.ECW.Parallel = 1 }},
		{"ECW_PARALLEL", func(c *config) { c.ECW.Parallel = 0 }},
		{"", func(c *config) { c.RetryDelays = []time.Duration{1} }},
		{"RETRY_DELAYS", func(c *config) { c.RetryDelays = nil }},
		{"RETRY_DELAYS", func(c *config) { c.RetryDelays = []time.Duration{time.Minute, 0} }},
		{"", func(c *config) { c.LogLevel = slog.LevelDebug }},
		{"", func(c *config) { c.LogLevel, c.ECW.Environment = slog.LevelInfo, "production" }},
		{"LOG_LEVEL", func(c *config) { c.LogLevel, c.ECW.Environment = slog.LevelDebug, "production" }},
		{"LOG_LEVEL", func(c *config) { c.LogLevel, c.ECW.Environment = slog.LevelInfo-1, "production" }},
		{"", func(c *config) { c.PublicURL = "https://rpm.example/vantrexia" }},
		{"", func(c *config) { c.PublicURL = "http://127.0.0.1:8000" }},
		{"API_PUBLIC_URL", func(c *config) { c.PublicURL = "rpm.example" }},
		{"API_PUBLIC_URL", func(c *config) { c.PublicURL = "ftp://rpm.example" }},
		{"API_PUBLIC_URL", func(c *config) { c.PublicURL = "https://rpm.example/?a=b" }},
		{"API_PUBLIC_URL", func(c *config) { c.PublicURL = "https://u:p@rpm.example" }},
		{"API_PUBLIC_URL", func(c *config) { c.PublicURL = "https://rpm.example/#top" }},
	} {
		cfg, err := env.ParseAsWithOptions[config](env.Options{Environment: map[string]string{}})
		if err != nil {
			t.Fatal(err)
		}
		tc.change(&cfg)
		err = cfg.check()
		if tc.setting == "" && err != nil || tc.setting != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.setting)) {
			t.Errorf("got %v, want %q", err, tc.setting)
		}
	}
}

// TestSettingsOfTheIdentityProvider tries what is wrong with each of them, and where they go.
func TestSettingsOfTheIdentityProvider(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"API_PUBLIC_URL":     "https://rpm.example",
		"OIDC_ISSUER":        "https://id.example/realms/practice",
		"OIDC_CLIENT_ID":     "vantrexia",
		"OIDC_CLIENT_SECRET": "secret",
		"OIDC_ROLES":         "CN=admins=admin, nurses = nurse",
		"OIDC_SCOPES":        "openid groups",
		"OIDC_GROUPS_CLAIM":  "roles",
		"OIDC_REQUIRE_AMR":   "mfa, hwk",
		"OIDC_REQUIRE_ACR":   "gold",
	}
	parse := func(name, value string) config {
		environment := maps.Clone(good)
		environment[name] = value
		cfg, err := env.ParseAsWithOptions[config](env.Options{Environment: environment})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}

	for _, tc := range []struct{ name, value, named string }{
		{"LOG_LEVEL", "info", ""},
		{"OIDC_ISSUER", "http://127.0.0.1:8080/realms/practice", ""},
		{"API_PUBLIC_URL", "http://localhost:8000", ""},
		{"OIDC_ISSUER", "", "OIDC_ISSUER"},
		{"OIDC_ISSUER", "http://id.example", "OIDC_ISSUER"},
		{"OIDC_ISSUER", "https://id.example?a=b", "OIDC_ISSUER"},
		{"OIDC_ISSUER", "id.example", "OIDC_ISSUER"},
		{"API_PUBLIC_URL", "", "API_PUBLIC_URL"},
		{"API_PUBLIC_URL", "http://rpm.example", "API_PUBLIC_URL"},
		{"OIDC_CLIENT_ID", "", "OIDC_CLIENT_ID"},
		{"OIDC_CLIENT_SECRET", "", "OIDC_CLIENT_SECRET"},
		{"OIDC_SCOPES", "profile email", "OIDC_SCOPES"},
		{"OIDC_ROLES", "", "OIDC_ROLES"},
		{"OIDC_ROLES", "nurses", "OIDC_ROLES"},
		{"OIDC_ROLES", "=nurse", "OIDC_ROLES"},
		{"OIDC_ROLES", "nurses=Nurse", "OIDC_ROLES"},
		{"OIDC_ROLES", "gateways=service", "OIDC_ROLES"},
	} {
		err := parse(tc.name, tc.value).check()
		if tc.named == "" && err != nil || tc.named != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.named)) {
			t.Errorf("%s=%s: got %v, want %q", tc.name, tc.value, err, tc.named)
		}
	}

	want := account.OIDCConfig{
		Issuer:       "https://id.example/realms/practice",
		ClientID:     "vantrexia",
		ClientSecret: "secret",
		Scopes:       []string{"openid", "groups"},
		GroupsClaim:  "roles",
		Roles:        []account.GroupRole{{Group: "CN=admins", Role: account.Admin}, {Group: "nurses", Role: account.Nurse}},
		RequireAMR:   []string{"mfa", "hwk"},
		RequireACR:   []string{"gold"},
	}
	if got := (dependencies{cfg: parse("LOG_LEVEL", "info")}).apiConfig().OIDC; !reflect.DeepEqual(got, want) {
		t.Errorf("the API gets %+v, want %+v", got, want)
	}
}

// TestRetainedTimesReachThePrune: a setting that is read and then forgotten keeps data for ever.
func TestRetainedTimesReachThePrune(t *testing.T) {
	for name, value := range map[string]string{
		"RETAIN_IDEMPOTENCY_KEYS": "25h",
		"RETAIN_IMPORTS":          "26h",
		"RETAIN_ATTEMPTS":         "27h",
		"RETAIN_READINGS":         "28h",
		"RETAIN_AUDIT":            "60000h",
		"RETAIN_HISTORIES":        "29h",
	} {
		t.Setenv(name, value)
	}
	cfg, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := activities.Keep{
		IdempotencyKeys: 25 * time.Hour,
		Imports:         26 * time.Hour,
		Attempts:        27 * time.Hour,
		Readings:        28 * time.Hour,
		Audit:           60_000 * time.Hour,
	}
	if got := (dependencies{cfg: cfg}).prune(nil).Keep; got != want {
		t.Errorf("the prune keeps %+v, want %+v", got, want)
	}
	if cfg.Retain.Histories != 29*time.Hour {
		t.Errorf("histories are kept for %s", cfg.Retain.Histories)
	}

	t.Setenv("RETAIN_IMPORTS", "90d")
	if _, err := loadConfig(); err == nil || !strings.HasPrefix(err.Error(), "RETAIN_IMPORTS cannot be read; .env.example shows its form") {
		t.Errorf("90d is refused with %v", err)
	}
}

// TestCheckpointsHaveAPlaceOutside: a practice is told when nothing but the database and the log has them.
func TestCheckpointsHaveAPlaceOutside(t *testing.T) {
	t.Parallel()
	place := filepath.Join(t.TempDir(), "checkpoints")
	for _, tc := range []struct {
		environment, file string
		warns             bool
	}{
		{"production", "", true},
		{"production", place, false},
		{"staging", "", false},
	} {
		var said bytes.Buffer
		cfg := config{CheckpointsFile: tc.file, ECW: ecwConfig{Environment: tc.environment}}
		if err := cfg.checkCheckpoints(slog.New(slog.NewTextHandler(&said, nil))); err != nil {
			t.Error(err)
		}
		if warned := strings.Contains(said.String(), "set AUDIT_CHECKPOINTS_FILE"); warned != tc.warns {
			t.Errorf("in %s with the file %q it says %q", tc.environment, tc.file, said.String())
		}
	}
	cfg := config{CheckpointsFile: filepath.Join(place, "file")}
	if err := cfg.checkCheckpoints(slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "AUDIT_CHECKPOINTS_FILE") {
		t.Errorf("a place that is none is refused with %v", err)
	}
}

// TestPlainPayloadsAreReadUntilADay: the day reaches the converters.
func TestPlainPayloadsAreReadUntilADay(t *testing.T) {
	for set, want := range map[string]time.Time{"": {}, "2026-12-31": time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)} {
		t.Setenv("TEMPORAL_PLAIN_PAYLOADS_UNTIL", set)
		cfg, err := loadConfig()
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.payloads(nil).PlainUntil; !got.Equal(want) {
			t.Errorf("set to %q they are read until %s, want %s", set, got, want)
		}
	}

	t.Setenv("TEMPORAL_PLAIN_PAYLOADS_UNTIL", "tomorrow")
	if _, err := loadConfig(); err == nil || !strings.HasPrefix(err.Error(), "TEMPORAL_PLAIN_PAYLOADS_UNTIL cannot be read") {
		t.Errorf("tomorrow is refused with %v", err)
	}
}

// TestDevListensOnThisMachine: `make run` shows its token on the screen, so its API is closed to other
// machines unless API_ADDRESS opens it.
func TestDevListensOnThisMachine(t *testing.T) {
	for set, want := range map[string]string{"": "127.0.0.1:8000", ":8000": ":8000", "127.0.0.1:9000": "127.0.0.1:9000"} {
		t.Run(set, func(t *testing.T) {
			t.Setenv("API_ADDRESS", set)
			cfg, err := loadDevConfig()
			if err != nil || cfg.APIAddress != want {
				t.Errorf("API_ADDRESS=%s: %q %v, want %s", set, cfg.APIAddress, err, want)
			}
			if cfg, err := loadConfig(); err != nil || set == "" && cfg.APIAddress != ":8000" {
				t.Errorf("the API listens on %q, %v", cfg.APIAddress, err)
			}
		})
	}
}

// TestPrintedTokenIsTaken: the token that `vantrexia token` prints has the issuer and the audience that the
// API requires.
func TestPrintedTokenIsTaken(t *testing.T) {
	t.Parallel()
	dir, address := workDir(t), freeAddress(t)
	ours := []string{
		"KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=" + stack.Postgres(t), "TEMPORAL_ADDRESS=127.0.0.1:1", "API_ADDRESS=" + address,
		"API_TOKEN_SECRET=" + strings.Repeat("s", 32), "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD",
	}

	named := append(slices.Clone(ours), "API_TOKEN_ISSUER=vantrexia", "API_TOKEN_AUDIENCE=rpm")
	other := "API_TOKEN_SECRET=" + strings.Repeat("o", 32)
	mustSay(t, run(t, dir, ours, "keys", "generate"), 0, "")
	api := start(t, dir, append(slices.Clone(named), "API_OTHER_TOKEN_SECRET="+strings.Repeat("o", 32)), "api")
	api.await(t, &api.stderr, "listening")
	for name, tc := range map[string]struct {
		settings []string
		status   int
	}{
		// The database is not migrated: a token that is taken gets no further than that.
		"with both":            {named, http.StatusServiceUnavailable},
		"by the other secret":  {append(slices.Clone(named), other), http.StatusServiceUnavailable},
		"by a third secret":    {append(slices.Clone(named), "API_TOKEN_SECRET="+strings.Repeat("t", 32)), http.StatusUnauthorized},
		"without":              {ours, http.StatusUnauthorized},
		"of another issuer":    {append(slices.Clone(named), "API_TOKEN_ISSUER=other"), http.StatusUnauthorized},
		"for another audience": {append(slices.Clone(named), "API_TOKEN_AUDIENCE=other"), http.StatusUnauthorized},
	} {
		token := strings.TrimSpace(run(t, dir, tc.settings, "token").stdout.text())
		if status := call(t, http.MethodGet, "http://"+address+"/api/v1/patients/", token, "", nil); status != tc.status {
			t.Errorf("%s: the API answers %d, want %d", name, status, tc.status)
		}
	}
}
