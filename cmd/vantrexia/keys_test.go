package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vantrexia/vantrexia/ecw"
)

// publishedKeys lists the kids of the JWKS that the API would serve.
func publishedKeys(t *testing.T, cfg config) []string {
	t.Helper()
	keys, err := cfg.ecwKeys(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(keys.jwks(), &set); err != nil {
		t.Fatal(err)
	}

	kids := []string{}
	for _, key := range set.Keys {
		kids = append(kids, key["kid"].(string))
		if _, private := key["d"]; private {
			t.Errorf("key %s is published with its private part", key["kid"])
		}
	}

	return kids
}

func TestRotationPublishesBothKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var cfg config
	cfg.ECW.PrivateKeyFile, cfg.ECW.KeyID = filepath.Join(dir, "one.pem"), "key-1"
	if _, err := generateKey(cfg.ECW.PrivateKeyFile, "key-1"); err != nil {
		t.Fatal(err)
	}

	if got := publishedKeys(t, cfg); !slices.Equal(got, []string{"key-1"}) {
		t.Errorf("before the rotation: %v", got)
	}

	cfg.ECW.OtherKeyFile, cfg.ECW.OtherKeyID = filepath.Join(dir, "two.pem"), "key-2"
	if _, err := generateKey(cfg.ECW.OtherKeyFile, "key-2"); err != nil {
		t.Fatal(err)
	}

	if got := publishedKeys(t, cfg); !slices.Equal(got, []string{"key-1", "key-2"}) {
		t.Errorf("during the rotation: %v", got)
	}

	cfg.ECW.OtherKeyID = "key-1"
	if _, err := cfg.ecwKeys(slog.New(slog.DiscardHandler)); err == nil {
		t.Error("two keys with one id were published: eCW would refuse both")
	}
}

func TestConfidentialClientNeedsNoKey(t *testing.T) {
	t.Parallel()
	var cfg config
	cfg.ECW.AppType = "confidential_client"
	if got := publishedKeys(t, cfg); len(got) != 0 {
		t.Errorf("published %v, want no key", got)
	}
}

// TestTheTutorialsKeyIsFound: without a setting, the key is taken from where the tutorial puts it; a setting
// wins over it.
func TestTheTutorialsKeyIsFound(t *testing.T) {
	keys := map[string]string{}
	t.Chdir(t.TempDir())
	for _, path := range []string{"backend/keys/private.pem", ".local/ecw-private.pem", "named.pem"} {
		key, err := generateKey(path, "kid")
		if err != nil {
			t.Fatal(err)
		}
		public, err := ecw.PublicJWKS(key)
		if err != nil {
			t.Fatal(err)
		}
		keys[path] = string(public)
	}

	for name, tc := range map[string]struct {
		settings map[string]string
		want     string
	}{
		"no setting":      {nil, "backend/keys/private.pem"},
		"an empty one":    {map[string]string{"ECW_PRIVATE_KEY_FILE": ""}, "backend/keys/private.pem"},
		"a file":          {map[string]string{"ECW_PRIVATE_KEY_FILE": "named.pem"}, "named.pem"},
		"another default": {map[string]string{"ECW_PRIVATE_KEY_FILE": ".local/ecw-private.pem"}, ".local/ecw-private.pem"},
		"the key itself":  {map[string]string{"ECW_PRIVATE_KEY": text(t, "named.pem")}, "named.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			for setting, value := range tc.settings {
				t.Setenv(setting, value)
			}
			if got := loadedKeys(t); got != keys[tc.want] {
				t.Errorf("the key is another than that of %s: %s", tc.want, got)
			}
		})
	}

	if err := os.Remove(tutorialKey); err != nil {
		t.Fatal(err)
	}

	if got := loadedKeys(t); got != keys[".local/ecw-private.pem"] {
		t.Errorf("without a file of the tutorial, the key is %s", got)
	}
}

// loadedKeys is the key set of the settings that the environment has.
func loadedKeys(t *testing.T) string {
	t.Helper()
	t.Setenv("ECW_KEY_ID", "kid")
	cfg, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := cfg.ecwKeys(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return string(keys.jwks())
}
