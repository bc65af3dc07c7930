package sandbox

import (
	"maps"
	"strconv"
	"sync"
	"time"
)

// stats count what the sandbox received since its start or its last reset.
type stats struct {
	mu       sync.Mutex
	issued   int
	refused  map[string]int            // token requests by OAuth error
	received map[string]int            // creates by identifier; "" for those without one
	requests map[string]map[string]int // by route and status; "reset" for a connection that was cut

	inFlight, mostInFlight int
}

// Stats is the answer of GET /admin/stats. Identifiers are written system|value.
type Stats struct {
	Tokens   TokenStats                `json:"tokens"`
	Creates  CreateStats               `json:"creates"`
	Requests map[string]map[string]int `json:"requests"` // by route and status; "reset" for a connection that was cut
	Limit    LimitStats                `json:"limit"`
	Load     LoadStats                 `json:"load"`
}

// TokenStats count the answers of the token endpoint.
type TokenStats struct {
	Issued  int            `json:"issued"`
	Refused map[string]int `json:"refused"` // by OAuth error
}

// CreateStats count the creates received and the Observations stored. An identifier stored more than once is
// a duplicate reading in the chart.
type CreateStats struct {
	Received map[string]int `json:"received"` // creates with a valid token, refused ones included
	Stored   map[string]int `json:"stored"`
	Total    int            `json:"total"` // Observations stored, those of earlier runs included
}

// LimitStats say how well a client keeps to the limit on requests.
type LimitStats struct {
	Exceeded      int `json:"exceeded"`       // minutes in which it sent too many; those blocked by a fault do not count
	BusiestMinute int `json:"busiest_minute"` // most requests accepted in one clock minute
}

// LoadStats say how many requests are under way at once. A request whose client has gone is under way until
// it is handled.
type LoadStats struct {
	InFlight     int     `json:"in_flight"`      // requests under way now
	MostInFlight int     `json:"most_in_flight"` // most of them at once
	BusySeconds  float64 `json:"busy_seconds"`   // how long the shared capacity had work
}

func newStats() *stats {
	st := &stats{}
	st.empty()
	return st
}

func (st *stats) empty() {
	st.issued, st.refused, st.received, st.requests = 0, map[string]int{}, map[string]int{}, map[string]map[string]int{}
	st.mostInFlight = st.inFlight
}

func (st *stats) reset() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.empty()
}

func (st *stats) tokenIssued() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.issued++
}

func (st *stats) tokenRefused(code string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.refused[code]++
}

func (st *stats) createReceived(ids []identifier) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(ids) == 0 {
		st.received[""]++
	}
	for _, id := range ids {
		st.received[id.key()]++
	}
}

func (st *stats) begin() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.inFlight++
	st.mostInFlight = max(st.mostInFlight, st.inFlight)
}

// end is called before the answer is sent. Otherwise a client that sends one request after the other could
// seem to have two under way.
func (st *stats) end(route string, rep reply) {
	status := strconv.Itoa(rep.status)
	if rep.reset {
		status = "reset"
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.inFlight--
	if st.requests[route] == nil {
		st.requests[route] = map[string]int{}
	}
	st.requests[route][status]++
}

func (st *stats) view(stored map[string]int, total int, limit LimitStats, busy time.Duration) Stats {
	st.mu.Lock()
	defer st.mu.Unlock()
	requests := make(map[string]map[string]int, len(st.requests))
	for route, byStatus := range st.requests {
		requests[route] = maps.Clone(byStatus)
	}

	return Stats{
		Tokens:   TokenStats{Issued: st.issued, Refused: maps.Clone(st.refused)},
		Creates:  CreateStats{Received: maps.Clone(st.received), Stored: stored, Total: total},
		Requests: requests,
		Limit:    limit,
		Load: LoadStats{
			InFlight:     st.inFlight,
			MostInFlight: st.mostInFlight,
			BusySeconds:  busy.Seconds(),
		},
	}
}
