package main

import (
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestAnAccountThatCouldEraseIsNamed: an API that connects as the owner of the tables works and says so, once. With the
// account that is meant for it, it says nothing and works too.
func TestAnAccountThatCouldEraseIsNamed(t *testing.T) {
	t.Parallel()
	database := stack.Postgres(t)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "CREATE ROLE vantrexia_runtime LOGIN PASSWORD 'secret'"); err != nil {
		t.Fatal(err)
	}
	runtime, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	runtime.User = url.UserPassword("vantrexia_runtime", "secret")

	dir, temporal := workDir(t), []string{"TEMPORAL_ADDRESS=127.0.0.1:1", "KEYRING_FILE=" + keyringtest.File(t)}
	settings := append(temporal, "API_TOKEN_SECRET="+strings.Repeat("s", 32), "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD")
	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "")
	// It migrates the database, and then finds no Temporal.
	mustSay(t, run(t, dir, append(temporal, "DATABASE_URL="+database), "migrate"), 1, "127.0.0.1:1")
	mustSay(t, run(t, dir, append(temporal, "DATABASE_URL="+runtime.String()), "migrate"), 1, "does not own the tables")

	token := strings.TrimSpace(run(t, dir, settings, "token").stdout.text())
	for url, warned := range map[string]int{database: 1, runtime.String(): 0} {
		address := freeAddress(t)
		api := start(t, dir, append(settings, "DATABASE_URL="+url, "API_ADDRESS="+address), "api")
		api.await(t, &api.stderr, "API listening")
		eventually(t, "the API answers", func() bool {
			return call(t, http.MethodGet, "http://"+address+"/api/v1/patients/", token, "", nil) == http.StatusOK
		})
		if warned > 0 {
			api.await(t, &api.stderr, "owns the tables")
		}
		api.signal(t, syscall.SIGTERM)
		api.wait(t)
		if said := api.stderr.text(); strings.Count(said, "owns the tables") != warned || !strings.Contains(said, "vantrexia api") {
			t.Errorf("it says\n%s", said)
		}
	}
}
