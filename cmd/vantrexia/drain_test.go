package main

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/devstack"
	"github.com/vantrexia/vantrexia/fhir"
)

// installation is migrated, and its sandbox EHR runs.
type installation struct {
	dir             string
	settings        []string
	api, ehr, admin string
}

func install(t *testing.T, settings ...string) *installation {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}

	temporalAddress, namespace := stack.Temporal(t)
	apiAddress, sandboxAddress := freeAddress(t), freeAddress(t)
	v, err := devstack.Install(t.Context(), devstack.Vantrexia{
		Binary: path,
		Dir:    workDir(t),
		Settings: append(settings,
			"DATABASE_URL="+stack.Postgres(t),
			"TEMPORAL_ADDRESS="+temporalAddress,
			"TEMPORAL_NAMESPACE="+namespace,
			"API_ADDRESS="+apiAddress,
			"API_TOKEN_SECRET="+strings.Repeat("s", 32),
			"RETRY_DELAYS=1s,1s,1s,1s,1s",
		),
	}, sandboxAddress, apiAddress)
	if err != nil {
		t.Fatal(err)
	}

	admin, err := v.Output(t.Context(), "token", "--role", "admin")
	if err != nil {
		t.Fatal(err)
	}

	in := &installation{
		dir:      v.Dir,
		settings: v.Settings,
		api:      "http://" + apiAddress + "/api/v1",
		ehr:      "http://" + sandboxAddress,
		admin:    admin,
	}

	in.start(t, "sandbox", "listening")
	return in
}

// start returns when the process has said that it runs.
func (in *installation) start(t *testing.T, command, says string) *process {
	t.Helper()
	p := start(t, in.dir, in.settings, command)
	p.await(t, &p.stderr, says)
	return p
}

func (in *installation) breakEHR(t *testing.T, fault string) {
	t.Helper()
	if status := call(t, http.MethodPost, in.ehr+"/admin/faults", "", fault, nil); status != http.StatusCreated {
		t.Fatalf("the fault gave %d", status)
	}
}

// awaitFault returns when the fault has met its request.
func (in *installation) awaitFault(t *testing.T) {
	t.Helper()
	eventually(t, "the request is under way", func() bool {
		var list struct{ Faults []any }
		call(t, http.MethodGet, in.ehr+"/admin/faults", "", "", &list)
		return len(list.Faults) == 0
	})
}

// inChart counts the Observations of a reading in the EHR.
func (in *installation) inChart(t *testing.T, id string) int {
	t.Helper()
	var stats struct {
		Creates struct{ Stored map[string]int }
	}
	call(t, http.MethodGet, in.ehr+"/admin/stats", "", "", &stats)
	return stats.Creates.Stored[fhir.IdentifierSystem+"|"+id]
}

// stopped sends SIGTERM, and checks the exit code and how long the process takes to end.
func stopped(t *testing.T, p *process, within time.Duration, want int) {
	t.Helper()
	began := time.Now()
	p.signal(t, syscall.SIGTERM)
	code, took := p.wait(t), time.Since(began)
	if code != want || took > within {
		t.Errorf("vantrexia %s ended with %d, want %d, %s after SIGTERM\n%s", p.cmd.Args[1], code, want, took, p.stderr.text())
	}
	t.Logf("vantrexia %s ended %s after SIGTERM", p.cmd.Args[1], took.Round(time.Millisecond))
}

// A worker is stopped in the middle of a delivery, as in a deploy. Whether the delivery can end in time or
// not, the reading is in the chart once.
func TestWorkerStopsInTheMiddleOfADelivery(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		drain, delay string
		within       time.Duration
		attempts     int
	}{
		"which ends in time":   {"40s", "2s", 30 * time.Second, 1},
		"which takes too long": {"500ms", "20s", 15 * time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := install(t, "DRAIN_TIMEOUT="+c.drain)
			in.start(t, "api", "listening")
			deliverer := in.start(t, "worker", "worker started")
			in.breakEHR(t, `{"kind": "slow", "target": "create", "delay": "`+c.delay+`"}`)
			id := postReading(t, in.api, in.admin, "2026-02-06T10:30:00Z")
			in.awaitFault(t)
			stopped(t, deliverer, c.within, 0)

			in.start(t, "worker", "worker started")
			eventually(t, "the reading is delivered", func() bool { return transmitted(t, in.api, in.admin, id) })
			if n := in.inChart(t, id); n != 1 {
				t.Errorf("the reading stands %d times in the chart", n)
			}

			var shown struct {
				Results []struct {
					AttemptCount int `json:"attempt_count"`
				} `json:"results"`
			}

			call(t, http.MethodGet, in.api+"/fhir/transmissions/", in.admin, "", &shown)
			if len(shown.Results) != 1 || shown.Results[0].AttemptCount != c.attempts {
				t.Errorf("the transmissions are %+v, want one with %d attempts", shown.Results, c.attempts)
			}
		})
	}
}

