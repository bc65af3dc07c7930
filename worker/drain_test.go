package worker_test

import (
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
)

// A worker that may wait no longer says that it does not know what became of its delivery: nobody has to wait until it is
// missed, and the next worker asks the EHR before it sends anything.
func TestStoppedWorkerGivesUpADeliveryThatTakesTooLong(t *testing.T) {
	t.Parallel()
	r, barrier, id, run := startBarred(t, setup{drain: 100 * time.Millisecond})
	began := time.Now()
	r.worker.Stop()
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the worker stopped after %s", took)
	}
	barrier.open()
	eventually(t, "the EHR to store what had been sent", func() bool { _, stored := r.creates(id); return stored == 1 })

	r.startWorker(r.temporal)
	row := r.awaitRetry(id)
	if row.Status != db.StatusFailed || row.ErrorClass != string(ecw.ClassUnknown) || row.AttemptCount != 1 {
		t.Errorf("recorded %+v, want a failure with an unknown outcome", row)
	}
	if made := r.attempts(row.ID); len(made) != 1 || made[0].ErrorCode != "canceled" {
		t.Errorf("the attempts are %+v, want one that was given up, not one whose worker was missed", made)
	}
	r.transmitNow(id)
	r.mustDeliver(run)
	r.checkDelivered(id, r.transmission(id), 2)
	if received, _ := r.creates(id); received != 1 {
		t.Errorf("the EHR was sent the reading %d times, want once", received)
	}
}
