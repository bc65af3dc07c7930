package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestRevokedTokenIsRefused: a token is refused by its jti, which is read from the whole token, whether the API
// is told so or the database alone.
func TestRevokedTokenIsRefused(t *testing.T) {
	t.Parallel()
	dir, address, database := workDir(t), freeAddress(t), stack.Postgres(t)
	settings := []string{
		"KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=" + database, "TEMPORAL_ADDRESS=127.0.0.1:1", "API_ADDRESS=" + address,
		"API_TOKEN_SECRET=" + strings.Repeat("s", 32), "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD",
	}
	store, err := db.Open(t.Context(), database, keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}

	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "")
	api := start(t, dir, settings, "api")
	api.await(t, &api.stderr, "listening")

	token := func(role string) string {
		t.Helper()
		return strings.TrimSpace(run(t, dir, settings, "token", "--role", role).stdout.text())
	}
	withToken := append([]string{"VANTREXIA_TOKEN=" + token("admin")}, settings...)
	mustSay(t, run(t, dir, withToken, "token", "revoke", "a-jti"), 1, "--reason")
	mustSay(t, run(t, dir, withToken, "token", "revoke", "a.b.c", "--reason", "why"), 1, "standard input")
	mustSay(t, runWith(t, dir, withToken, "a.b.c", "token", "revoke", "-", "--reason", "why"), 1, "jti")
	mustSay(t, runWith(t, dir, withToken, "", "token", "revoke", "-", "--reason", "why"), 1, "is empty")
	mustSay(t, run(t, dir, withToken, "token", "revoke", "vtx_x", "--reason", "why"), 1, "apikeys revoke")
	mustSay(t, run(t, dir, settings, "token", "revoke", "a-jti", "--reason", "why"), 1, "VANTREXIA_TOKEN")

	for name, where := range map[string]struct {
		settings []string
		flags    []string
	}{
		"through the API": {withToken, nil},
		"on the database": {settings, []string{"--local"}},
	} {
		stolen := token("nurse")
		args := append([]string{"token", "revoke", "-", "--reason", "it stood in a log"}, where.flags...)
		mustSay(t, runWith(t, dir, where.settings, stolen+"\n", args...), 0, "")
		if got := call(t, http.MethodGet, "http://"+address+"/api/v1/patients/", stolen, "", nil); got != http.StatusUnauthorized {
			t.Errorf("%s: the token is answered with %d", name, got)
		}
	}
}
