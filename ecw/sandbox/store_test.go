package sandbox_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

func in(dir string) func(*sandbox.Config) {
	return func(c *sandbox.Config) { c.DataDir = dir }
}

func TestObservationsSurviveARestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	first := start(t, in(dir))
	token := first.token(allScopes)
	id := first.createOnce(token, weight("w-1"), "w-1").str("id")
	text := first.fhirGet(token, "/Observation/"+id).text

	if err := first.server.Close(); err != nil {
		t.Fatal(err)
	}
	if a := first.create(token, weight("w-2")); a.status != 500 {
		t.Errorf("a create after Close: got %d", a.status)
	}

	file := filepath.Join(dir, "observations.ndjson")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(file, append(whole, whole[:len(whole)/2]...), 0o600); err != nil { // a crash in a write
		t.Fatal(err)
	}

	second := start(t, in(dir))
	if a := second.fhirGet(token, "/Observation/"+id); a.status != 401 {
		t.Errorf("tokens do not survive: got %d", a.status)
	}

	token = second.token(allScopes)
	if a := second.fhirGet(token, "/Observation/"+id); a.status != 200 || a.text != text {
		t.Errorf("got %d %s, want %s", a.status, a.text, text)
	}
	if a := second.createOnce(token, weight("w-1"), "w-1"); a.status != 200 || a.str("id") != id {
		t.Errorf("the same again: got %d %s", a.status, a.text)
	}
	if a := second.createOnce(token, weight("w-2"), "w-2"); a.status != 201 || a.str("id") == id {
		t.Errorf("another: got %d %s", a.status, a.text)
	}
	if err := second.server.Close(); err != nil {
		t.Fatal(err)
	}

	third := start(t, in(dir))
	if third.stored("w-1") != 1 || third.stored("w-2") != 1 {
		t.Errorf("stored %d and %d", third.stored("w-1"), third.stored("w-2"))
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no JSON":        "garbage\n",
		"no Observation": `{"id":"obs-fhir-10001","resource":{}}` + "\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "observations.ndjson"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		cfg := sandbox.Config{
			ClientID:     "a",
			PracticeCode: "P",
			JWKSURL:      "http://a/jwks",
			PublicURL:    "http://b",
			DataDir:      dir,
		}

		if _, err := sandbox.New(cfg); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, in(dir))
	token := r.token(allScopes)
	r.createOnce(token, weight("w"), "w")
	r.fault(`{"kind": "throttle", "target": "search"}`)
	r.fhirGet(token, "/Patient")
	r.fault(`{"kind": "error_500", "count": 5}`)

	if a := r.do("POST", "/admin/reset", ""); a.status != 204 {
		t.Fatalf("got %d %s", a.status, a.text)
	}

	stats := r.do("GET", "/admin/stats", "")
	want := `{"tokens":{"issued":0,"refused":{}},"creates":{"received":{},"stored":{},"total":0},"requests":{},` +
		`"limit":{"exceeded":0,"busiest_minute":0},"load":{"in_flight":0,"most_in_flight":0,"busy_seconds":0}}`
	if strings.TrimSpace(stats.text) != want {
		t.Errorf("stats: %s", stats.text)
	}

	if a := r.fhirGet(token, "/Patient"); a.status != 401 {
		t.Errorf("the old token: got %d", a.status)
	}
	if a := r.createOnce(r.token(allScopes), weight("w"), "w"); a.status != 201 {
		t.Errorf("a create: got %d %s", a.status, a.text)
	}

	data, err := os.ReadFile(filepath.Join(dir, "observations.ndjson"))
	if err != nil || strings.Count(string(data), "\n") != 1 {
		t.Errorf("the file holds %q, %v", data, err)
	}
}

func TestStatsCountRequests(t *testing.T) {
	t.Parallel()
	r := start(t)
	token := r.token(allScopes)
	r.createOnce(token, weight("w"), "w")
	r.createOnce(token, weight("w"), "w")
	r.create(token, with(t, weight("x"), patientID, "nobody"))
	r.fault(`{"kind": "reset_before", "target": "create"}`)
	r.createOnce(token, weight("w"), "w")
	r.askToken(form("nonsense", allScopes))
	stats := r.do("GET", "/admin/stats", "")

	for status, want := range map[string]int{"201": 1, "200": 1, "422": 1, "reset": 1} {
		if got := stats.num("requests", "POST Observation", status); got != want {
			t.Errorf("%s: %d, want %d", status, got, want)
		}
	}

	if stats.num("tokens", "issued") != 1 || stats.num("tokens", "refused", "invalid_grant") != 1 || r.received("w") != 2 ||
		r.received("x") != 1 || stats.num("creates", "total") != 1 {
		t.Errorf("stats: %s", stats.text)
	}
}
