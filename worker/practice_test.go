package worker_test

import (
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/workflows"
)

const elsewhere = "OTHERP"

// patientElsewhere is another practice's patient, whose id in eCW somebody of ours has too.
func (r *rig) patientElsewhere() db.Patient {
	r.t.Helper()
	mine := r.patient
	return must(r.store.CreatePatient(r.t.Context(), db.CreatePatientParams{
		PracticeCode: elsewhere,
		Demographics: mine.Demographics,
		Active:       true,
	}))(r.t)
}

func (r *rig) storeElsewhere(theirs db.Patient) activities.ObservationRef {
	r.t.Helper()
	reading := fhir.Reading{Type: fhir.BloodPressure, EffectiveAt: time.Now().UTC().Truncate(time.Microsecond), Device: "BP-OMRON-7250"}
	stored := must(r.store.CreateObservation(r.t.Context(), db.CreateObservationParams{
		ID:              fhir.ReadingID(elsewhere, theirs.ID, reading),
		PracticeCode:    elsewhere,
		PatientID:       theirs.ID,
		ObservationType: string(reading.Type),
		EffectiveAt:     reading.EffectiveAt,
		Device:          reading.Device,
		Measured:        []byte(bloodPressure),
	}))(r.t)
	return activities.ObservationRef{PracticeCode: elsewhere, ObservationID: stored.ID}
}

// A reading of another practice stays on that practice's queue, and comes no further than a worker's door when somebody has
// started it on ours.
func TestReadingsDoNotCrossPractices(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	theirs := r.patientElsewhere()
	right, wrong := r.storeElsewhere(theirs), r.storeElsewhere(theirs)
	for queue, ref := range map[string]activities.ObservationRef{workflows.TaskQueue(elsewhere): right, workflows.TaskQueue(practice): wrong} {
		options := startOptions(ref.ObservationID)
		options.TaskQueue = queue
		must(r.temporal.ExecuteWorkflow(t.Context(), options, workflows.Transmission, workflows.TransmissionInput{ObservationRef: ref}))(t)
	}
	ours := r.storeReading(fhir.BloodPressure, bloodPressure)
	r.mustDeliver(r.start(ours))

	eventually(t, "the foreign work to be refused", func() bool {
		found := must(r.temporal.DescribeWorkflowExecution(t.Context(), workflows.TransmissionWorkflowID(wrong.ObservationID), ""))(t)
		pending := found.GetPendingActivities()
		return len(pending) == 1 && pending[0].GetLastFailure().GetApplicationFailureInfo().GetType() == "foreign_practice"
	})
	for _, ref := range []activities.ObservationRef{right, wrong} {
		if received, _ := r.creates(ref.ObservationID); received != 0 {
			t.Errorf("a reading of practice %s was sent to the EHR of %s", elsewhere, practice)
		}
		if rows := r.transmissions(ref.ObservationID); len(rows) != 0 {
			t.Errorf("a worker of %s wrote %+v for a reading of %s", practice, rows, elsewhere)
		}
	}
}
