package main

import (
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestServeSaysWhatIsWrong: an error that waiting cannot fix ends the process at once, with one line that
// names the setting.
func TestServeSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = taken.Close() })
	database, err := url.Parse(stack.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}

	wrongPassword, wrongName := *database, *database
	wrongPassword.User = url.UserPassword(database.User.Username(), "hunter2")
	wrongName.Path = "/nosuch"
	dir := workDir(t)
	settings := []string{
		"KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=" + database.String(), "TEMPORAL_ADDRESS=127.0.0.1:1", "API_ADDRESS=127.0.0.1:0",
		"API_TOKEN_SECRET=" + strings.Repeat("s", 32), "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD",
	}

	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "")
	for name, c := range map[string]struct{ setting, want string }{
		"no database":             {"DATABASE_URL=", "DATABASE_URL is not set"},
		"unparsable database URL": {"DATABASE_URL=foo", "DATABASE_URL cannot be read"},
		"wrong password":          {"DATABASE_URL=" + wrongPassword.String(), "password authentication failed"},
		"unknown database":        {"DATABASE_URL=" + wrongName.String(), "does not exist"},
		"database without TLS":    {"DATABASE_URL=postgres://u:hunter2@db.example/v", "sslmode=verify-full"},
		"Temporal without TLS":    {"TEMPORAL_ADDRESS=temporal:7233", "TEMPORAL_TLS=true"},
		"taken health address":    {"HEALTH_ADDRESS=" + taken.Addr().String(), "HEALTH_ADDRESS"},
		"no drain timeout":        {"DRAIN_TIMEOUT=0s", "DRAIN_TIMEOUT"},
		"unreadable key":          {"ECW_PRIVATE_KEY=nonsense", "ECW_PRIVATE_KEY"},
	} {
		for _, command := range []string{"api", "worker", "serve"} {
			t.Run(name+"/"+command, func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				p := start(t, dir, append(settings, c.setting), command)
				mustSay(t, p, 1, c.want)
				if said := p.stderr.text(); strings.Contains(said, "hunter2") || time.Since(began) > patience/2 {
					t.Errorf("after %s it said %s", time.Since(began), said)
				}
			})
		}
	}
}

// Migrations may start at the same time: two releases, or two operators.
func TestMigrationsThatStartTogether(t *testing.T) {
	t.Parallel()
	address, namespace := stack.Temporal(t)
	settings := []string{"KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=" + stack.Postgres(t), "TEMPORAL_ADDRESS=" + address, "TEMPORAL_NAMESPACE=" + namespace}
	said := make([]string, 3)
	var group sync.WaitGroup
	for i := range said {
		p := start(t, t.TempDir(), settings, "migrate")
		group.Go(func() {
			<-p.done
			said[i] = p.stdout.text() + p.stderr.text()
		})
	}

	group.Wait()
	idle := 0
	for _, text := range said {
		if !strings.Contains(text, "search attributes registered") {
			t.Errorf("one ended with %s", text)
		}
		if strings.HasPrefix(text, "0 migrations run") {
			idle++
		}
	}

	if idle != len(said)-1 {
		t.Errorf("%d of %d found nothing to do:\n%s", idle, len(said), strings.Join(said, ""))
	}
}

// A start warns of a PostgreSQL that may write rows into its log.
func TestARevealingServerLogIsNamed(t *testing.T) {
	t.Parallel()
	dir, database := workDir(t), stack.Postgres(t)
	settings := []string{
		"TEMPORAL_ADDRESS=127.0.0.1:1", "API_ADDRESS=127.0.0.1:0", "API_TOKEN_SECRET=" + strings.Repeat("s", 32),
		"ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD", "KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=" + database,
	}

	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "")
	mustSay(t, run(t, dir, settings, "migrate"), 1, "TEMPORAL_ADDRESS") // the schema is up to date from here on

	const warning = "PostgreSQL may write rows into its log"
	private := start(t, dir, settings, "serve")
	said := private.await(t, &private.stderr, "waiting for Temporal") // the database was looked at before that
	if strings.Contains(said, warning) {
		t.Errorf("it warns of a private log: %s", said)
	}

	for _, command := range []string{"api", "worker"} {
		revealing := start(t, dir, append(settings, "DATABASE_URL="+database+"&log_error_verbosity=default"), command)
		said := revealing.await(t, &revealing.stderr, "log_error_verbosity=terse")
		if !strings.Contains(said, warning) {
			t.Errorf("%s says %s", command, said)
		}
	}
}
