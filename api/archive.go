package api

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/audit"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/gate"
)

// Readings of an archived patient are stored, and nothing of them is sent. Those that come meanwhile get no
// workflow: a device may go on for months after its patient has left. Those that are on their way already are
// held by the gate, as they are for a patient who is somebody else in eCW.

func (s *server) archivePatient(c echo.Context) error { return s.setArchived(c, true) }

func (s *server) unarchivePatient(c echo.Context) error { return s.setArchived(c, false) }

// setArchived may be repeated. A patient who is unarchived again has the readings started that were not.
func (s *server) setArchived(c echo.Context, archived bool) error {
	ctx, id := c.Request().Context(), idParam(c)
	action := audit.PatientUnarchive
	if archived {
		action = audit.PatientArchive
	}

	var row db.Patient
	err := s.Store.InTx(ctx, func(q *db.Queries) (err error) {
		row, err = q.SetArchived(ctx, db.SetArchivedParams{
			PracticeCode: s.PracticeCode,
			ID:           id,
			Archived:     archived,
		})
		if err != nil {
			return err
		}
		return audit.Record(ctx, q, s.patientEvent(c, action, id, ""))
	})
	if db.IsNotFound(err) {
		return notFound("patient", id.String())
	}
	if err != nil {
		return fmt.Errorf("archive patient: %w", err)
	}

	if !archived {
		s.startHeld(ctx, id)
	}
	return s.answerPatient(c, row)
}

// startHeld starts the readings that came while a patient was archived. It is called when the patient is active
// again, and returns no error: what it does not start the sweep finds. Those in the queue go on when they are
// called, as all others there.
//
// A reading that is posted at the same moment is missed by nobody: its request looks at the patient after the
// reading is stored, and this looks for readings after the patient is stored. So one of them sees the other.
func (s *server) startHeld(ctx context.Context, patient uuid.UUID) {
	ids, err := s.Store.ListUnstarted(ctx, db.ListUnstartedParams{PracticeCode: s.PracticeCode, PatientID: patient})
	if err != nil {
		s.Logger.WarnContext(ctx, "readings of a patient who was unarchived are not started yet", "patient_id", patient, "error", err)
		return
	}
	for some := range slices.Chunk(ids, startedTogether) {
		s.startMany(ctx, some)
	}
}

// startedTogether is how many transmissions one workflow is asked to start: as many as a batch has.
const startedTogether = 1_000

// The reasons for which a reading is held because of its patient.
const (
	heldArchived = "patient_archived"
	heldMismatch = "patient_mismatch"
)

// heldReason returns why nothing is sent of a reading that is not delivered yet; nil when nothing about its
// patient stands in the way.
func (s *server) heldReason(ctx context.Context, observationID uuid.UUID) (*string, error) {
	why, err := s.Store.WhyHeld(ctx, observationID)
	if err != nil {
		return nil, fmt.Errorf("look at the reading's patient: %w", err)
	}
	switch why {
	case gate.ReasonArchived:
		return new(heldArchived), nil
	case gate.ReasonPatient:
		return new(heldMismatch), nil
	}
	return nil, nil
}

// withoutArchived returns those of the readings whose patient is not archived. When the database does not
// answer, it returns all: their workflows look at the patient as well.
func (s *server) withoutArchived(ctx context.Context, ids []uuid.UUID) []uuid.UUID {
	active, err := s.Store.WithoutArchived(ctx, ids)
	if err != nil {
		s.Logger.WarnContext(ctx, "the patients of new readings could not be looked at", "readings", len(ids), "error", err)
		return ids
	}
	return active
}

// patientArchived refuses to send a reading of an archived patient.
func patientArchived(patient uuid.UUID) *Error {
	return conflict(heldArchived, "Patient %s is archived, so nothing is sent to eClinicalWorks. "+
		"Unarchive the patient: the reading then goes on by itself.", patient)
}
