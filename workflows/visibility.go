package workflows

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/vantrexia/vantrexia/activities"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// The search attributes of a transmission: ids, numbers, times and words of ours, never anything of a patient.
var (
	attrTransmissionStatus = temporal.NewSearchAttributeKeyKeyword("TransmissionStatus")
	attrObservationType    = temporal.NewSearchAttributeKeyKeyword("ObservationType")
	attrAttemptCount       = temporal.NewSearchAttributeKeyInt64("AttemptCount")
	attrNextRetryAt        = temporal.NewSearchAttributeKeyTime("NextRetryAt")
	attrErrorClass         = temporal.NewSearchAttributeKeyKeyword("ErrorClass")
	attrPatientID          = temporal.NewSearchAttributeKeyKeyword("PatientId")
	attrObservationID      = temporal.NewSearchAttributeKeyKeyword("ObservationId")
)

// SearchAttributes lists what the namespace must know before a transmission runs; `vantrexia migrate` registers them.
func SearchAttributes() map[string]enums.IndexedValueType {
	types := map[string]enums.IndexedValueType{}
	for _, key := range []temporal.SearchAttributeKey{
		attrTransmissionStatus, attrObservationType, attrAttemptCount, attrNextRetryAt, attrErrorClass, attrPatientID, attrObservationID,
	} {
		types[key.GetName()] = key.GetValueType()
	}
	return types
}

// carries says what a transmission carries.
func carries(observationID, patientID uuid.UUID, observationType string) []temporal.SearchAttributeUpdate {
	return []temporal.SearchAttributeUpdate{
		attrObservationID.ValueSet(observationID.String()),
		attrPatientID.ValueSet(patientID.String()),
		attrObservationType.ValueSet(observationType),
	}
}

// showOpened makes a transmission findable once it is known what it carries.
func (t *transmission) showOpened(ctx workflow.Context) error {
	status, details := db.StatusPending, "Queued for delivery."
	switch {
	case t.opened.Delivered:
		status, details = db.StatusTransmitted, "Was delivered before."
	case t.opened.Archived:
		details = "Not begun: the patient is archived. It is started again when the patient is unarchived."
	case t.opened.LeftAlone:
		status, details = db.StatusFailed, "Failed before: a person has to act, then transmit again through the API."
	}
	return t.show(ctx, status, details, attrAttemptCount.ValueSet(int64(t.attempt)))
}

func (t *transmission) showDelivering(ctx workflow.Context) error {
	return t.show(ctx, db.StatusProcessing, fmt.Sprintf("Delivering: attempt **%d of %d**.", t.attempt, t.opened.MaxAttempts),
		attrAttemptCount.ValueSet(int64(t.attempt)),
		attrNextRetryAt.ValueUnset())
}

// showHeld speaks of a delivery that has not begun.
func (t *transmission) showHeld(ctx workflow.Context, reason string) error {
	return t.show(ctx, db.StatusPending, heldDetails(reason), attrAttemptCount.ValueSet(int64(t.attempt)))
}

func heldDetails(reason string) string {
	why := "Waits in the queue before eCW, which bears only so many requests at once. It is called when its turn comes."
	switch reason {
	case gate.ReasonUnavailable:
		why = "Held: eCW is unavailable. It goes on by itself when eCW takes readings again."
	case gate.ReasonPatient:
		why = "Held: eCW shows another person under the patient's id. Compare the two, then re-link the patient, or confirm."
	case gate.ReasonArchived:
		why = "Held: the patient is archived. It goes on by itself when the patient is unarchived."
	case gate.ReasonCredentials:
		why = "Held: eCW refuses our credentials, which a person has to fix. It goes on by itself when eCW takes readings again."
	}
	return why + "\n\nUpdate `" + UpdateTransmitNow + "` tries at once; signal `" + SignalCancel + "` ends the transmission."
}

// showScheduled speaks of a delivery that is about to begin at a certain moment.
func (t *transmission) showScheduled(ctx workflow.Context, status string, until time.Time) error {
	return t.show(ctx, status, fmt.Sprintf("Begins about **%s**.", until.Format(timeForm)),
		attrAttemptCount.ValueSet(int64(t.attempt)),
		attrNextRetryAt.ValueSet(until))
}

func (t *transmission) showOutcome(ctx workflow.Context, out activities.Outcome) error {
	attempts := attrAttemptCount.ValueSet(int64(out.AttemptCount))
	if out.Posted != nil {
		return t.show(ctx, out.Status, fmt.Sprintf("Delivered as `Observation/%s`.", out.Posted.ECWObservationID),
			attempts, attrErrorClass.ValueUnset())
	}

	class := string(out.Failure.Class)
	updates := []temporal.SearchAttributeUpdate{attempts, attrErrorClass.ValueSet(class)}
	lines := []string{
		fmt.Sprintf("Failed: %s (`%s`), with **%d of %d** attempts made.", out.Failure.Message, class, out.AttemptCount, t.opened.MaxAttempts),
	}
	switch {
	case out.Held:
		lines = append(lines, heldDetails(out.HeldFor))
	case out.Final():
		updates = append(updates, attrNextRetryAt.ValueUnset())
		lines = append(lines, "No retry will come: a person has to act, then transmit again through the API.")
	default:
		updates = append(updates, attrNextRetryAt.ValueSet(*out.NextRetryAt))
		lines = append(lines, fmt.Sprintf("Next try not before **%s**.", out.NextRetryAt.Format(timeForm)),
			"Update `"+UpdateTransmitNow+"` delivers at once; signal `"+SignalCancel+"` ends the transmission.")
	}
	return t.show(ctx, out.Status, strings.Join(lines, "\n\n"), updates...)
}

const timeForm = "2006-01-02 15:04:05 UTC"

// show puts the state where people look for stuck transmissions: the list and the page of the Temporal Web UI.
func (t *transmission) show(ctx workflow.Context, status, details string, updates ...temporal.SearchAttributeUpdate) error {
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("### %s: %s\n\n%s%s", t.opened.Number, status, details, t.wanted.details()))
	updates = append(updates, attrTransmissionStatus.ValueSet(status))
	if _, known := workflow.GetTypedSearchAttributes(ctx).GetKeyword(attrObservationID); !known {
		updates = append(updates, carries(t.ref.ObservationID, t.opened.PatientID, t.opened.ObservationType)...)
	}
	return workflow.UpsertTypedSearchAttributes(ctx, updates...)
}
