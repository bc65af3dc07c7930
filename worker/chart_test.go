package worker_test

import (
	"testing"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
	"github.com/vantrexia/vantrexia/fhir"
)

// The patient is linked to another chart while the outcome of a delivery is unknown. eCW searches by patient only, so it is
// found nowhere but in the chart that it was sent to.
func TestUnknownOutcomeIsLookedUpInTheChartItWasSentTo(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{ignoreIfNoneExist: true})
	r.breakEHR(fault{Kind: "refuse_identifier", For: "1h"})
	r.breakEHR(fault{Kind: "reset_after", Target: "create"})
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	run := r.start(id)
	r.awaitRetry(id)

	former, present := *r.patient.ExternalID, sandbox.People()[1].FHIRID
	r.relink(&present)
	r.transmitNow(id)
	r.mustDeliver(run)
	if received, stored := r.creates(id); received != 1 || stored != 1 {
		t.Errorf("the EHR was sent the reading %d times and holds it %d times, want once", received, stored)
	}
	made := r.attempts(r.transmission(id).ID)
	if last := made[len(made)-1]; last.ECWPatientID == nil || *last.ECWPatientID != former {
		t.Errorf("the delivery is recorded as %+v, want it found in the former chart %s", last, former)
	}
}
