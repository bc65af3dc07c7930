package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/keyring"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// TestSeparateProcesses runs sandbox, API and worker as separate processes, as in production. They start
// before the servers that they need.
func TestSeparateProcesses(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	temporalAddress, apiAddress, sandboxAddress, healthAddress := freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t)
	database, keyringFile, checkpoints := stack.Postgres(t), keyringtest.File(t), filepath.Join(dir, "checkpoints")
	settings := append(devstack.SandboxSettings(sandboxAddress, apiAddress),
		"KEYRING_FILE="+keyringFile, "DATABASE_URL="+database,
		"TEMPORAL_ADDRESS="+temporalAddress,
		"AUDIT_CHECKPOINTS_FILE="+checkpoints,
		"API_ADDRESS="+apiAddress,
		"API_TOKEN_SECRET="+strings.Repeat("s", 32),
	)

	workerSettings := append([]string{"HEALTH_ADDRESS=" + healthAddress}, settings...)
	mustSay(t, run(t, dir, settings, "api"), 1, "keys generate")
	mustSay(t, run(t, dir, settings, "worker"), 1, "keys generate")
	mustSay(t, run(t, dir, settings, "keys", "generate"), 0, "private key written")
	mustSay(t, run(t, dir, settings, "health"), 1, apiAddress)
	nowhere := append(slices.Clone(settings), "AUDIT_CHECKPOINTS_FILE="+filepath.Join(dir, "nowhere", "checkpoints"))
	mustSay(t, run(t, dir, nowhere, "worker"), 1, "AUDIT_CHECKPOINTS_FILE")

	ehr := start(t, dir, settings, "sandbox")
	ehr.await(t, &ehr.stderr, "listening")
	server := start(t, dir, settings, "api")
	server.await(t, &server.stderr, "listening")
	deliverer := start(t, dir, workerSettings, "worker")
	deliverer.await(t, &deliverer.stderr, "waiting for the database")
	server.await(t, &server.stderr, "run `vantrexia migrate`")
	admin := strings.TrimSpace(run(t, dir, settings, "token", "--role", "admin").stdout.text())
	api := "http://" + apiAddress + "/api/v1"
	if status := call(t, http.MethodGet, api+"/patients/", admin, "", nil); status != http.StatusServiceUnavailable {
		t.Errorf("before the migration the API answers %d", status)
	}

	for _, of := range [][]string{settings, workerSettings} {
		mustSay(t, run(t, dir, of, "health"), 0, "")
		waiting := run(t, dir, of, "health", "--ready")
		mustSay(t, waiting, 1, "503")
		if got := waiting.stdout.text(); !strings.Contains(got, `"database":"migrations pending"`) {
			t.Errorf("/readyz says %s", got)
		}
	}

	mustSay(t, run(t, dir, settings, "migrate"), 1, "TEMPORAL_ADDRESS") // the schema is up to date from here on
	deliverer.await(t, &deliverer.stderr, "waiting for Temporal")
	eventually(t, "the API is ready", func() bool { return run(t, dir, settings, "health", "--ready").wait(t) == 0 })
	early := postReading(t, api, admin, "2026-02-06T10:30:00Z")
	mustSay(t, run(t, dir, workerSettings, "health", "--ready"), 1, "503")

	startTemporalAt(t, temporalAddress)
	deliverer.await(t, &deliverer.stderr, "search attributes")
	mustSay(t, run(t, dir, settings, "migrate"), 0, "")
	deliverer.await(t, &deliverer.stderr, "worker started")
	eventually(t, "the worker is ready", func() bool { return run(t, dir, workerSettings, "health", "--ready").wait(t) == 0 })
	late := postReading(t, api, admin, "2026-02-06T10:45:00Z")
	eventually(t, "the reading is delivered", func() bool { return transmitted(t, api, admin, late) })
	eventually(t, "the sweep delivers what came while Temporal was away", func() bool {
		call(t, http.MethodPost, api+"/fhir/process-pending/", admin, "", nil)
		return transmitted(t, api, admin, early)
	})
	for _, p := range []*process{server, deliverer, ehr} {
		p.signal(t, syscall.SIGTERM)
		if code := p.wait(t); code != 0 {
			t.Errorf("SIGTERM ended vantrexia %s with %d, want 0\n%s", p.cmd.Args[1], code, p.stderr.text())
		}
	}
	checkSealed(t, database, keyringFile, checkpoints)
}

// checkSealed checks that processes which have ended in order left nothing of the audit trail unsealed, and that the checkpoints
// in the file are those of the trail.
func checkSealed(t *testing.T, database, keyringFile, checkpoints string) {
	t.Helper()
	keys, err := keyring.Open(keyringFile)
	if err != nil {
		t.Fatal(err)
	}
	outside := audit.ReadCheckpoints(text(t, checkpoints))
	report, err := audit.Verify(t.Context(), storeWith(t, database, keyringFile), keys, devstack.SandboxPractice, outside)
	if err != nil {
		t.Fatal(err)
	}
	if report.Rows == 0 || report.Sealed != report.Rows || report.Outside == 0 || len(report.Findings) > 0 {
		t.Errorf("the audit trail is %+v, want all of it sealed, with checkpoints outside, and nothing found", report)
	}
}

