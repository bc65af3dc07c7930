package db_test

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/devstack"
)

// TestTheAccountsOfComposeAreMade runs deploy/create-databases.sh twice, as a new installation and an existing one do.
func TestTheAccountsOfComposeAreMade(t *testing.T) {
	t.Parallel()
	root, err := devstack.Root()
	if err != nil {
		t.Fatal(err)
	}
	super, err := url.Parse(stack.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	// The superuser of this server has the name of Compose's owner, and keeps the password.
	password, _ := super.User.Password()
	secrets := t.TempDir()
	for name, text := range map[string]string{
		"vantrexia-password":         password,
		"vantrexia-runtime-password": "secret", // as in the other tests
		"temporal-password":          "it's temporal's",
	} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// Other tests make roles at the same time, so these are there when the script looks for them.
	conn := connect(t, super.String())
	if _, err := conn.Exec(t.Context(), makeAccounts); err != nil {
		t.Fatal(err)
	}

	script := filepath.Join(root, "deploy", "create-databases.sh")
	makeAll := func() ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), script)
		cmd.Env = append(os.Environ(), "SECRETS="+secrets, "POSTGRES_USER="+super.User.Username(),
			"PGHOST="+super.Hostname(), "PGPORT="+super.Port(), "PGPASSWORD="+password)
		return cmd.CombinedOutput()
	}
	for range 2 {
		if said, err := makeAll(); err != nil || strings.Contains(string(said), "ERROR") {
			t.Fatalf("%v: %s", err, said)
		}
	}

	as := func(account, password string) string {
		u := *super
		u.User, u.Path = url.UserPassword(account, password), "/vantrexia"
		return u.String()
	}
	if _, err := storeOf(t, as(super.User.Username(), password)).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if may, err := storeOf(t, as("vantrexia_runtime", "secret")).MayErase(t.Context()); err != nil || may {
		t.Errorf("the runtime account may erase: %t, %v", may, err)
	}
	temporal, err := pgx.Connect(t.Context(), strings.Replace(as("temporal", "it's temporal's"), "/vantrexia", "/postgres", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer temporal.Close(t.Context())
	if _, err := temporal.Exec(t.Context(), "CREATE DATABASE of_temporal"); err != nil {
		t.Error(err)
	}
	if _, err := pgx.Connect(t.Context(), as("temporal", "it's temporal's")); err == nil {
		t.Error("Temporal's account reaches the patients")
	}

	if err := os.Remove(filepath.Join(secrets, "temporal-password")); err != nil {
		t.Fatal(err)
	}
	if said, err := makeAll(); err == nil || !strings.Contains(string(said), "run deploy/make-secrets.sh") {
		t.Errorf("without a password: %v, %s", err, said)
	}
}
