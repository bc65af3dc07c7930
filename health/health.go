// Package health answers an orchestrator's probes: whether the process lives, and whether it can do its work
// now.
package health

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/vantrexia/vantrexia/db"
)

// The states that Readiness names.
const (
	OK                = "ok"
	Unavailable       = "unavailable"
	MigrationsPending = "migrations pending"

	Ready    = "ready"
	Degraded = "degraded" // takes requests, and delivers later what they bring
)

// The states of a worker.
const (
	WorkerStarting = "starting" // waits for the database, its schema or Temporal
	WorkerRunning  = "running"
	WorkerStopping = "stopping" // finishes what it holds, and takes nothing new
)

// Readiness is the answer of /readyz.
type Readiness struct {
	// Status is Ready, Degraded or Unavailable.
	Status string `json:"status"`
	// Database is OK, Unavailable or MigrationsPending.
	Database string `json:"database"`
	// Temporal is OK or Unavailable.
	Temporal string `json:"temporal"`
	// Worker is the state of the process's worker, and empty in a process that has none.
	Worker string `json:"worker,omitempty"`
}

// Probe asks the servers that a process needs. Its methods may be called concurrently.
type Probe struct {
	Store    *db.Store
	Temporal client.Client
	Logger   *slog.Logger
	// Worker returns the state of the process's worker; nil when it has none.
	Worker func() string
	// TakesRequests is set where the API runs. It needs the database only: without Temporal, readings are
	// still stored, and delivered later. A process with a worker only needs both servers.
	TakesRequests bool

	mu    sync.Mutex
	last  Readiness
	asked time.Time
}

const (
	// askTimeout keeps the answer within the second that a probe waits by default.
	askTimeout = 900 * time.Millisecond
	// keepFor bounds what probes cost, however many are sent.
	keepFor = time.Second
)

// Handler serves /healthz and /readyz.
func (p *Probe) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", p.ServeHealth)
	mux.HandleFunc("GET /readyz", p.ServeReadiness)
	return mux
}

// ServeHealth says that the process answers, and looks at nothing else: a restart of this process would not
// repair another one.
func (p *Probe) ServeHealth(w http.ResponseWriter, _ *http.Request) {
	p.answer(w, http.StatusOK, map[string]string{"status": OK})
}

// ServeReadiness answers 200, or 503 when the process cannot do its work.
func (p *Probe) ServeReadiness(w http.ResponseWriter, r *http.Request) {
	readiness := p.Readiness(r.Context())
	status := http.StatusOK
	if readiness.Status == Unavailable {
		status = http.StatusServiceUnavailable
	}
	p.answer(w, status, readiness)
}

func (p *Probe) answer(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		p.Logger.Debug("probe not answered", "error", err)
	}
}

// Readiness asks the database and Temporal, or repeats an answer that is younger than a second. It returns
// within a second.
func (p *Probe) Readiness(ctx context.Context) Readiness {
	p.mu.Lock()
	defer p.mu.Unlock()

	if time.Since(p.asked) < keepFor {
		return p.last
	}

	before := p.last
	var cause error
	p.last, cause = p.ask(context.WithoutCancel(ctx)) // the answer is shared, so it must not end with this caller
	p.asked = time.Now()
	if p.last != before {
		p.log(ctx, cause)
	}
	return p.last
}

func (p *Probe) log(ctx context.Context, cause error) {
	level, attrs := slog.LevelInfo, []any{"database", p.last.Database, "temporal", p.last.Temporal}
	if p.last.Worker != "" {
		attrs = append(attrs, "worker", p.last.Worker)
	}
	if cause != nil {
		level, attrs = slog.LevelWarn, append(attrs, "error", cause)
	}
	p.Logger.Log(ctx, level, "readiness: "+p.last.Status, attrs...)
}

func (p *Probe) ask(ctx context.Context) (Readiness, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()

	temporal := make(chan error, 1)
	go func() { // beside the database: a Temporal that hangs must not use up the database's time
		_, err := p.Temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		temporal <- err
	}()

	databaseErr := p.Store.CheckMigrated(ctx)
	temporalErr := <-temporal
	answer := Readiness{Database: OK, Temporal: OK}
	switch {
	case errors.Is(databaseErr, db.ErrMigrationsPending):
		answer.Database = MigrationsPending
	case databaseErr != nil:
		answer.Database = Unavailable
	}

	if temporalErr != nil {
		answer.Temporal = Unavailable
	}
	if p.Worker != nil {
		answer.Worker = p.Worker()
	}

	answer.Status = p.sum(answer)
	return answer, errors.Join(databaseErr, temporalErr)
}

func (p *Probe) sum(r Readiness) string {
	works := r.Temporal == OK && (r.Worker == "" || r.Worker == WorkerRunning)
	switch {
	case r.Database != OK || !works && !p.TakesRequests:
		return Unavailable
	case !works:
		return Degraded
	default:
		return Ready
	}
}
