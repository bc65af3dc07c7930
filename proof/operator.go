package proof

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"time"
)

// transmission is a row of the API's transmission log.
type transmission struct {
	ID               string     `json:"id"`
	ObservationID    string     `json:"observation_id"`
	Status           string     `json:"status"`
	NextRetryAt      *time.Time `json:"next_retry_at"`
	ECWObservationID *string    `json:"ecw_observation_id"`
	ErrorClass       *string    `json:"error_class"`
	ErrorMessage     *string    `json:"error_message"`

	nth int // transmission of its observation
}

// settled tells whether nothing more happens by itself.
func (t transmission) settled() bool {
	return t.Status == "transmitted" || t.Status == "failed" && t.NextRetryAt == nil
}

// Operator is the person who looks after the system when it is healthy again.
type Operator struct {
	API, Token string // Token is an admin's
	Log        *slog.Logger
}

// SweepOften starts the sweep again and again, as the schedule does every five minutes, so that sweeps are under way
// whenever something dies.
func (o Operator) SweepOften(ctx context.Context) {
	for ctx.Err() == nil {
		started, cancel := context.WithTimeout(ctx, time.Second) // its outcome is nobody's business
		_ = Call(started, http.MethodPost, o.API+"/api/v1/fhir/process-pending/", o.Token, nil, nil)
		cancel()
		pause(ctx, 2*time.Second)
	}
}

// settle runs the sweep until every observation is transmitted or has failed for good, and returns where each stands.
func (o Operator) settle(ctx context.Context, observations []string) (map[string]transmission, error) {
	for {
		err := Call(ctx, http.MethodPost, o.API+"/api/v1/fhir/process-pending/", o.Token, nil, nil)
		if err != nil {
			o.Log.Info("process-pending", "error", err)
		}
		latest, err := o.latest(ctx)
		if err != nil {
			o.Log.Info("transmission log", "error", err)
		}
		open := 0
		for _, id := range observations {
			if t, ok := latest[id]; !ok || !t.settled() {
				open++
			}
		}
		if open == 0 && err == nil {
			return latest, nil
		}
		o.Log.Info("settling", "open", open)
		pause(ctx, time.Second)
		if ctx.Err() != nil {
			return latest, fmt.Errorf("%d readings do not settle: %w", open, ctx.Err())
		}
	}
}

// latest reads the transmission log: the newest transmission of each observation.
func (o Operator) latest(ctx context.Context) (map[string]transmission, error) {
	latest := map[string]transmission{}
	next := o.API + "/api/v1/fhir/transmissions/?ordering=created_at&page_size=100"
	for next != "" {
		var page struct {
			Next    *string
			Results []transmission
		}
		if err := Call(ctx, http.MethodGet, next, o.Token, nil, &page); err != nil {
			return latest, err
		}
		for _, t := range page.Results {
			t.nth = latest[t.ObservationID].nth + 1
			latest[t.ObservationID] = t
		}
		next = ""
		if page.Next != nil {
			next = *page.Next
		}
	}
	return latest, nil
}

// transmitFailed says "transmit" for every observation that has failed, as its error asks a person to, and returns where
// each stands then.
func (o Operator) transmitFailed(ctx context.Context, first map[string]transmission) (map[string]transmission, error) {
	var failed []string
	for id, t := range first {
		if t.Status != "failed" {
			continue
		}
		o.Log.Info("failed, transmitted by a person", "observation_id", id, "class", text(t.ErrorClass), "message", text(t.ErrorMessage))
		if err := o.transmit(ctx, id); err != nil {
			return first, fmt.Errorf("transmit %s: %w", id, err)
		}
		failed = append(failed, id)
	}
	if len(failed) == 0 {
		return first, nil
	}
	again, err := o.settle(ctx, failed)
	last := maps.Clone(first)
	maps.Copy(last, again)
	return last, err
}

// transmit asks until the workflow that failed has quite ended and a new one is started.
func (o Operator) transmit(ctx context.Context, id string) error {
	for {
		err := Call(ctx, http.MethodPost, o.API+"/api/v1/fhir/observations/"+id+"/transmit/", o.Token, nil, nil)
		var refused *Refusal
		if !errors.As(err, &refused) || refused.Status != http.StatusConflict || ctx.Err() != nil {
			return err
		}
		pause(ctx, time.Second)
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
