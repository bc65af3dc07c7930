package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
)

// How the sandbox EHR knows whoever delivers to it.
const (
	practice = "FFHEDD"
	clientID = "vantrexia-sandbox-client"
	keyID    = "sandbox-key"
)

// ehrConfig is the sandbox EHR's, a process of its own.
type ehrConfig struct {
	Address   string
	JWKS      json.RawMessage
	PerMinute int // requests, 0 is no limit
	Patients  int // 0 is those that the sandbox has by itself
}

// storing is the moment at which the EHR had stored a reading.
type storing struct {
	ID string    `json:"id"` // of the reading
	At time.Time `json:"at"`
}

// ehrServer is the sandbox EHR with a watch: it notes when which reading was stored.
type ehrServer struct {
	sandbox http.Handler
	jwks    []byte

	mu     sync.Mutex
	stored []storing
}

// runEHR is the process's main function.
func runEHR(ctx context.Context, cfg ehrConfig) error {
	base := "http://" + cfg.Address
	ehr, err := sandbox.New(sandbox.Config{
		ClientID:      clientID,
		PracticeCode:  practice,
		JWKSURL:       base + "/bench/jwks.json",
		PublicURL:     base,
		RatePerMinute: cfg.PerMinute,
		Patients:      cfg.Patients,
	})
	if err != nil {
		return err
	}
	defer ehr.Close()

	s := &ehrServer{sandbox: ehr, jwks: cfg.JWKS}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bench/jwks.json", s.keys)
	mux.HandleFunc("GET /bench/stored", s.list)
	mux.HandleFunc("POST "+sandbox.FHIRPath+practice+"/Observation", s.create)
	mux.Handle("/", ehr)
	return serve(ctx, cfg.Address, mux)
}

func (s *ehrServer) keys(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(s.jwks)
}

// list answers with what was stored after the first ?from= readings.
func (s *ehrServer) list(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.Atoi(r.URL.Query().Get("from"))
	if err != nil {
		http.Error(w, "from must be a number", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	news := s.stored[min(max(from, 0), len(s.stored)):]
	s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(news)
}

func (s *ehrServer) create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	watched := &watchedWriter{ResponseWriter: w}
	s.sandbox.ServeHTTP(watched, r)
	if watched.created.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = append(s.stored, storing{ID: readingID(body), At: watched.created})
}

// readingID finds the value of our identifier in an Observation without reading all of it.
func readingID(observation []byte) string {
	_, rest, _ := strings.Cut(string(observation), fhir.IdentifierSystem+`"`)
	_, rest, _ = strings.Cut(rest, `"value"`)
	_, rest, _ = strings.Cut(rest, `"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

// watchedWriter notes when the sandbox says that it has created something.
type watchedWriter struct {
	http.ResponseWriter
	created time.Time
}

func (w *watchedWriter) WriteHeader(status int) {
	if status == http.StatusCreated {
		w.created = time.Now()
	}
	w.ResponseWriter.WriteHeader(status)
}

// ehr is the sandbox EHR as the benchmark sees it.
type ehr struct {
	url string

	mu     sync.Mutex
	stored map[string]time.Time
	seen   int // in the EHR's list, readings stored twice included
}

// poll asks for what was stored since it last asked, and returns how many readings are.
func (e *ehr) poll(ctx context.Context) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var news []storing
	if err := call(ctx, http.MethodGet, fmt.Sprintf("%s/bench/stored?from=%d", e.url, e.seen), "", nil, &news); err != nil {
		return 0, fmt.Errorf("ask the EHR what it stored: %w", err)
	}

	e.seen += len(news)
	for _, n := range news {
		if _, twice := e.stored[n.ID]; !twice {
			e.stored[n.ID] = n.At
		}
	}
	return len(e.stored), nil
}

// storedAt returns when the reading was stored, as far as it was polled.
func (e *ehr) storedAt(id string) (time.Time, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.stored[id]
	return at, ok
}

// duplicates is how many readings more than once are in the EHR, as far as it was polled.
func (e *ehr) duplicates() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen - len(e.stored)
}

// breakIt asks the sandbox for a fault, in its own words.
func (e *ehr) breakIt(ctx context.Context, fault map[string]any) error {
	return call(ctx, http.MethodPost, e.url+"/admin/faults", "", fault, nil)
}

func (e *ehr) repair(ctx context.Context) error {
	return call(ctx, http.MethodDelete, e.url+"/admin/faults", "", nil, nil)
}

// requests counts what the sandbox was asked, tokens included, and how many of them it refused for its limit.
func (e *ehr) requests(ctx context.Context) (all, refused int, err error) {
	var stats sandbox.Stats
	if err := call(ctx, http.MethodGet, e.url+"/admin/stats", "", nil, &stats); err != nil {
		return 0, 0, err
	}
	for _, byStatus := range stats.Requests {
		for status, n := range byStatus {
			all += n
			if status == strconv.Itoa(http.StatusTooManyRequests) {
				refused += n
			}
		}
	}
	return all, refused, nil
}

// some returns the ids of a number of readings that are stored, in any order.
func (e *ehr) some(count int) (ids []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.stored {
		if len(ids) == count {
			break
		}
		ids = append(ids, id)
	}
	return ids
}
