package main

import (
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestTheDatabaseIsReachedWithVerifiedTLS: off this machine, nothing but verified TLS is taken, in none of the ways that pgx
// tries.
func TestTheDatabaseIsReachedWithVerifiedTLS(t *testing.T) {
	_, authority, _ := certificate(t, "authority")
	for url, refused := range map[string]bool{
		"postgres://u:p@db.example/v":                                                                    true, // prefer
		"postgres://u:p@db.example/v?sslmode=disable":                                                    true,
		"postgres://u:p@db.example/v?sslmode=allow":                                                      true,
		"postgres://u:p@db.example/v?sslmode=require":                                                    true,
		"postgres://u:p@db.example/v?sslmode=require&sslrootcert=" + authority:                           false, // is verify-ca
		"postgres://u:p@db.example/v?sslmode=verify-ca&sslrootcert=" + authority:                         false,
		"postgres://u:p@db.example/v?sslmode=verify-full&sslrootcert=" + authority:                       false,
		"postgres://u:p@db.example/v?sslmode=verify-full":                                                false,
		"postgres://u:p@db.example/v?sslrootcert=system":                                                 false,
		"host=db.example user=u dbname=v":                                                                true,
		"host=db.example user=u dbname=v sslmode=verify-full":                                            false,
		"postgres://u:p@10.0.0.7/v":                                                                      true,
		"postgres://u:p@[2001:db8::7]/v":                                                                 true,
		"postgres://u:p@localhost.example/v":                                                             true,
		"postgres://u:p@0.0.0.0/v":                                                                       true,
		"postgres://u:p@127.0.0.1,db.example/v?sslmode=disable":                                          true, // the second of two hosts
		"postgres://u:p@127.0.0.1/v?sslmode=disable":                                                     false,
		"postgres://u:p@127.9.9.9/v":                                                                     false,
		"postgres://u:p@[::1]/v":                                                                         false,
		"postgres://u:p@[::ffff:127.0.0.1]/v":                                                            false,
		"postgres://u:p@LocalHost/v":                                                                     false,
		"host=/var/run/postgresql user=u dbname=v":                                                       false,
		"postgres://u:p@/v?host=/var/run/postgresql&sslmode=disable":                                     false,
		"postgres://u:p@mesh.example/v":                                                                  false,
		"postgres://u:p@localhost./v":                                                                    false,
		"postgres://u:p@localhost.evil.example/v":                                                        true,
		"postgres://u:p@127.0.0.1.evil.example/v":                                                        true,
		"postgres://u:p@[fe80::1%25lo]/v":                                                                true,
		"postgres://u:p@127.0.0.1/v?host=127.0.0.1,db.example&sslmode=require":                           true,
		"postgresql://u:p@db.example/v?sslmode=prefer":                                                   true,
		"host=127.0.0.1,db.example port=5432,5433 user=u password=:p@ dbname=v":                          true,
		"postgres://u:p@mesh.example,db.example/v":                                                       true,
		"postgres://u:p@127.0.0.1/v?host=db.example&sslmode=disable":                                     true,
		"postgres://u:p@db.example/v?sslmode=verify-full&sslnegotiation=direct":                          false,
		"postgres://u:p@db.example/v?sslnegotiation=direct":                                              true,
		"postgres://u:p@db.example/v?sslmode=verify-full&sslrootcert=" + authority + "&pool_max_conns=3": false,
	} {
		t.Run(url, func(t *testing.T) {
			store, err := newStore(t.Context(), config{DatabaseURL: url, UnencryptedHosts: []string{"mesh.example"}}, keyringtest.Shared())
			if err == nil {
				store.Close()
			}
			if (err != nil) != refused {
				t.Fatalf("error %v, want one: %t", err, refused)
			}
			if err == nil {
				return
			}
			for _, part := range []string{"DATABASE_URL", "sslmode=verify-full", "sslrootcert", "ALLOW_UNENCRYPTED_HOSTS"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v does not name %s", err, part)
				}
			}
			if strings.Contains(err.Error(), ":p@") {
				t.Errorf("%v shows the password", err)
			}
		})
	}
}

// TestSSLModeOfTheEnvironment: what libpq's own variables say counts as if it stood in the URL.
func TestSSLModeOfTheEnvironment(t *testing.T) {
	t.Setenv("PGSSLMODE", "verify-full")
	if err := (config{DatabaseURL: "postgres://u:p@db.example/v"}).checkDatabaseTLS(); err != nil {
		t.Error(err)
	}
	t.Setenv("PGSSLMODE", "disable")
	t.Setenv("PGHOST", "db.example")
	if err := (config{DatabaseURL: "postgres:///v"}).checkDatabaseTLS(); err == nil {
		t.Error("a host from the environment is reached without TLS")
	}
}

