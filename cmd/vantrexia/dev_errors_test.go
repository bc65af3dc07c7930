package main

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDevSaysWhatIsWrong: a wrong setting ends the command with one line that names it, and leaves nothing
// running.
func TestDevSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = taken.Close() })
	address := taken.Addr().String()
	_, port, _ := net.SplitHostPort(address)

	database := stack.Postgres(t)
	wrongPassword, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}

	wrongPassword.User = url.UserPassword(wrongPassword.User.Username(), "wrong")

	for name, c := range map[string]struct {
		setting string
		prepare func(t *testing.T, dir string)
		want    []string
	}{
		"API port taken":           {"API_ADDRESS=" + address, nil, []string{address + " is taken", "API_ADDRESS"}},
		"API address unreadable":   {"API_ADDRESS=8000", nil, []string{"API_ADDRESS", ":port"}},
		"sandbox port taken":       {"SANDBOX_ADDRESS=" + address, nil, []string{address + " is taken", "SANDBOX_ADDRESS"}},
		"Temporal port taken":      {"TEMPORAL_PORT=" + port, nil, []string{port + " is taken", "TEMPORAL_PORT"}},
		"no Temporal port":         {"TEMPORAL_PORT=abc", nil, []string{"TEMPORAL_PORT"}},
		"Web UI port taken":        {"TEMPORAL_UI_ADDRESS=" + address, nil, []string{port + " is taken", "TEMPORAL_UI_ADDRESS"}},
		"Web UI on the network":    {"TEMPORAL_UI_ADDRESS=0.0.0.0:8233", nil, []string{"TEMPORAL_UI_ADDRESS", "this machine"}},
		"no Temporal there":        {"TEMPORAL_ADDRESS=127.0.0.1:1", nil, []string{"TEMPORAL_ADDRESS", "127.0.0.1:1"}},
		"unparsable database URL":  {"DATABASE_URL=foo", nil, []string{"DATABASE_URL", "postgres://"}},
		"no database there":        {"DATABASE_URL=postgres://u:p@127.0.0.1:1/db", nil, []string{"DATABASE_URL", "127.0.0.1:1", "connection refused"}},
		"wrong database password":  {"DATABASE_URL=" + wrongPassword.String(), nil, []string{"DATABASE_URL", "password authentication failed"}},
		"wrong database name":      {"DATABASE_URL=" + strings.Replace(database, "/test_", "/nosuch_", 1), nil, []string{"DATABASE_URL", "does not exist"}},
		"short token secret":       {"API_TOKEN_SECRET=short", nil, []string{"API_TOKEN_SECRET", "32 bytes"}},
		"unreadable key":           {"ECW_PRIVATE_KEY=nonsense", nil, []string{"ECW_PRIVATE_KEY:", "keys generate"}},
		"unreadable key file":      {"ECW_PRIVATE_KEY_FILE=key.pem", writeKey, []string{"ECW_PRIVATE_KEY_FILE: key.pem", "keys generate"}},
		"key file is a directory":  {"ECW_PRIVATE_KEY_FILE=.", nil, []string{"ECW_PRIVATE_KEY_FILE", "directory"}},
		"missing Temporal binary":  {"LOG_LEVEL=info", removeTemporal, []string{"bin/temporaldev is missing", "make bin/temporaldev"}},
		"unreadable sandbox clock": {"SANDBOX_CLOCK_OFFSET=late", nil, []string{"SANDBOX_CLOCK_OFFSET", "late"}},
		"unreadable retry delays":  {"RETRY_DELAYS=soon", nil, []string{"RETRY_DELAYS", "soon"}},
		"production":               {"ECW_ENVIRONMENT=production", nil, []string{"ECW_ENVIRONMENT", "vantrexia serve", "staging"}},
		"unreadable .env":          {"LOG_LEVEL=info", writeEnv, []string{".env"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := workDir(t)
			if c.prepare != nil {
				c.prepare(t, dir)
			}

			p := start(t, dir, append(anyPorts(), c.setting), "dev")
			if code := p.wait(t); code != 1 {
				t.Errorf("ended with %d, want 1", code)
			}

			said := p.stderr.text()
			if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "vantrexia: ") {
				t.Errorf("want one line, got %q", said)
			}

			for _, part := range c.want {
				if !strings.Contains(said, part) {
					t.Errorf("no %q in %q", part, said)
				}
			}

			if strings.Contains(said, "hunter2") {
				t.Errorf("it shows a secret: %q", said)
			}

			nothingRunsIn(t, dir)
		})
	}
}

func writeKey(t *testing.T, dir string) { write(t, filepath.Join(dir, "key.pem"), "nonsense\n") }

func writeEnv(t *testing.T, dir string) {
	write(t, filepath.Join(dir, ".env"), "API_TOKEN SECRET\nECW_CLIENT_SECRET=hunter2\n")
}

func removeTemporal(t *testing.T, dir string) {
	if err := os.Remove(filepath.Join(dir, "bin", "temporaldev")); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
