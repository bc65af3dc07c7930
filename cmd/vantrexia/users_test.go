package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestUsersFromTheFirstAdministratorOn: the first administrator is made on the database, and makes the others
// through the API.
func TestUsersFromTheFirstAdministratorOn(t *testing.T) {
	t.Parallel()
	dir, address, database := workDir(t), freeAddress(t), stack.Postgres(t)
	settings := []string{
		"KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=" + database, "TEMPORAL_ADDRESS=127.0.0.1:1", "API_ADDRESS=" + address,
		"API_TOKEN_SECRET=" + strings.Repeat("s", 32), "ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD",
	}
	ada := []string{"users", "add", "--email", "Ada@example.com", "--first", "Ada", "--last", "Berg", "--role", "admin"}
	local := []string{"--local", "--reason", "first administrator"}
	mustSay(t, run(t, dir, settings, append(ada, local...)...), 1, "vantrexia migrate")
	store, err := db.Open(t.Context(), database, keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}

	mustSay(t, run(t, dir, settings, ada...), 1, "VANTREXIA_TOKEN")
	mustSay(t, run(t, dir, settings, append(ada, "--local")...), 1, "--reason")
	mustSay(t, run(t, dir, settings, append(append(ada, local...), "--url", "https://rpm.example")...), 1, "leave --url")
	mustSay(t, runWith(t, dir, settings, "password1234\n", append(append(ada, local...), "--ask-password")...), 1, "easy to guess")
	mustSay(t, runWith(t, dir, settings, "gravel pocket lantern nine\n", append(append(ada, local...), "--ask-password")...), 0, "")
	mustSay(t, run(t, dir, settings, append(ada, local...)...), 1, "somebody has this e-mail already")

	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "")
	api := start(t, dir, settings, "api")
	api.await(t, &api.stderr, "listening")
	base := "http://" + address
	admin := signIn(t, base, "ada@example.com", "gravel pocket lantern nine")
	if admin == "" {
		t.Fatal("the administrator cannot sign in")
	}

	withToken := append([]string{"VANTREXIA_TOKEN=" + admin}, settings...)
	made := run(t, dir, withToken, "users", "add", "--email", "nora@example.com", "--first", "Nora", "--last", "Lind", "--role", "nurse")
	password := strings.TrimSpace(made.stdout.text())
	if made.wait(t) != 0 || len(password) != 24 || signIn(t, base, "nora@example.com", password) == "" {
		t.Fatalf("made with %q: %s", password, made.stderr.text())
	}

	mustSay(t, run(t, dir, withToken, "users", "disable", "nora@example.com"), 0, "")
	if list := run(t, dir, withToken, "users", "list").stdout.text(); !strings.Contains(list, "nora@example.com") || !strings.Contains(list, "disabled") {
		t.Errorf("the list is\n%s", list)
	}
	if signIn(t, base, "nora@example.com", password) != "" {
		t.Error("somebody who is disabled signs in")
	}
	mustSay(t, run(t, dir, withToken, "users", "disable", "ada@example.com"), 1, "last administrator")
	mustSay(t, run(t, dir, withToken, "users", "enable", "nora@example.com"), 0, "")
	mustSay(t, run(t, dir, withToken, "users", "unlock", "nobody@example.com"), 1, "nobody has this e-mail")

	reset := run(t, dir, settings, append([]string{"users", "reset-password", "nora@example.com"}, local...)...)
	if signIn(t, base, "nora@example.com", strings.TrimSpace(reset.stdout.text())) == "" {
		t.Errorf("the new password does not work: %s", reset.stderr.text())
	}
	mustSay(t, run(t, dir, settings, append([]string{"users", "unlock", "nora@example.com"}, local...)...), 0, "")

	testAPIKeys(t, base, func(settings []string) func(args ...string) *process {
		return func(args ...string) *process { return run(t, dir, settings, append([]string{"apikeys"}, args...)...) }
	}, settings, withToken)

	var events struct {
		Results []struct{ Action, Actor, Reason string } `json:"results"`
	}
	call(t, http.MethodGet, base+"/api/v1/users/events/", admin, "", &events)
	newest := events.Results[0]
	if newest.Action != "unlocked" || newest.Reason != "first administrator" || !strings.HasPrefix(newest.Actor, "local:") {
		t.Errorf("the newest event is %+v", newest)
	}
}

// runWith is run with a standard input.
func runWith(t *testing.T, dir string, settings []string, input string, args ...string) *process {
	t.Helper()
	p := startTyping(t, dir, settings, input, args...)
	p.wait(t)
	return p
}

// signIn returns an access token; empty when the sign-in is refused.
func signIn(t *testing.T, base, email, password string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"email": email, "password": password})
	if err != nil {
		t.Fatal(err)
	}
	var in struct {
		Access string `json:"access"`
	}
	call(t, http.MethodPost, base+"/api/v1/auth/login/", "", string(body), &in)
	return in.Access
}

// demoAccountsSignIn: `make run` has an account for each role of people.
func (s shown) demoAccountsSignIn(t *testing.T, dir string) {
	t.Helper()
	file := filepath.Join(dir, ".local", "demo-password")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	password, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range account.RolesWith(account.OwnAccount) {
		if signIn(t, s.api, demoEmail(role), strings.TrimSpace(string(password))) == "" {
			t.Errorf("no sign-in as %s", role)
		}
	}
}

// testAPIKeys makes an API key on the database and one through the API, uses them and revokes them.
func testAPIKeys(t *testing.T, base string, apikeys func(settings []string) func(args ...string) *process, local, remote []string) {
	t.Helper()
	mustSay(t, apikeys(local)("create", "--name", "gateway"), 1, "VANTREXIA_TOKEN")
	mustSay(t, apikeys(local)("create", "--name", "gateway", "--local"), 1, "--reason")
	mustSay(t, apikeys(remote)("create", "--name", "gateway", "--role", "root"), 1, "role")
	mustSay(t, apikeys(remote)("revoke", "gateway"), 1, "vantrexia apikeys list")

	for name, make := range map[string]*process{
		"from the database": apikeys(local)("create", "--name", "gateway", "--role", "nurse", "--local", "--reason", "tests"),
		"from the API":      apikeys(remote)("create", "--name", "tablet", "--role", "nurse", "--expires", "24h"),
	} {
		key := strings.TrimSpace(make.stdout.text())
		if make.wait(t) != 0 || call(t, http.MethodGet, base+"/api/v1/patients/", key, "", nil) != http.StatusOK {
			t.Fatalf("%s: %q: %s", name, key, make.stderr.text())
		}
		id := strings.Fields(make.stderr.text())[2]
		mustSay(t, apikeys(remote)("revoke", id), 0, "")
		if got := call(t, http.MethodGet, base+"/api/v1/patients/", key, "", nil); got != http.StatusUnauthorized {
			t.Errorf("%s: revoked, it is answered with %d", name, got)
		}
	}
	list := apikeys(remote)("list").stdout.text()
	if strings.Count(list, "revoked") != 2 || !strings.Contains(list, "gateway") {
		t.Errorf("the list is\n%s", list)
	}
}
