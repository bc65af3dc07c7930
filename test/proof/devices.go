package proof

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// Devices send each reading until an API has taken it. A repeated request has no mark: the API must recognise
// it by the reading itself.
type Devices struct {
	apis     []string
	token    string
	patients []patient
	began    time.Time

	mu       sync.Mutex
	accepted map[string]patient // by observation id
	answers  map[string]int     // requests by outcome
	problems []string
}

// patient is one that the API and the EHR both know.
type patient struct{ id, fhirID string }

// patientCount is how many patients share the readings.
const patientCount = 5

// NewDevices creates patients whom the sandbox EHR knows. The readings go to the APIs in turn; token is an
// admin's.
func NewDevices(ctx context.Context, token string, apis ...string) (*Devices, error) {
	d := &Devices{
		apis:     apis,
		token:    token,
		began:    time.Now(),
		accepted: map[string]patient{},
		answers:  map[string]int{},
	}
	for _, p := range sandbox.People()[:patientCount] {
		var created struct{ ID string }
		err := Call(ctx, http.MethodPost, apis[0]+"/api/v1/patients/", token, map[string]any{
			"first_name": p.FirstName, "last_name": p.LastName, "date_of_birth": p.BirthDate, "mrn": p.MRN, "external_id": p.FHIRID,
		}, &created)
		if err != nil {
			return nil, fmt.Errorf("create patient: %w", err)
		}
		d.patients = append(d.patients, patient{id: created.ID, fhirID: p.FHIRID})
	}

	return d, nil
}

// Feed sends readings at a steady rate for the duration, and returns when the API has taken every one or ctx
// ends.
func (d *Devices) Feed(ctx context.Context, duration, every time.Duration) {
	var sending sync.WaitGroup
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 0; time.Since(d.began) < duration && ctx.Err() == nil; n++ {
		sending.Go(func() { d.Send(ctx, n) })
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	sending.Wait()
}

// reading makes the nth reading. Each is measured in another second.
func (d *Devices) reading(n int) reading {
	r := reading{
		PatientID:   d.patients[n%len(d.patients)].id,
		EffectiveAt: d.began.Add(-24 * time.Hour).Add(time.Duration(n) * time.Second).UTC().Truncate(time.Second),
		Device:      "cuff",
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

// repeatEvery: every fifth reading is sent once more after it was accepted, as if the answer had been lost.
const repeatEvery = 5

// Send sends the nth reading to an API, and some readings twice: the API must store those once. It returns
// when the reading is accepted or refused, or when ctx ends.
func (d *Devices) Send(ctx context.Context, n int) {
	id, ok := d.untilAccepted(ctx, n)
	if !ok || n%repeatEvery != 0 {
		return
	}
	if again, ok := d.untilAccepted(ctx, n); ok && again != id {
		d.problem("reading %d was stored twice, as %s and %s", n, id, again)
	}
}

// untilAccepted posts a reading as often as it takes.
func (d *Devices) untilAccepted(ctx context.Context, n int) (id string, ok bool) {
	for try := 0; ctx.Err() == nil; try++ {
		var stored struct{ ID string }
		err := d.post(ctx, d.apis[(n+try)%len(d.apis)], d.reading(n), &stored)
		var refused *Refusal
		switch {
		case err == nil:
			d.count("accepted")
			d.mu.Lock()
			d.accepted[stored.ID] = d.patients[n%len(d.patients)]
			d.mu.Unlock()
			return stored.ID, true
		case errors.As(err, &refused) && refused.Status < 500:
			d.problem("reading %d was refused: %v", n, err)
			return "", false
		case errors.As(err, &refused):
			d.count(fmt.Sprint("HTTP ", refused.Status))
		default:
			d.count("no answer")
		}

		pause(ctx, 300*time.Millisecond)
	}

	d.problem("reading %d was never accepted", n)
	return "", false
}

// post sends a reading, with the short timeout of a device.
func (d *Devices) post(ctx context.Context, api string, r reading, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return Call(ctx, http.MethodPost, api+"/api/v1/observations/", d.token, r, out)
}

// Answers counts the requests by their outcome.
func (d *Devices) Answers() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.answers)
}

func (d *Devices) count(outcome string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[outcome]++
}

func (d *Devices) problem(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problems = append(d.problems, fmt.Sprintf(format, args...))
}
