package worker_test

import (
	"os"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
)

// The EHR of these tests bears 40 requests a minute, which share its capacity: each takes 1.5 s of its work, and the more
// are under way the slower is each. Everything is 20 times as fast here: its capacity, ECW_TIMEOUT and the schedule.
const faster = 20

func scaledDelays() []time.Duration {
	delays := documentedDelays()
	for i := range delays {
		delays[i] /= faster
	}
	return delays
}

const work = 1500 * time.Millisecond / faster

// TestAnOverloadedEHRGetsEveryReading sends it more than it bears, restarts the worker in the middle, and has the EHR start
// with cold caches. TEST_OVERLOAD=1 makes it 1,000 readings, and wants the capacity used while a backlog waits, which needs
// a machine that does nothing else.
func TestAnOverloadedEHRGetsEveryReading(t *testing.T) {
	t.Parallel()
	alone := os.Getenv("TEST_OVERLOAD") != ""
	readings := 150
	if alone {
		readings = 1000
	}
	r := newRig(t, setup{timeout: 30 * time.Second / faster, delays: scaledDelays(), parallel: 8, perMinute: 240 * faster})
	r.breakEHR(fault{Kind: "shared_capacity", Work: work.String(), For: "1h"})
	r.breakEHR(fault{Kind: "slow_start", Delay: "500ms", For: "3s"})

	began := time.Now()
	ids := make([]uuid.UUID, readings)
	for i := range ids {
		ids[i] = r.storeReading(fhir.BloodPressure, bloodPressure)
		r.start(ids[i])
	}
	r.awaitStatus(db.StatusTransmitted, readings/2)
	r.worker.Stop()
	r.worker = r.startWorker(r.temporal)
	r.awaitStatus(db.StatusTransmitted, readings)
	took := time.Since(began)

	for _, id := range ids {
		row := r.transmission(id)
		if row.Status != db.StatusTransmitted {
			t.Errorf("a reading is recorded as %+v, want it delivered", row)
		}
		r.checkSpacing(row)
	}
	stats := r.stats()
	for identifier, stored := range stats.Creates.Stored {
		if stored != 1 {
			t.Errorf("%s stands in the chart %d times", identifier, stored)
		}
	}
	if most := stats.Load.MostInFlight; most > 8 {
		t.Errorf("%d requests were under way at once, want 8 at most", most)
	}
	used := (time.Duration(readings) * work).Seconds() / took.Seconds()
	t.Logf("%d readings in %s: %.0f%% of the EHR's capacity", readings, took.Round(time.Second), 100*used)
	if alone && used < 0.8 {
		t.Errorf("%.0f%% of the EHR's capacity was used, want 80%%", 100*used)
	}
}

// awaitStatus waits until so many transmissions have a status.
func (r *rig) awaitStatus(status string, want int) {
	r.t.Helper()
	progress, last := time.Now(), -1
	for {
		var n int
		if err := r.sql.QueryRow(r.t.Context(), "SELECT count(*) FROM transmissions WHERE status = $1", status).Scan(&n); err != nil {
			r.t.Fatal(err)
		}
		if n >= want {
			return
		}
		if n != last {
			progress, last = time.Now(), n
		}
		if time.Since(progress) > 2*patience {
			r.t.Fatalf("%d of %d transmissions are %s, and no more since %s", n, want, status, 2*patience)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// checkSpacing wants no two attempts of a reading closer than the schedule's wait between them.
func (r *rig) checkSpacing(row db.Transmission) {
	r.t.Helper()
	var last *db.ChartAttempt
	for _, made := range r.attempts(row.ID) {
		if last != nil && made.Number > last.Number {
			least := r.delays[last.Number-1]
			if gap := made.StartedAt.Sub(*last.FinishedAt); gap < least {
				r.t.Errorf("attempt %d came %s after attempt %d, want %s at least", made.Number, gap, last.Number, least)
			}
		}
		last = &made
	}
}
