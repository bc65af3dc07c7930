package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretsComeFromFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}

	url, empty, missing := write("url", "postgres://u:p@h/d\n"), write("empty", "\n"), filepath.Join(dir, "missing")
	for name, c := range map[string]struct {
		cfg  config
		want string // in the error
	}{
		"from a file": {config{DatabaseURLFile: url}, ""},
		"both":        {config{DatabaseURL: "postgres://", DatabaseURLFile: url}, "DATABASE_URL and DATABASE_URL_FILE are both set"},
		"both for the identity provider": {config{OIDC: oidcConfig{ClientSecret: "s", ClientSecretFile: url}},
			"OIDC_CLIENT_SECRET and OIDC_CLIENT_SECRET_FILE are both set"},
		"a file that is missing": {config{ECW: ecwConfig{SecretFile: missing}}, "ECW_CLIENT_SECRET_FILE"},
		"an empty file":          {config{DatabaseURLFile: empty}, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := c.cfg
			err := cfg.readSecretFiles()
			if c.want == "" && (err != nil || cfg.DatabaseURL != "postgres://u:p@h/d") {
				t.Errorf("DATABASE_URL is %q, %v", cfg.DatabaseURL, err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestWrongSettingOfAGroupIsNamed(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{"TimeZone": "TIME_ZONE", "Timeout": "ECW_TIMEOUT", "TLS": "TEMPORAL_TLS"} {
		if got := variable(field); got != want {
			t.Errorf("the field %s is read from %s, want %s", field, got, want)
		}
	}
}
