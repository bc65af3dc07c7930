package worker_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

// TestSweepDoesNotReopenWhatFailedMeanwhile: a transmission can fail for good after a sweep has listed it and before the
// sweep starts a workflow for it. Only a person may then ask for another.
func TestSweepDoesNotReopenWhatFailedMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.relink(nil)
	id := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustFail(r.start(id), string(ecw.ClassPermanentData))
	failed := r.transmission(id)

	batch := workflows.Batch{PracticeCode: practice, ObservationIDs: []uuid.UUID{id}}
	options := workflows.BatchStart(practice, uuid.New()).Options()
	late := must(r.temporal.ExecuteWorkflow(t.Context(), options, workflows.StartTransmissions, batch))(t)
	if err := late.Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	started := r.temporal.GetWorkflow(t.Context(), workflows.TransmissionWorkflowID(id), "")
	r.mustDeliver(started) // ends without an error, and without a delivery
	if now := r.transmission(id); now.ID != failed.ID || now.Status != failed.Status || !now.UpdatedAt.Equal(failed.UpdatedAt) {
		t.Errorf("the transmission is %+v, want it left as it was: %+v", now, failed)
	}

	r.relink(link())
	r.mustDeliver(r.transmitNow(id))
	if all := r.transmissions(id); len(all) != 2 {
		t.Errorf("%d transmissions after a person asked for another, want 2", len(all))
	}
}
