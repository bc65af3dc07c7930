package canary_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/keyring"
)

// patience bounds every wait: seconds are usual, a loaded machine takes longer.
const patience = time.Minute

// system is an installation with everything that it needs, as processes of its own: PostgreSQL with the
// settings of docs/operations.md, Temporal with its database in a file, the sandbox EHR, and `vantrexia
// serve`, which logs everything.
type system struct {
	dir       string
	ports     map[string]int
	vantrexia devstack.Vantrexia
	postgres  *devstack.Postgres
	temporal  *devstack.Temporal
	serving   *devstack.Program
	raw       client.Client // with Temporal's own data converter: it sees what the server has
	keys      *keyring.Keyring
	oidc      *httptest.Server
	said      said

	mu       sync.Mutex
	logs     map[string][]byte // of servers that were stopped, whose next start empties the file
	secrets  []canary
	readings int

	adminToken string
}

const database = "vantrexia"

// startSystem runs everything until the test ends.
func startSystem(t *testing.T) *system {
	t.Helper()
	s := &system{dir: t.TempDir(), logs: map[string][]byte{}}
	if err := os.Chmod(filepath.Dir(s.dir), 0o711); err != nil { // PostgreSQL may run in another account than ours
		t.Fatal(err)
	}
	if err := os.Chmod(s.dir, 0o711); err != nil {
		t.Fatal(err)
	}

	var err error
	if s.ports, err = devstack.ChoosePorts("postgres", "temporal", "sandbox", "api"); err != nil {
		t.Fatal(err)
	}

	s.startPostgres(t)
	s.startTemporal(t)
	t.Cleanup(func() {
		if err := s.postgres.Stop(); err != nil {
			t.Error(err)
		}
		if err := s.temporal.Stop(); err != nil {
			t.Error(err)
		}
	})
	if s.raw, err = client.NewLazyClient(client.Options{HostPort: s.address("temporal"), Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.raw.Close)

	s.startIdentityProvider(t)
	s.install(t)
	s.learnSecrets(t)
	s.startSandbox(t)
	s.serve(t)
	t.Cleanup(func() { _ = s.serving.Stop() })
	return s
}

func (s *system) address(name string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[name]))
}

func (s *system) url(name string) string { return "http://" + s.address(name) }

func (s *system) startPostgres(t *testing.T) {
	t.Helper()
	var err error
	s.postgres, err = devstack.StartPostgres(t.Context(), devstack.PostgresConfig{
		Dir:     filepath.Join(s.dir, "postgres"),
		Port:    s.ports["postgres"],
		Install: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.postgres.CreateDatabase(t.Context(), database); err != nil {
		t.Fatal(err)
	}
}

func (s *system) startTemporal(t *testing.T) {
	t.Helper()
	root, err := devstack.Root()
	if err != nil {
		t.Fatal(err)
	}
	s.temporal, err = devstack.StartTemporal(t.Context(), devstack.TemporalConfig{
		Binary:   filepath.Join(root, "bin", "temporaldev"),
		Dir:      filepath.Join(s.dir, "temporal"),
		Port:     s.ports["temporal"],
		Headless: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// startIdentityProvider starts one that gives no tokens, and says whom it does not give them to.
func (s *system) startIdentityProvider(t *testing.T) {
	s.oidc = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
			_ = json.NewEncoder(w).Encode(map[string]string{
				"issuer": s.oidc.URL, "authorization_endpoint": s.oidc.URL + "/authorize", "token_endpoint": s.oidc.URL + "/token",
				"jwks_uri": s.oidc.URL + "/keys",
			})
			return
		}
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": userEmail + " " + oidcSecret})
	}))
	t.Cleanup(s.oidc.Close)
}

func (s *system) install(t *testing.T) {
	t.Helper()
	var err error
	s.vantrexia, err = devstack.Install(t.Context(), devstack.Vantrexia{
		Binary: binary(t),
		Dir:    s.dir,
		Settings: []string{
			"DATABASE_URL=" + s.postgres.URL(database),
			"TEMPORAL_ADDRESS=" + s.address("temporal"),
			"API_ADDRESS=" + s.address("api"),
			"API_PUBLIC_URL=" + s.url("api"),
			"API_TOKEN_SECRET=" + tokenSecret,
			"API_INGESTION_LIMIT=0",
			"API_CALLER_LIMIT=0",
			"API_ANONYMOUS_LIMIT=0",
			"API_SIGN_IN_LIMIT=0",
			"OIDC_ISSUER=" + s.oidc.URL,
			"OIDC_CLIENT_ID=vantrexia",
			"OIDC_CLIENT_SECRET=" + oidcSecret,
			"OIDC_ROLES=nurses=nurse",
			"RETRY_DELAYS=200ms,300ms,1h", // what fails a third time is there when the histories are read
			"ECW_TIMEOUT=8s",
			"ECW_RATE_LIMIT=60000",
			"LOG_LEVEL=debug",
			"DRAIN_TIMEOUT=10s",
		},
	}, s.address("sandbox"), s.address("api"))
	if err != nil {
		t.Fatal(err)
	}
	if s.keys, err = keyring.Open(filepath.Join(s.dir, ".local", "keyring.json")); err != nil {
		t.Fatal(err)
	}
}

// binary builds the command.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vantrexia")
	if said, err := exec.Command("go", "build", "-o", path, "../../cmd/vantrexia").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, said)
	}
	return path
}