func mustSay(t *testing.T, p *process, code int, text string) {
	t.Helper()
	got, said := p.wait(t), p.stderr.text()
	if got != code || !strings.Contains(said, text) {
		t.Fatalf("vantrexia %v ended with %d, want %d, and said %q, want %q in it", p.cmd.Args[1:], got, code, said, text)
	}
	if code != 0 && strings.Count(said, "\n") != 1 {
		t.Errorf("vantrexia %v said more than a line: %q", p.cmd.Args[1:], said)
	}
}

// freeAddress was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// silentAddress takes connections and says nothing.
func silentAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }() // when the test ends
		}
	}()

	return listener.Addr().String()
}

// startTemporalAt starts a server that knows none of our search attributes, as in a new installation.
func startTemporalAt(t *testing.T, address string) {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}

	port, err := net.LookupPort("tcp", text)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	server, err := devstack.StartTemporal(ctx, devstack.TemporalConfig{
		Binary:   temporalBinary(t),
		Dir:      filepath.Join(t.TempDir(), "temporal"),
		InMemory: true,
		Headless: true,
		Port:     port,
	})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// postReading posts a reading of a patient whom the sandbox knows, and returns its id.
func postReading(t *testing.T, api, token, at string) string {
	t.Helper()
	var known struct {
		Results []struct{ ID string } `json:"results"`
	}

	call(t, http.MethodGet, api+"/patients/?external_id=ecw-patient-2004454", token, "", &known)
	if len(known.Results) == 0 {
		known.Results = make([]struct{ ID string }, 1)
		body := `{"first_name": "Kevin", "last_name": "Lee", "date_of_birth": "2007-07-15", "mrn": "M", "external_id": "ecw-patient-2004454"}`
		if status := call(t, http.MethodPost, api+"/patients/", token, body, &known.Results[0]); status != http.StatusCreated {
			t.Fatalf("the patient gave %d", status)
		}
	}

	body, err := json.Marshal(map[string]any{
		"patient_id": known.Results[0].ID, "observation_type": "weight", "effective_at": at, "device": "scale",
		"values": map[string]any{"value": 81.6, "unit": "kg"},
	})
	if err != nil {
		t.Fatal(err)
	}

	var stored struct{ ID string }
	if status := call(t, http.MethodPost, api+"/observations/", token, string(body), &stored); status != http.StatusCreated {
		t.Fatalf("the reading gave %d", status)
	}
	return stored.ID
}

func transmitted(t *testing.T, api, token, id string) bool {
	t.Helper()
	var stored struct {
		Transmission *struct{ Status string } `json:"transmission"`
	}
	call(t, http.MethodGet, api+"/observations/"+id+"/", token, "", &stored)
	return stored.Transmission != nil && stored.Transmission.Status == "transmitted"
}

func TestKeysGenerateNeverOverwrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", "new.pem")
	generate := []string{"keys", "generate", "--out", path, "--kid", "vantrexia-ecw-key-2"}
	first := run(t, dir, nil, generate...)
	mustSay(t, first, 0, path)
	var jwks struct {
		Keys []struct{ Kty, Kid, Alg, Use, N, D string }
	}
	if err := json.Unmarshal([]byte(first.stdout.text()), &jwks); err != nil || len(jwks.Keys) != 1 ||
		jwks.Keys[0].Kid != "vantrexia-ecw-key-2" || jwks.Keys[0].Alg != "RS384" || jwks.Keys[0].D != "" {
		t.Errorf("printed %s (%v)", first.stdout.text(), err)
	}

	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key's file: %v, %v", info, err)
	}

	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	mustSay(t, run(t, dir, nil, generate...), 1, "exists already")
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the key has changed (%v)", err)
	}
}

func TestTokenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	secret := []string{"API_TOKEN_SECRET=" + strings.Repeat("s", 32)}
	for name, c := range map[string]struct {
		settings, flags []string
		want            string
	}{
		"no secret":    {nil, nil, "API_TOKEN_SECRET"},
		"short secret": {[]string{"API_TOKEN_SECRET=short"}, nil, "32 bytes"},
		"unknown role": {secret, []string{"--role", "boss"}, "use admin, clinical_manager"},
		"negative ttl": {secret, []string{"--ttl", "-1h"}, "1h"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mustSay(t, run(t, t.TempDir(), c.settings, append([]string{"token"}, c.flags...)...), 1, c.want)
		})
	}
}

func TestSimulateSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	secret := []string{"API_TOKEN_SECRET=" + strings.Repeat("s", 32)}
	mustSay(t, run(t, t.TempDir(), nil, "simulate"), 1, "VANTREXIA_TOKEN")
	mustSay(t, run(t, t.TempDir(), secret, "simulate", "--visits", "-1"), 1, "-1 visits")
	began := time.Now()
	away := run(t, t.TempDir(), secret, "simulate", "--visits", "1", "--url", "http://127.0.0.1:1")
	mustSay(t, away, 1, "make run")
	if away.stdout.text() != "" || time.Since(began) > patience/2 {
		t.Errorf("said %q after %s", away.stdout.text(), time.Since(began))
	}
}
