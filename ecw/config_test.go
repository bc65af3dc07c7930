package ecw

import (
	"strings"
	"testing"
	"time"
)

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	base := Config{ClientID: "c", PracticeCode: "FFHEDD", Key: testKey()}
	for _, tc := range []struct {
		env               Environment
		tokenURL, baseURL string
	}{
		{"", "https://staging-oauthserver.eclinicalworks.com/oauth/oauth2/token", "https://sandbox-fhir4.eclinicalworks.com/fhir/r4/FFHEDD"},
		{Staging, "https://staging-oauthserver.eclinicalworks.com/oauth/oauth2/token", "https://sandbox-fhir4.eclinicalworks.com/fhir/r4/FFHEDD"},
		{Production, "https://oauthserver.eclinicalworks.com/oauth/oauth2/token", "https://fhir4.eclinicalworks.com/fhir/r4/FFHEDD"},
	} {
		cfg := base
		cfg.Environment = tc.env
		got, err := cfg.complete()
		if err != nil || got.TokenURL != tc.tokenURL || got.FHIRBaseURL != tc.baseURL {
			t.Errorf("%q: %v %v", tc.env, got, err)
		}
		if got.AppType != BackendService || got.WriteMode != WriteObservation || got.Scope != DefaultScope || got.Timeout != 30*time.Second {
			t.Errorf("%q: %v", tc.env, got)
		}
	}

	cfg := base
	cfg.FHIRBaseURL, cfg.TokenURL, cfg.Scope = "http://127.0.0.1:8090/fhir/r4/{practice_code}/", "http://localhost:8090/token", " a  b "
	got, err := cfg.complete()
	if err != nil || got.FHIRBaseURL != "http://127.0.0.1:8090/fhir/r4/FFHEDD" || got.TokenURL != cfg.TokenURL || got.Scope != "a b" {
		t.Errorf("overrides: %v %v", got, err)
	}

	cfg.AllowHTTPHost, cfg.FHIRBaseURL = "sandbox", "http://sandbox:8090/fhir"
	if _, err := cfg.complete(); err != nil {
		t.Errorf("the sandbox's host, allowed without TLS: %v", err)
	}
}

func TestConfigRefusals(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		want   string
		change func(*Config)
	}{
		{"ECW_CLIENT_ID", func(c *Config) { c.ClientID = "" }},
		{"ECW_PRACTICE_CODE", func(c *Config) { c.PracticeCode = "" }},
		{"ECW_PRACTICE_CODE", func(c *Config) { c.PracticeCode = "../X" }},
		{"ECW_PRIVATE_KEY", func(c *Config) { c.Key = nil }},
		{"ECW_CLIENT_SECRET", func(c *Config) { c.AppType = ConfidentialClient }},
		{"ECW_APP_TYPE", func(c *Config) { c.AppType = "x" }},
		{"ECW_ENVIRONMENT", func(c *Config) { c.Environment = "x" }},
		{"ECW_WRITE_MODE", func(c *Config) { c.WriteMode = "x" }},
		{"negative", func(c *Config) { c.Timeout = -1 }},
		{"ECW_TOKEN_URL", func(c *Config) { c.TokenURL = "oauth.example/token" }},
		{"ECW_TOKEN_URL", func(c *Config) { c.TokenURL = "ftp://oauth.example/token" }},
		{"ECW_TOKEN_URL uses http", func(c *Config) { c.TokenURL = "http://oauth.example/token" }},
		{"ECW_TOKEN_URL uses http", func(c *Config) { c.TokenURL = "http://localhost.example/token" }},
		{"ECW_FHIR_BASE_URL uses http", func(c *Config) { c.FHIRBaseURL = "http://10.0.0.1/fhir" }},
		{"ECW_FHIR_BASE_URL uses http", func(c *Config) { c.AllowHTTPHost, c.FHIRBaseURL = "sandbox", "http://sandbox.example/fhir" }},
		{"ECW_ALLOW_HTTP_HOST", func(c *Config) { c.AllowHTTPHost, c.Environment = "sandbox", Production }},
		{"ECW_FHIR_BASE_URL is not set, but ECW_TOKEN_URL is", func(c *Config) { c.TokenURL = "https://oauth.example/token" }},
		{"ECW_TOKEN_URL is not set, but ECW_FHIR_BASE_URL is", func(c *Config) { c.FHIRBaseURL = "https://fhir.example/r4" }},
		{"ECW_FHIR_BASE_URL must have", func(c *Config) { c.FHIRBaseURL = "https://u:the-secret@x.example/" }},
		{"ECW_FHIR_BASE_URL must have", func(c *Config) { c.FHIRBaseURL = "https://x.example/?a=b" }},
	} {
		cfg := Config{ClientID: "c", PracticeCode: "FFHEDD", Key: testKey()}
		tc.change(&cfg)
		_, err := New(cfg)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "the-secret") {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}

	_, err := New(Config{AppType: "x"})
	if n := len(strings.Split(err.Error(), "\n")); n != 3 {
		t.Errorf("not every broken setting is named: %v", err)
	}
}
