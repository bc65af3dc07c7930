package health_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	temporallog "go.temporal.io/sdk/log"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/devstack/devtest"
	"github.com/vantrexia/vantrexia/health"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

var stack devtest.Stack // its databases are empty

func TestMain(m *testing.M) { os.Exit(stack.Run(m)) }

// newProbe makes one whose database is empty or migrated and whose Temporal is there or away.
func newProbe(t *testing.T, migrated, temporal bool) *health.Probe {
	t.Helper()
	store, err := db.NewStore(t.Context(), stack.Postgres(t), keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(store.Close)
	if migrated {
		if _, err := store.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	options := client.Options{HostPort: "127.0.0.1:1", Logger: temporallog.NewStructuredLogger(slog.New(slog.DiscardHandler))}
	if temporal {
		options.HostPort, options.Namespace = stack.Temporal(t)
	}

	c, err := client.NewLazyClient(options)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(c.Close)
	// Connecting is done before anything is timed: a busy machine takes longer for it than a probe waits.
	if err := store.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}

	if temporal {
		if _, err := c.CheckHealth(t.Context(), &client.CheckHealthRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	return &health.Probe{Store: store, Temporal: c, Logger: slog.New(slog.DiscardHandler)}
}

// awaitReadiness asks until the answer is want: a busy machine may miss the probe's short time.
func awaitReadiness(t *testing.T, p *health.Probe, code int, want health.Readiness) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	for {
		answer := httptest.NewRecorder()
		p.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		var got health.Readiness
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
			t.Fatalf("%v in %s", err, answer.Body)
		}

		if got == want && answer.Code == code {
			return
		}

		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("readiness is %d %+v, want %d %+v", answer.Code, got, code, want)
		}
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		migrated, temporal, takesRequests bool
		worker                            string
		code                              int
		status, database, temporalState   string
	}{
		"the API":                      {true, true, true, "", 200, "ready", "ok", "ok"},
		"the API without Temporal":     {true, false, true, "", 200, "degraded", "ok", "unavailable"},
		"the API before the migration": {false, true, true, "", 503, "unavailable", "migrations pending", "ok"},
		"a worker":                     {true, true, false, "running", 200, "ready", "ok", "ok"},
		"a worker without Temporal":    {true, false, false, "running", 503, "unavailable", "ok", "unavailable"},
		"a worker that starts":         {true, true, false, "starting", 503, "unavailable", "ok", "ok"},
		"a worker that stops":          {true, true, false, "stopping", 503, "unavailable", "ok", "ok"},
		"both while the worker starts": {true, true, true, "starting", 200, "degraded", "ok", "ok"},
		"both, and all is well":        {true, true, true, "running", 200, "ready", "ok", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProbe(t, c.migrated, c.temporal)
			p.TakesRequests = c.takesRequests
			if c.worker != "" {
				p.Worker = func() string { return c.worker }
			}

			awaitReadiness(t, p, c.code, health.Readiness{
				Status:   c.status,
				Database: c.database,
				Temporal: c.temporalState,
				Worker:   c.worker,
			})
		})
	}
}

func TestReadinessFollowsTheDatabase(t *testing.T) {
	t.Parallel()
	p := newProbe(t, false, true)
	p.TakesRequests = true
	awaitReadiness(t, p, 503, health.Readiness{Status: "unavailable", Database: "migrations pending", Temporal: "ok"})
	if _, err := p.Store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReadiness(t, p, 200, health.Readiness{Status: "ready", Database: "ok", Temporal: "ok"})
	p.Store.Close()
	awaitReadiness(t, p, 503, health.Readiness{Status: "unavailable", Database: "unavailable", Temporal: "ok"})
}

// However often the probe is asked, the log says a change once, with the remedy.
func TestChangeIsLoggedOnce(t *testing.T) {
	t.Parallel()
	p := newProbe(t, false, true)
	var log strings.Builder
	p.Logger = slog.New(slog.NewTextHandler(&log, nil))
	p.Worker = func() string { return health.WorkerStarting }
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() { p.Readiness(t.Context()) })
	}

	group.Wait()
	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "vantrexia migrate") ||
		!strings.Contains(said, "worker=starting") {
		t.Errorf("the log is\n%s", said)
	}
}

// A prober that hangs up does not spoil the answer that others get.
func TestImpatientProber(t *testing.T) {
	t.Parallel()
	p := newProbe(t, true, true)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got := p.Readiness(gone); got.Database != health.OK {
		t.Errorf("the answer to nobody is %+v", got)
	}
}

func TestHealthNeedsNothing(t *testing.T) {
	t.Parallel()
	answer := httptest.NewRecorder()
	(&health.Probe{}).Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	if answer.Code != http.StatusOK || strings.TrimSpace(answer.Body.String()) != `{"status":"ok"}` {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}
