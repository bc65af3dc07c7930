package worker_test

import (
	"strings"
	"testing"

	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

// Of a delivery that the database kept from being sent nothing is left when a person cancels the transmission: it was no
// attempt, and nobody is shown one that is under way for ever.
func TestACancelWhileNothingCanBeSent(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.breakSends()
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	eventually(t, "Post to fail", func() bool {
		return strings.Contains(r.rawHistory(run), "mark the delivery as sent")
	})
	r.cancel(id)
	r.mustFail(run, workflows.ClassCancelled)
	row := r.transmission(id)
	if row.AttemptCount != 0 {
		t.Errorf("%d attempts are used up by what was not sent", row.AttemptCount)
	}
	for _, made := range r.attempts(row.ID) {
		if made.FinishedAt == nil {
			t.Errorf("attempt %d of a cancelled transmission is shown as under way: %+v", made.Number, made)
		}
	}
}
