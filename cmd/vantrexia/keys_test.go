package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
)

// publishedKeys lists the kids of the JWKS that the API would serve.
func publishedKeys(t *testing.T, cfg config) []string {
	t.Helper()
	jwks, err := cfg.jwks()
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
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
	if _, err := cfg.jwks(); err == nil {
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
