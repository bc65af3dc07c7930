package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// watchedEHR is a sandbox EHR whose tokens live four seconds, and which keeps our JWKS for three, as eCW keeps
// it for minutes. It counts the token requests by the key that has signed them.
type watchedEHR struct {
	*sandbox.Server
	mu      sync.Mutex
	asked   map[string]int // by kid
	refused []string
}

const keysKept = 3 * time.Second

func startWatchedEHR(t *testing.T, address, api string) *watchedEHR {
	t.Helper()
	server, err := sandbox.New(sandbox.Config{
		ClientID:      "vantrexia-sandbox-client",
		PracticeCode:  devstack.SandboxPractice,
		JWKSURL:       "http://" + api + jwksPath,
		KeysKept:      keysKept,
		PublicURL:     "http://" + address,
		TokenLifetime: 4 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}

	ehr := &watchedEHR{Server: server, asked: map[string]int{}}
	web := &httptest.Server{Listener: listener, Config: &http.Server{Handler: ehr}}
	web.Start()
	t.Cleanup(func() {
		_ = server.Close()
		web.Close()
	})
	return ehr
}

// ServeHTTP looks at the key of a token request, and at the answer.
func (e *watchedEHR) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != sandbox.TokenPath {
		e.Server.ServeHTTP(w, r)
		return
	}

	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	e.Server.ServeHTTP(answer, r)

	form, _ := url.ParseQuery(string(body))
	head, _, _ := strings.Cut(form.Get("client_assertion"), ".")
	text, _ := base64.RawURLEncoding.DecodeString(head)
	var header struct{ Kid string }
	_ = json.Unmarshal(text, &header) // an unknown kid shows in the counts
	e.mu.Lock()
	e.asked[header.Kid]++
	if answer.Code != http.StatusOK {
		e.refused = append(e.refused, header.Kid+": "+answer.Body.String())
	}
	e.mu.Unlock()

	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// TestTheKeyIsRotatedWhileReadingsAreDelivered: no delivery fails, whoever signs for it, although the rotation
// is killed and run again, and eCW keeps our JWKS.
func TestTheKeyIsRotatedWhileReadingsAreDelivered(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	temporal, apiAddress, ehrAddress := freeAddress(t), freeAddress(t), freeAddress(t)
	database := stack.Postgres(t)
	settings := append(devstack.SandboxSettings(ehrAddress, apiAddress),
		"KEYRING_FILE="+keyringtest.File(t),
		"DATABASE_URL="+database,
		"TEMPORAL_ADDRESS="+temporal,
		"API_ADDRESS="+apiAddress,
		"API_PUBLIC_URL=http://"+apiAddress,
		"API_TOKEN_SECRET="+strings.Repeat("s", 32),
		"ECW_KEYS_DIR=keys",
		"ECW_RATE_LIMIT=60000",
	)
	ehr := startWatchedEHR(t, ehrAddress, apiAddress)
	startTemporalAt(t, temporal)
	mustSay(t, run(t, dir, settings, "keys", "generate", "--out", "keys/vantrexia-ecw-key-1.pem"), 0, "")
	mustSay(t, run(t, dir, settings, "migrate"), 0, "")
	server := start(t, dir, settings, "api")
	server.await(t, &server.stderr, "listening")
	for range 2 {
		deliverer := start(t, dir, settings, "worker")
		deliverer.await(t, &deliverer.stderr, "worker started")
	}

	api := "http://" + apiAddress + "/api/v1"
	admin := strings.TrimSpace(run(t, dir, settings, "token", "--role", "admin").stdout.text())
	at := time.Date(2026, 2, 6, 10, 0, 0, 0, time.UTC)
	sent := 0
	send := func() { // some readings a second, and now and then a test of the connection, for which the API signs
		time.Sleep(100 * time.Millisecond)
		at = at.Add(time.Minute)
		postReading(t, api, admin, at.Format(time.RFC3339))
		sent++
		if sent%10 == 0 {
			if status := call(t, http.MethodPost, api+"/ecw/test/jwt/", admin, "", nil); status != http.StatusOK {
				t.Errorf("the test of the authentication gives %d", status)
			}
		}
	}

	rotate := []string{"keys", "rotate-ecw", "--wait", (2 * keysKept).String()}
	for _, killedAfter := range []string{"1. Published", "3. Switched"} {
		rotation := start(t, dir, settings, rotate...)
		go rotation.killAfter(killedAfter)
		for rotation.runs() {
			send()
		}
		if said := rotation.stdout.text(); !strings.Contains(said, killedAfter) {
			t.Fatalf("the rotation does not say %q: %s%s", killedAfter, said, rotation.stderr.text())
		}
	}

	rotation := start(t, dir, settings, rotate...)
	for rotation.runs() {
		send()
	}
	mustSay(t, rotation, 0, "")
	for range 20 {
		send()
	}

	allDelivered(t, database, sent, func() { // the sweep, for a reading whose workflow a busy Temporal did not take
		call(t, http.MethodPost, api+"/fhir/process-pending/", admin, "", nil)
	})
	ehr.mu.Lock()
	defer ehr.mu.Unlock()
	if len(ehr.refused) > 0 || ehr.asked["vantrexia-ecw-key-1"] < 3 || ehr.asked["vantrexia-ecw-key-2"] < 3 || len(ehr.asked) != 2 {
		t.Errorf("token requests by key: %v, refused: %q", ehr.asked, ehr.refused)
	}

	status := run(t, dir, settings, "keys", "rotate-ecw", "--status").stdout.text()
	if !regexp.MustCompile(`(?s)key-1 +retired .*key-2 +signing .* 3072 `).MatchString(status) {
		t.Errorf("the keys are\n%s", status)
	}
}

// killAfter kills the process as soon as it says the text.
func (p *process) killAfter(text string) {
	for {
		said, more := p.stdout.watch()
		if strings.Contains(said, text) {
			_ = p.cmd.Process.Kill() // an error means that it has ended
			return
		}
		select {
		case <-more:
		case <-p.done:
			return
		}
	}
}

func (p *process) runs() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// allDelivered waits until so many readings are delivered, or one of their deliveries has failed.
func allDelivered(t *testing.T, database string, readings int, sweep func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()

	eventually(t, "the readings are delivered", func() bool {
		var delivered int
		var failures []string
		err := conn.QueryRow(t.Context(), `
			SELECT count(*) FILTER (WHERE status = 'transmitted'),
			       (SELECT coalesce(array_agg(error_code || ': ' || error_message), '{}')
			        FROM transmission_attempts
			        WHERE error_class <> '')
			FROM transmissions`).Scan(&delivered, &failures)
		if err != nil || len(failures) > 0 {
			t.Fatalf("of %d readings %d are delivered, these deliveries have failed: %q, %v", readings, delivered, failures, err)
		}
		if delivered < readings {
			sweep()
		}
		return delivered == readings
	})
}

// TestADirectoryOfKeys: which settings go with ECW_KEYS_DIR, and what is said when it cannot be used.
func TestADirectoryOfKeys(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	apart := []string{
		"ECW_CLIENT_ID=c", "ECW_PRACTICE_CODE=FFHEDD", "KEYRING_FILE=" + keyringtest.File(t), "DATABASE_URL=postgres://u:p@127.0.0.1:1/d",
		"TEMPORAL_ADDRESS=127.0.0.1:1",
	}
	ours := append(slices.Clone(apart), "ECW_KEYS_DIR=keys")
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustSay(t, run(t, dir, ours, "worker"), 1, "ECW_KEYS_DIR: keys has no key")
	if _, err := generateKey(filepath.Join(dir, "keys", "key-1.pem"), "key-1"); err != nil {
		t.Fatal(err)
	}
	worker := start(t, dir, ours, "worker")
	worker.await(t, &worker.stderr, "waiting for the database")

	for _, other := range []string{"ECW_PRIVATE_KEY", "ECW_PRIVATE_KEY_FILE", "ECW_KEY_ID", "ECW_OTHER_KEY_FILE", "ECW_OTHER_KEY_ID"} {
		mustSay(t, run(t, dir, append(slices.Clone(ours), other+"=x"), "worker"), 1, other+" and ECW_KEYS_DIR are both set")
	}

	secret := []string{"ECW_APP_TYPE=confidential_client", "ECW_CLIENT_SECRET=s"}
	mustSay(t, run(t, dir, append(secret, apart...), "keys", "rotate-ecw"), 1, "confidential_client")
	mustSay(t, run(t, dir, ours, "keys", "rotate-ecw", "--wait", "-1s"), 1, "--wait")
	refused := run(t, dir, append(slices.Clone(ours), "ECW_TOKEN_URL=http://127.0.0.1:1/t", "ECW_FHIR_BASE_URL=http://127.0.0.1:1/f"),
		"keys", "rotate-ecw", "--wait", "0s")
	mustSay(t, refused, 1, "eCW does not take key-2, so key-1 goes on signing")
}

// TestWithoutADirectoryTheStepsArePrinted, with the settings as they are.
func TestWithoutADirectoryTheStepsArePrinted(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	settings := []string{"ECW_PRIVATE_KEY_FILE=ecw.pem", "ECW_KEY_ID=key-7", "API_PUBLIC_URL=https://rpm.example/"}
	if _, err := generateKey(filepath.Join(dir, "ecw.pem"), "key-7"); err != nil {
		t.Fatal(err)
	}

	steps := run(t, dir, settings, "keys", "rotate-ecw")
	mustSay(t, steps, 0, "")
	for _, part := range []string{
		"--kid key-8", "ECW_OTHER_KEY_ID=key-8\n", "ECW_KEY_ID=key-8\n", "ECW_OTHER_KEY_FILE=ecw.pem\n", "ECW_OTHER_KEY_ID=key-7\n",
		"https://rpm.example/.well-known/jwks.json must list key-8", "Wait 10m0s",
	} {
		if !strings.Contains(steps.stdout.text(), part) {
			t.Errorf("%q is not among the steps:\n%s", part, steps.stdout.text())
		}
	}

	status := run(t, dir, settings, "keys", "rotate-ecw", "--status").stdout.text()
	if !regexp.MustCompile(`key-7 +signing +- +3072 +20`).MatchString(status) {
		t.Errorf("the keys are\n%s", status)
	}
}

// TestTheLengthOfTheKey: 2048 bits, as the tutorial of the integration has them, are enough.
func TestTheLengthOfTheKey(t *testing.T) {
	t.Parallel()
	for bits, isTaken := range map[int]bool{2040: false, 2048: true} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "private.pem")
		text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}

		_, err = ecwConfig{PrivateKeyFile: path, KeyID: "kid"}.keys()
		said := fmt.Sprintf("ECW_PRIVATE_KEY_FILE: %s: the private key has %d bits; eCW needs at least 2048", path, bits)
		if isTaken && err != nil || !isTaken && (err == nil || !strings.HasPrefix(err.Error(), said)) {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}