// secret adds a canary of this run.
func (s *system) secret(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, canary{name, text})
}

// canaries returns all of them.
func (s *system) canaries() []canary {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(known(), s.secrets...)
}

// learnSecrets notes the keys and passwords that the installation has made.
func (s *system) learnSecrets(t *testing.T) {
	t.Helper()
	u, err := url.Parse(s.postgres.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	databasePassword, _ := u.User.Password()
	s.secret("database password", databasePassword)

	text, err := os.ReadFile(filepath.Join(s.dir, ".local", "ecw-private.pem"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	s.secret("eCW private key", lines[2])
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	s.secret("eCW private key", string(key.(*rsa.PrivateKey).D.Bytes()[:24]))
	s.secret("eCW private key", string(key.(*rsa.PrivateKey).Primes[0].Bytes()[:24]))

	s.learnKeyring(t)
}

// learnKeyring notes the key material of the keyring: the last bytes of each of Tink's keys.
func (s *system) learnKeyring(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.dir, ".local", "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Keysets map[string]struct {
			Keyset struct {
				Key []struct {
					KeyData struct{ Value string }
				}
			}
		}
	}
	if err := json.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	for name, set := range file.Keysets {
		for _, key := range set.Keyset.Key {
			value, err := base64.StdEncoding.DecodeString(key.KeyData.Value)
			if err != nil || len(value) < 32 {
				t.Fatalf("the key of %s has %d bytes (%v)", name, len(value), err)
			}
			s.secret("key of the keyring", string(value[len(value)-24:]))
		}
	}
	if len(file.Keysets) != len(keyring.Keysets()) {
		t.Fatalf("the keyring has %d keysets", len(file.Keysets))
	}
}

func (s *system) startSandbox(t *testing.T) {
	t.Helper()
	ehr, err := s.vantrexia.Start("sandbox", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ehr.Stop() })
	s.await(t, "the sandbox answers", func() bool { return s.reaches(s.url("sandbox") + "/admin/faults") })
	for n := range people {
		s.putInEHR(t, somebody(n))
	}
}

// serve starts the API and the worker, again if they run, with these settings added.
func (s *system) serve(t *testing.T, settings ...string) {
	t.Helper()
	if s.serving != nil {
		if err := s.serving.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.serving, err = s.vantrexia.Start("serve", "serve", settings...); err != nil {
		t.Fatal(err)
	}
	s.await(t, "vantrexia serve is ready", func() bool { return s.reaches(s.url("api") + "/readyz") })
}

func (s *system) reaches(url string) bool {
	res, err := http.Get(url)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// await asks until the answer is yes.
func (s *system) await(t *testing.T, what string, yes func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !yes() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("not so: %s", what)
		}
	}
}

// keepLog keeps the log of a server that is about to be started again.
func (s *system) keepLog(t *testing.T, name, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	s.logs[name] = append(s.logs[name], text...)
}

// command runs vantrexia to its end, and notes what it says beside its output.
func (s *system) command(t *testing.T, input string, settings []string, args ...string) (output string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.vantrexia.Binary, args...)
	cmd.Dir = s.dir
	cmd.Env = append(append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, s.vantrexia.Settings...), settings...)
	var out, complaint strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &complaint
	err := cmd.Run()
	s.said.add(utterance{
		place:  fmt.Sprintf("standard error of vantrexia %s", args[0]),
		answer: complaint.String(),
		sent:   strings.Join(args, " ") + input,
	})
	return strings.TrimSpace(out.String()), err == nil
}

// EHR

func (s *system) admin(t *testing.T, method, path string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.url("sandbox")+"/admin/"+path, strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("%s %s %s: %d", method, path, text, res.StatusCode)
	}
}

func (s *system) putInEHR(t *testing.T, p person) { s.admin(t, "POST", "patients", p) }

// fault is the body of the sandbox's POST /admin/faults.
type fault map[string]any

func (s *system) fault(t *testing.T, kind, target string, more fault) {
	t.Helper()
	f := fault{"kind": kind, "target": target}
	for name, value := range more {
		f[name] = value
	}
	s.admin(t, "POST", "faults", f)
}

// heal ends all faults, and lets the EHR go on with naming people.
func (s *system) heal(t *testing.T) {
	t.Helper()
	s.admin(t, "DELETE", "faults", nil)
	s.fault(t, "personal_text", "any", fault{"text": ehrText, "for": "24h"})
}

// awaitTaken waits until a request has met the fault, of which there is one.
func (s *system) awaitTaken(t *testing.T, kind string) {
	t.Helper()
	s.await(t, "a request has met the fault "+kind, func() bool {
		res, err := http.Get(s.url("sandbox") + "/admin/faults")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		var list struct{ Faults []struct{ Kind string } }
		if json.NewDecoder(res.Body).Decode(&list) != nil {
			return false
		}
		for _, f := range list.Faults {
			if f.Kind == kind {
				return false
			}
		}
		return true
	})
}
