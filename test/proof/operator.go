package proof

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// transmission is a row of the API's transmission log.
type transmission struct {
	ID               string     `json:"id"`
	ObservationID    string     `json:"observation_id"`
	Status           string     `json:"status"` // "" when there is no transmission
	NextRetryAt      *time.Time `json:"next_retry_at"`
	ECWObservationID *string    `json:"ecw_observation_id"`
	ErrorClass       *string    `json:"error_class"`
	ErrorMessage     *string    `json:"error_message"`

	nth int // transmission of its observation
}

// settled reports whether the transmission has ended: it is transmitted, or failed without a retry.
func (t transmission) settled() bool {
	return t.Status == "transmitted" || t.Status == "failed" && t.NextRetryAt == nil
}

// stage names the state of a transmission that has not settled.
func (t transmission) stage() string {
	switch {
	case t.Status == "":
		return "not opened"
	case t.Status == "failed":
		return "to be retried"
	}
	return t.Status
}

// Operator is the person who looks after the system when it is healthy again.
type Operator struct {
	API, Token string // Token is an admin's
	Log        *slog.Logger
}

// SweepOften starts a sweep every two seconds, where the schedule does every five minutes, so that sweeps are
// under way when a process dies.
func (o Operator) SweepOften(ctx context.Context) {
	for ctx.Err() == nil {
		o.sweep(ctx)
		pause(ctx, 2*time.Second)
	}
}

// sweep starts a sweep and does not wait for its result.
func (o Operator) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = Call(ctx, http.MethodPost, o.API+"/api/v1/fhir/process-pending/", o.Token, nil, nil)
}

// settleWithin is how long settle waits. A circuit that has opened several times in a row tries eCW only
// every five minutes.
const settleWithin = 10 * time.Minute

// settle waits until every observation is transmitted or has failed for good, and the circuit is closed. It
// starts sweeps, as the schedule does, and does nothing else to help. It returns the newest transmission of
// each observation. If it waits in vain, the error says for what.
func (o Operator) settle(ctx context.Context, observations []string) (map[string]transmission, error) {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()

	for said := time.Now(); ; pause(ctx, time.Second) {
		o.sweep(ctx)
		latest, waits, err := o.waits(ctx, observations)
		switch {
		case ctx.Err() != nil && err != nil:
			return latest, fmt.Errorf("not settled after %s: %w", settleWithin, err)
		case ctx.Err() != nil:
			return latest, fmt.Errorf("not settled after %s: still waiting for %s", settleWithin, waits)
		case err == nil && waits == "":
			return latest, nil
		case time.Since(said) < 5*time.Second:
			continue
		case err != nil:
			o.Log.Info("settling", "error", err)
		default:
			o.Log.Info("settling", "waits_for", waits)
		}

		said = time.Now()
	}
}

// waits returns what settle still has to wait for, or "".
func (o Operator) waits(ctx context.Context, observations []string) (latest map[string]transmission, waits string, err error) {
	if latest, err = o.latest(ctx); err != nil {
		return latest, "", fmt.Errorf("read the transmission log: %w", err)
	}

	open := map[string]int{}
	for _, id := range observations {
		if t := latest[id]; !t.settled() {
			open[t.stage()]++
		}
	}

	if len(open) > 0 {
		waits = "readings " + counts(open)
	}

	circuit, err := o.Circuit(ctx)
	if circuit.State != "closed" || circuit.Held > 0 {
		waits = strings.TrimPrefix(waits+", and ", ", and ") + circuit.String()
	}
	return latest, waits, err
}

// Circuit is what the API's status says of the circuit before the EHR.
type Circuit struct {
	State     string     `json:"state"` // "closed", "open" or "half_open"
	Reason    string     `json:"reason"`
	Message   string     `json:"message"`
	Since     time.Time  `json:"since"`
	NextTryAt *time.Time `json:"next_try_at"`
	Held      int        `json:"held"` // transmissions that wait for it to close
}

func (c Circuit) String() string {
	if c.State == "closed" {
		return fmt.Sprintf("%d to be released by the closed circuit", c.Held)
	}
	next := ""
	if c.NextTryAt != nil {
		next = ", next try in " + time.Until(*c.NextTryAt).Round(time.Second).String()
	}
	return fmt.Sprintf("the circuit (%s, %s: %s%s) with %d held", c.State, c.Reason, c.Message, next, c.Held)
}

// Circuit looks at the circuit.
func (o Operator) Circuit(ctx context.Context) (Circuit, error) {
	var status struct{ Circuit Circuit }
	if err := Call(ctx, http.MethodGet, o.API+"/api/v1/fhir/status/", o.Token, nil, &status); err != nil {
		return Circuit{}, fmt.Errorf("look at the circuit: %w", err)
	}
	return status.Circuit, nil
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

		var err error
		if next, err = resolve(next, text(page.Next)); err != nil {
			return latest, err
		}
	}

	return latest, nil
}

// resolve returns the URL of a link in the answer from a URL, or "" for no link.
func resolve(from, link string) (string, error) {
	if link == "" {
		return "", nil
	}

	base, err := url.Parse(from)
	if err != nil {
		return "", err
	}

	target, err := base.Parse(link)
	if err != nil {
		return "", err
	}
	return target.String(), nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