// `vantrexia serve` gets SIGTERM: a request under way is still answered, and a delivery under way is
// finished.
func TestServeStopsInTheMiddleOfEverything(t *testing.T) {
	t.Parallel()
	health := freeAddress(t)
	in := install(t, "HEALTH_ADDRESS="+health)
	both := in.start(t, "serve", "worker started")
	eventually(t, "ready", func() bool { return run(t, in.dir, in.settings, "health", "--ready").wait(t) == 0 })
	var readiness map[string]string
	call(t, http.MethodGet, "http://"+health+"/readyz", "", "", &readiness)
	if readiness["worker"] != "running" || readiness["status"] != "ready" {
		t.Errorf("readiness is %v", readiness)
	}

	in.breakEHR(t, `{"kind": "slow", "target": "create", "delay": "3s"}`)
	id := postReading(t, in.api, in.admin, "2026-02-06T10:30:00Z")
	in.awaitFault(t)
	in.breakEHR(t, `{"kind": "slow", "target": "read", "delay": "3s"}`)
	answered := make(chan int, 1)
	go func() {
		answered <- call(t, http.MethodPost, in.api+"/patients/import_selected_from_ecw/", in.admin, `{"ecw_patient_ids": ["ecw-patient-2004455"]}`, nil)
	}()

	in.awaitFault(t)
	stopped(t, both, 40*time.Second, 0)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the request under way was answered %d", status)
	}

	if n := in.inChart(t, id); n != 1 {
		t.Errorf("the reading stands %d times in the chart", n)
	}

	in.start(t, "serve", "worker started")
	eventually(t, "the delivery is recorded", func() bool { return transmitted(t, in.api, in.admin, id) })
}

// A request that outlasts DRAIN_TIMEOUT is cut off, and the exit code says so.
func TestRequestThatOutlastsTheDrain(t *testing.T) {
	t.Parallel()
	in := install(t, "DRAIN_TIMEOUT=300ms")
	server := in.start(t, "api", "listening")
	in.breakEHR(t, `{"kind": "slow", "target": "token", "delay": "20s"}`)
	over := make(chan error, 1)
	go func() {
		req, err := http.NewRequest(http.MethodPost, in.api+"/ecw/test/connection/", nil)
		if err == nil {
			req.Header.Set("Authorization", "Bearer "+in.admin)
			_, err = http.DefaultClient.Do(req)
		}
		over <- err
	}()

	in.awaitFault(t)
	stopped(t, server, 10*time.Second, 1)
	if err := <-over; err == nil || !strings.Contains(server.stderr.text(), "DRAIN_TIMEOUT") {
		t.Errorf("the request ended with %v, the API said\n%s", err, server.stderr.text())
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	in := install(t)
	both := in.start(t, "serve", "worker started")
	in.breakEHR(t, `{"kind": "slow", "target": "create", "delay": "25s"}`)
	postReading(t, in.api, in.admin, "2026-02-06T10:30:00Z")
	in.awaitFault(t)
	both.signal(t, syscall.SIGTERM)
	eventually(t, "it takes no requests any more", func() bool {
		_, err := http.Get(in.api)
		return err != nil
	})

	stopped(t, both, 3*time.Second, exitInterrupted)
}

// A process that waits for a server stops at once.
func TestStopsWhileItWaits(t *testing.T) {
	t.Parallel()
	silent := silentAddress(t)
	for name, c := range map[string]struct{ command, database, temporal, says string }{
		"the API for a database that is away":    {"api", "127.0.0.1:1", "", "waiting for the database"},
		"the worker for a database that is away": {"worker", "127.0.0.1:1", "", "waiting for the database"},
		"both for a database that never answers": {"serve", silent, "", "waiting for the database"},
		"the worker for Temporal that is away":   {"worker", "", "127.0.0.1:1", "waiting for Temporal"},
		"both for Temporal that never answers":   {"serve", "", silent, "waiting for Temporal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := install(t)
			if c.database != "" {
				in.settings = append(in.settings, "DATABASE_URL=postgres://u:p@"+c.database+"/db?sslmode=disable")
			}
			if c.temporal != "" {
				in.settings = append(in.settings, "TEMPORAL_ADDRESS="+c.temporal)
			}
			p := in.start(t, c.command, c.says)
			stopped(t, p, 5*time.Second, 0)
		})
	}
}
