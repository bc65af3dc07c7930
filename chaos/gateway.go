package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// reading is the body of POST /api/v1/observations/.
type reading struct {
	PatientID       string         `json:"patient_id"`
	ObservationType string         `json:"observation_type"`
	EffectiveAt     time.Time      `json:"effective_at"`
	Device          string         `json:"device"`
	Values          map[string]any `json:"values"`
}

// gateway plays the devices: it sends each reading until the API has taken it, with nothing but the reading itself to tell
// a repeated request from a new one.
type gateway struct {
	api, token string
	patients   []patient
	began      time.Time

	mu       sync.Mutex
	accepted map[string]patient // by observation id
	answers  map[string]int     // requests by outcome
	problems []string
}

// patient is one that the API and the EHR both know.
type patient struct{ id, fhirID string }

// patientCount spreads the readings a little.
const patientCount = 5

func newGateway(ctx context.Context, api, token string) (*gateway, error) {
	g := &gateway{api: api, token: token, began: time.Now(), accepted: map[string]patient{}, answers: map[string]int{}}
	for _, p := range sandbox.People()[:patientCount] {
		var created struct{ ID string }
		err := callJSON(ctx, http.MethodPost, api+"/api/v1/patients/", token, map[string]any{
			"first_name": p.FirstName, "last_name": p.LastName, "birth_date": p.BirthDate, "mrn": p.MRN, "ecw_fhir_id": p.FHIRID,
		}, &created)
		if err != nil {
			return nil, fmt.Errorf("create patient: %w", err)
		}
		g.patients = append(g.patients, patient{id: created.ID, fhirID: p.FHIRID})
	}
	return g, nil
}

// feed sends readings at a steady rate for the duration, and returns when the API has taken every one or ctx ends.
func (g *gateway) feed(ctx context.Context, duration, every time.Duration) {
	var sending sync.WaitGroup
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 0; time.Since(g.began) < duration && ctx.Err() == nil; n++ {
		sending.Go(func() { g.send(ctx, n) })
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	sending.Wait()
}

// reading makes the nth reading; each has a second of its own.
func (g *gateway) reading(n int) reading {
	r := reading{
		PatientID: g.patients[n%len(g.patients)].id, EffectiveAt: g.began.Add(-24 * time.Hour).Add(time.Duration(n) * time.Second).UTC().Truncate(time.Second), Device: "chaos",
	}
	switch n % 3 {
	case 0:
		r.ObservationType, r.Values = "heart_rate", map[string]any{"value": 60 + n%40, "unit": "bpm"}
	case 1:
		r.ObservationType, r.Values = "weight", map[string]any{"value": 70 + n%20, "unit": "kg"}
	default:
		r.ObservationType, r.Values = "blood_pressure", map[string]any{"systolic": 110 + n%40, "diastolic": 70 + n%20}
	}
	return r
}

// repeatEvery makes the gateway forget some acknowledgements: it then sends the reading once more.
const repeatEvery = 5

// send delivers one reading to the API; twice, now and then, which must be one reading all the same.
func (g *gateway) send(ctx context.Context, n int) {
	id, ok := g.untilAccepted(ctx, n)
	if !ok || n%repeatEvery != 0 {
		return
	}
	if again, ok := g.untilAccepted(ctx, n); ok && again != id {
		g.problem("reading %d was stored twice, as %s and %s", n, id, again)
	}
}

// untilAccepted posts a reading as often as it takes.
func (g *gateway) untilAccepted(ctx context.Context, n int) (id string, ok bool) {
	for ctx.Err() == nil {
		var stored struct{ ID string }
		err := g.post(ctx, g.reading(n), &stored)
		var refused *refusal
		switch {
		case err == nil:
			g.count("accepted")
			g.mu.Lock()
			g.accepted[stored.ID] = g.patients[n%len(g.patients)]
			g.mu.Unlock()
			return stored.ID, true
		case errors.As(err, &refused) && refused.status < 500:
			g.problem("reading %d was refused: %v", n, err)
			return "", false
		case errors.As(err, &refused):
			g.count(fmt.Sprint("HTTP ", refused.status))
		default:
			g.count("no answer")
		}
		pause(ctx, 300*time.Millisecond)
	}
	g.problem("reading %d was never accepted", n)
	return "", false
}

// post waits no longer than a gateway would.
func (g *gateway) post(ctx context.Context, r reading, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return callJSON(ctx, http.MethodPost, g.api+"/api/v1/observations/", g.token, r, out)
}

func (g *gateway) count(outcome string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers[outcome]++
}

func (g *gateway) problem(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.problems = append(g.problems, fmt.Sprintf(format, args...))
}
