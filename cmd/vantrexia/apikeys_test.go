package main

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
)

// TestAPIKeysOfMachines: the first key is made on the database, the next ones through the API, and each is
// refused once it is revoked.
func TestAPIKeysOfMachines(t *testing.T) {
	t.Parallel()
	dir, address, database := workDir(t), freeAddress(t), stack.Postgres(t)
	settings := []string{
		"DATABASE_URL=" + database, "TEMPORAL_ADDRESS=127.0.0.1:1", "API_ADDRESS=" + address,
		"API_TOKEN_SECRET=" + strings.Repeat("s", 32), "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD",
	}
	local := []string{"--local", "--reason", "no administrator yet"}
	create := []string{"apikeys", "create", "--name", "gateway", "--role", "nurse", "--device", "BP-*", "--device", "SCALE-7"}
	mustSay(t, run(t, dir, settings, append(create, local...)...), 1, "vantrexia migrate")
	store, err := db.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}

	mustSay(t, run(t, dir, settings, create...), 1, "VANTREXIA_TOKEN")
	mustSay(t, run(t, dir, settings, append(create, "--local")...), 1, "--reason")
	mustSay(t, run(t, dir, settings, append(create, "--reason", "why")...), 1, "--local")
	mustSay(t, run(t, dir, settings, append([]string{"apikeys", "create", "--name", "x", "--device", "*"}, local...)...), 1, "not the name of a device")
	first := run(t, dir, settings, append(create, local...)...)
	mustSay(t, first, 0, "")

	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "")
	api := start(t, dir, settings, "api")
	api.await(t, &api.stderr, "listening")
	url := "http://" + address + "/api/v1/patients/"
	status := func(token string) int {
		t.Helper()
		return call(t, http.MethodGet, url, strings.TrimSpace(token), "", nil)
	}
	if got := status(first.stdout.text()); got != http.StatusOK {
		t.Fatalf("the key is answered with %d", got)
	}

	admin := strings.TrimSpace(run(t, dir, settings, "token", "--role", "admin").stdout.text())
	withToken := append([]string{"VANTREXIA_TOKEN=" + admin}, settings...)
	second := run(t, dir, withToken, "apikeys", "create", "--name", "tablet", "--role", "nurse", "--expires", "2160h")
	if got := status(second.stdout.text()); got != http.StatusOK {
		t.Fatalf("the key is answered with %d: %s", got, second.stderr.text())
	}
	mustSay(t, run(t, dir, withToken, "apikeys", "create", "--name", "x", "--role", "patient"), 1, "role")

	list := run(t, dir, withToken, "apikeys", "list").stdout.text()
	for _, want := range []string{"gateway", "BP-*,SCALE-7", "active", "tablet", "any", "until 20"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list lacks %q:\n%s", want, list)
		}
	}
	if again := run(t, dir, settings, "apikeys", "list", "--local").stdout.text(); !strings.Contains(again, "tablet") {
		t.Errorf("the list on the database is\n%s", again)
	}

	mustSay(t, run(t, dir, withToken, "apikeys", "revoke", madeID(t, second)), 0, "")
	if got := status(second.stdout.text()); got != http.StatusUnauthorized {
		t.Errorf("the revoked key is answered with %d", got)
	}
	mustSay(t, run(t, dir, settings, append([]string{"apikeys", "revoke", madeID(t, first)}, local...)...), 0, "")
	eventuallyRefused(t, func() int { return status(first.stdout.text()) })
	mustSay(t, run(t, dir, withToken, "apikeys", "revoke", "gateway"), 1, "apikeys list")
	mustSay(t, run(t, dir, withToken, "apikeys", "revoke", "0b9c5a52-7a3e-4a57-9d55-0d6a3f0a9f11"), 1, "No API key")

	// A token, given whole, is refused by its id.
	stolen := run(t, dir, settings, "token").stdout.text()
	mustSay(t, run(t, dir, withToken, "token", "revoke", strings.TrimSpace(stolen)), 1, "--reason")
	mustSay(t, run(t, dir, withToken, "token", "revoke", "vtx_x", "--reason", "leaked"), 1, "apikeys revoke")
	mustSay(t, run(t, dir, withToken, "token", "revoke", strings.TrimSpace(stolen), "--reason", "it stood in a log"), 0, "")
	if got := status(stolen); got != http.StatusUnauthorized {
		t.Errorf("the revoked token is answered with %d", got)
	}

	other := strings.TrimSpace(run(t, dir, settings, "token").stdout.text())
	mustSay(t, run(t, dir, settings, append([]string{"token", "revoke", other}, local...)...), 0, "")
	if got := status(other); got != http.StatusUnauthorized {
		t.Errorf("the token that was revoked on the database is answered with %d", got)
	}
}

// madeID is the id of the key that a command has made.
func madeID(t *testing.T, made *process) string {
	t.Helper()
	id := regexp.MustCompile(`[0-9a-f-]{36}`).FindString(made.stderr.text())
	if id == "" {
		t.Fatalf("no id in %q", made.stderr.text())
	}
	return id
}

// eventuallyRefused waits until a credential is refused that another process has revoked.
func eventuallyRefused(t *testing.T, status func() int) {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(patience); status() != http.StatusUnauthorized; <-again.C {
		if time.Now().After(deadline) {
			t.Fatal("it is never refused")
		}
	}
}