func TestTemporalIsReachedWithTLS(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := certificate(t, "vantrexia")
	for name, c := range map[string]struct {
		address  string
		settings temporalConfig
		refused  bool
	}{
		"no TLS":                   {"temporal:7233", temporalConfig{}, true},
		"an address":               {"10.0.0.7:7233", temporalConfig{}, true},
		"any address":              {"0.0.0.0:7233", temporalConfig{}, true},
		"a scheme of gRPC":         {"dns:///temporal:7233", temporalConfig{}, true},
		"no port":                  {"temporal", temporalConfig{}, true},
		"localhost as a label":     {"localhost.example:7233", temporalConfig{}, true},
		"this machine as a query":  {"dns:///temporal:7233?a=/localhost", temporalConfig{}, true},
		"as a fragment":            {"dns:///temporal:7233#/localhost", temporalConfig{}, true},
		"as a path":                {"dns:///temporal:7233/localhost", temporalConfig{}, true},
		"asked of another machine": {"dns://10.0.0.7/localhost:7233", temporalConfig{}, true},
		"several":                  {"ipv4:127.0.0.1:7233,10.0.0.7:7233", temporalConfig{}, true},
		"several of one scheme":    {"ipv4:///10.0.0.7:7233,127.0.0.1:7233", temporalConfig{}, true},
		"a zone":                   {"[fe80::1%lo]:7233", temporalConfig{}, true},
		"a user":                   {"localhost@temporal:7233", temporalConfig{}, true},
		"a trailing dot":           {"localhost.:7233", temporalConfig{}, false},
		"capital letters":          {"LocalHost:7233", temporalConfig{}, false},
		"TLS":                      {"temporal:7233", temporalConfig{TLS: true}, false},
		"a server's name":          {"temporal:7233", temporalConfig{ServerName: "temporal"}, false},
		"an API key":               {"temporal:7233", temporalConfig{APIKey: "key"}, false},
		"a client certificate":     {"temporal:7233", temporalConfig{ClientCertPath: certFile, ClientKeyPath: keyFile}, false},
		"the default":              {"", temporalConfig{}, false},
		"this machine":             {"127.0.0.1:7233", temporalConfig{}, false},
		"this machine, IPv6":       {"[::1]:7233", temporalConfig{}, false},
		"this machine by name":     {"localhost:7233", temporalConfig{}, false},
		"this machine by scheme":   {"dns:///localhost:7233", temporalConfig{}, false},
		"allowed":                  {"mesh.example:7233", temporalConfig{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			temporal, err := newTemporalClient(config{
				TemporalAddress:   c.address,
				TemporalNamespace: "default",
				Temporal:          c.settings,
				UnencryptedHosts:  []string{"mesh.example"},
			}, keyringtest.Shared())
			if err == nil {
				temporal.Close()
			}
			if (err != nil) != c.refused {
				t.Fatalf("error %v, want one: %t", err, c.refused)
			}
			if err != nil && (!strings.Contains(err.Error(), "TEMPORAL_ADDRESS") || !strings.Contains(err.Error(), "TEMPORAL_TLS")) {
				t.Errorf("%v does not name the settings", err)
			}
		})
	}
}

// TestCommandsDemandTLS: the commands beside the long-running roles are refused in the same way, and the way out is loud.
func TestCommandsDemandTLS(t *testing.T) {
	t.Parallel()
	for _, command := range [][]string{
		{"migrate"},
		{"users", "list", "--local"},
		{"users", "add", "--local", "--reason", "first", "--role", "admin", "--email", "a@b.example", "--first", "A", "--last", "B"},
	} {
		t.Run(strings.Join(command, " "), func(t *testing.T) {
			t.Parallel()
			settings := []string{"KEYRING_FILE=" + keyringtest.File(t), "ECW_PRACTICE_CODE=FFHEDD", "DATABASE_URL=postgres://u:hunter2@db.invalid/v?sslmode=require"}
			mustSay(t, run(t, t.TempDir(), settings, command...), 1, "sslmode=verify-full")

			allowed := run(t, t.TempDir(), append(settings, "ALLOW_UNENCRYPTED_HOSTS=temporal,db.invalid"), command...)
			said := allowed.stderr.text()
			if !strings.Contains(said, "WARN") || !strings.Contains(said, "host=db.invalid") || !strings.Contains(said, "no connection") {
				t.Errorf("with the host allowed it says %s", said)
			}
			if strings.Contains(said, "hunter2") {
				t.Errorf("the password is in %s", said)
			}
		})
	}
}
