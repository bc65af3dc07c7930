package activities

import (
	"net/http"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/gate"
)

// What a delivery's outcome says about eCW decides whether the circuit opens and closes for everybody.
func TestWhatAnOutcomeSaysAboutECW(t *testing.T) {
	t.Parallel()
	later := time.Date(2026, 2, 6, 15, 40, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		out  Outcome
		want gate.Finding
	}{
		"delivered":                      {Outcome{Posted: &Posted{HTTPStatus: http.StatusCreated}}, gate.Answers},
		"refused data":                   {failed(ecw.ClassPermanentData, http.StatusUnprocessableEntity), gate.Answers},
		"no chart":                       {failed(ecw.ClassPermanentData, 0), gate.NotAsked},
		"cancelled":                      {failed("cancelled", 0), gate.NotAsked},
		"a 429, which precedes a look":   {retried(ecw.ClassThrottled, http.StatusTooManyRequests, later), gate.Nothing},
		"a 429 that comes as the last":   {failed(ecw.ClassThrottled, http.StatusTooManyRequests), gate.Nothing},
		"an outage":                      {unavailable(retried(ecw.ClassRetryable, http.StatusServiceUnavailable, later)), gate.Unavailable},
		"an outage at the last attempt":  {unavailable(failed(ecw.ClassRetryable, 0)), gate.Unavailable},
		"a worker that is lost":          {retried(ecw.ClassUnknown, 0, later), gate.Nothing},
		"a busy record":                  {retried(ecw.ClassRetryable, http.StatusConflict, later), gate.Answers},
		"our credentials":                {held(refusesUs(failed(ecw.ClassPermanentCredentials, http.StatusUnauthorized))), gate.Refuses},
		"our credentials, in the end":    {refusesUs(failed(ecw.ClassPermanentCredentials, http.StatusUnauthorized)), gate.Refuses},
		"forbidden":                      {retried(ecw.ClassPermanentCredentials, http.StatusForbidden, later), gate.Forbids},
		"forbidden as the trial":         {held(failed(ecw.ClassPermanentCredentials, http.StatusForbidden)), gate.Forbids},
		"forbidden alone, for the third": {failed(ecw.ClassPermanentCredentials, http.StatusForbidden), gate.Nothing},
	} {
		if got := tc.out.finding(); got != tc.want {
			t.Errorf("%s: it says %d, want %d", name, got, tc.want)
		}
	}
}

func failed(class ecw.Class, status int) Outcome {
	return Outcome{Class: string(class), Failure: Failure{HTTPStatus: status}}
}

func retried(class ecw.Class, status int, at time.Time) Outcome {
	out := failed(class, status)
	out.NextRetryAt = &at
	return out
}

func unavailable(out Outcome) Outcome {
	out.Failure.Unavailable = true
	return out
}

func refusesUs(out Outcome) Outcome {
	out.Failure.RefusesUs = true
	return out
}

func held(out Outcome) Outcome {
	out.Held = true
	return out
}
