package activities

import (
	"context"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
)

// ofObservation is a row about one observation of one patient. Whoever asked for the delivery has a row of the API.
func ofObservation(action audit.Action, ref ObservationRef, patient uuid.UUID) audit.Event {
	return audit.Event{
		PracticeCode: ref.PracticeCode,
		Subject:      audit.System,
		Action:       action,
		ResourceType: "Observation",
		ResourceIDs:  []string{ref.ObservationID.String()},
		Patients:     []uuid.UUID{patient},
	}
}

// auditSend says that the observation is about to leave for eCW. It belongs into the transaction that marks the delivery as
// sent: where it cannot be written, nothing leaves.
func auditSend(ctx context.Context, q *db.Queries, ref ObservationRef, patient uuid.UUID) error {
	return audit.Record(ctx, q, ofObservation(audit.ObservationSend, ref, patient))
}

// auditDelivered says that eCW has the observation.
func auditDelivered(ctx context.Context, q *db.Queries, ref ObservationRef, patient uuid.UUID) error {
	return audit.Record(ctx, q, ofObservation(audit.ObservationDelivered, ref, patient))
}

// auditFailed says why a delivery failed: its class and its code.
func auditFailed(ctx context.Context, q *db.Queries, ref ObservationRef, patient uuid.UUID, f Failure) error {
	failed := ofObservation(audit.ObservationDelivered, ref, patient)
	failed.Outcome, failed.Reason = audit.Failure, string(f.Class)+"/"+f.Code
	return audit.Record(ctx, q, failed)
}

// ofPatient is a row about a patient whom an import has found.
func ofPatient(item ImportItem, patient uuid.UUID) audit.Event {
	return audit.Event{
		PracticeCode: item.PracticeCode,
		Subject:      audit.System,
		Action:       audit.PatientImport,
		ResourceType: "Patient",
		ResourceIDs:  []string{patient.String()},
		Patients:     []uuid.UUID{patient},
		Reason:       "import " + item.ImportID.String(),
	}
}
