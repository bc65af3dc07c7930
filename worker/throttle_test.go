package worker_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
)

func TestThrottledReadingWaitsAsPendingAndLosesNoAttempt(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"token", "create"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			r.breakEHR(fault{Kind: "throttle", Target: target, RetryAfter: "10m"})
			id := r.storeReading(fhir.BloodPressure, bloodPressure)
			run := r.start(id)

			row := r.awaitRetry(id)
			if row.Status != db.StatusPending || row.AttemptCount != 0 || row.ErrorClass != string(ecw.ClassThrottled) || value(row.HTTPStatus) != http.StatusTooManyRequests {
				t.Errorf("the transmission is recorded as %+v, want it pending with no attempt used up", row)
			}
			within(t, "next_retry_at", row.NextRetryAt.Sub(*row.LastAttemptedAt), 10*time.Minute-time.Second, 10*time.Minute+patience)

			r.admin(http.MethodPost, "reset", nil, nil) // the minute is over
			if _, err := r.sql.Exec(t.Context(), "UPDATE ecw_gates SET blocked_until = now()"); err != nil {
				t.Fatal(err)
			}
			r.transmitNow(id)
			r.mustDeliver(run)
			row = r.transmission(id)
			r.checkDelivered(id, row, 1)
			made := r.attempts(row.ID)
			if len(made) != 2 || made[0].Number != 1 || made[1].Number != 1 || made[0].ErrorClass != string(ecw.ClassThrottled) {
				t.Errorf("the attempts are recorded as %+v, want the first one twice", made)
			}
		})
	}
}

func TestThrottledReadingGoesOnByItself(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	const block = time.Second
	r.breakEHR(fault{Kind: "throttle", Target: "create", RetryAfter: block.String()})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(id))
	row := r.transmission(id)
	r.checkDelivered(id, row, 1)
	made := r.attempts(row.ID)
	if len(made) != 2 {
		t.Fatalf("%d deliveries, want one more after the throttled one", len(made))
	}
	within(t, "wait", made[1].StartedAt.Sub(*made[0].FinishedAt), block, patience)
}
