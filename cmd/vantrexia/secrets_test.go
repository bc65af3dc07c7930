package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
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
	loose := write("loose", "postgres://u:p@h/d\n")
	if err := os.Chmod(loose, 0o644); err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct{ value, file, want, wrong string }{
		"neither":                 {"", "", "", ""},
		"the value":               {"postgres://", "", "postgres://", ""},
		"from a file":             {"", url, "postgres://u:p@h/d", ""},
		"both":                    {"postgres://", url, "", "DATABASE_URL and DATABASE_URL_FILE are both set"},
		"a file that is missing":  {"", missing, "", "DATABASE_URL_FILE"},
		"an empty file":           {"", empty, "", "is empty"},
		"a file that others read": {"", loose, "", "DATABASE_URL_FILE: " + loose + " has the mode 0644"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := secret{"DATABASE_URL", c.value, c.file}.read()
			if c.wrong == "" && (err != nil || got != c.want) {
				t.Errorf("got %q, %v", got, err)
			}
			if c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("error %v, want %q in it", err, c.wrong)
			}
		})
	}
}

// TestEveryFileOfASecretIsLookedAt: a role refuses each of its files that others may read, and does not ask
// for the files of other roles.
func TestEveryFileOfASecretIsLookedAt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "ecw.pem")
	if _, err := generateKey(key, "kid"); err != nil {
		t.Fatal(err)
	}
	_, cert, tlsKey := certificate(t, "localhost")
	loose := filepath.Join(dir, "loose")
	if err := os.WriteFile(loose, []byte(strings.Repeat("s", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{loose, tlsKey} {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	missing := filepath.Join(dir, "missing")
	temporal := []string{"TEMPORAL_ADDRESS=127.0.0.1:1", "KEYRING_FILE=" + keyringtest.File(t)}
	apart := append(temporal, "DATABASE_URL=postgres://u:p@127.0.0.1:1/d", "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD")
	ours := append(slices.Clone(apart), "ECW_PRIVATE_KEY_FILE="+key)
	api := append(slices.Clone(ours), "API_TOKEN_SECRET="+strings.Repeat("s", 32), "API_ADDRESS=127.0.0.1:0")
	oidc := []string{"API_PUBLIC_URL=https://a.example", "OIDC_ISSUER=https://b.example", "OIDC_CLIENT_ID=c", "OIDC_ROLES=a=admin"}
	for _, c := range []struct {
		role     string
		settings []string
		more     []string // the last one's file is refused
	}{
		{"migrate", temporal, []string{"DATABASE_URL_FILE=" + loose}},
		{"worker", ours, []string{"KEYRING_FILE=" + loose}},
		{"worker", apart, []string{"ECW_PRIVATE_KEY_FILE=" + loose}},
		{"worker", ours, []string{"ECW_CLIENT_SECRET_FILE=" + loose}},
		{"worker", ours, []string{"ECW_OTHER_KEY_ID=other", "ECW_OTHER_KEY_FILE=" + loose}},
		{"worker", ours, []string{"TEMPORAL_API_KEY_FILE=" + loose}},
		{"worker", ours, []string{"TEMPORAL_TLS_CLIENT_CERT_PATH=" + cert, "TEMPORAL_TLS_CLIENT_KEY_PATH=" + tlsKey}},
		{"api", ours, []string{"API_TOKEN_SECRET_FILE=" + loose}},
		{"api", api, []string{"API_OTHER_TOKEN_SECRET_FILE=" + loose}},
		{"api", slices.Concat(api, oidc), []string{"OIDC_CLIENT_SECRET_FILE=" + loose}},
	} {
		setting, _, _ := strings.Cut(c.more[len(c.more)-1], "=")
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			p := run(t, workDir(t), slices.Concat(c.settings, c.more), c.role)
			mustSay(t, p, 1, setting)
			if said := p.stderr.text(); !strings.Contains(said, "chmod 600") {
				t.Errorf("no remedy in %q", said)
			}
		})
	}

	if _, err := (doorConfig{TLSCert: cert, TLSKey: tlsKey}).serverTLS(nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("API_TLS_KEY: %v", err)
	}

	worker := start(t, workDir(t), slices.Concat(ours, oidc, []string{
		"API_TOKEN_SECRET_FILE=" + missing, "API_OTHER_TOKEN_SECRET_FILE=" + missing, "OIDC_CLIENT_SECRET_FILE=" + missing,
	}), "worker")
	worker.await(t, &worker.stderr, "waiting for the database")
}

func TestWrongSettingOfAGroupIsNamed(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{"TimeZone": "TIME_ZONE", "Timeout": "ECW_TIMEOUT", "TLS": "TEMPORAL_TLS"} {
		if got := variable(field); got != want {
			t.Errorf("the field %s is read from %s, want %s", field, got, want)
		}
	}
}
