package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
)

// linkTimeout is how long a request may wait for eCW, tokens included. A client usually gives up after 30 s.
const linkTimeout = 15 * time.Second

// shownIdentity is the person that eCW shows under an id.
type shownIdentity struct {
	id string // in eCW
	fhir.Identity
}

// readIdentity asks eCW who the patient with an id is. It is asked before the id is linked, because readings
// then go into this patient's chart, and nobody takes them out again.
func (s *server) readIdentity(ctx context.Context, id string) (*shownIdentity, error) {
	resource, err := s.EHR.ReadPatient(ctx, id)
	if err != nil {
		return nil, notRead(err)
	}
	shown, err := fhir.ParsePatient(resource, s.MRNSystem)
	if err != nil {
		return nil, notLinkable("eCW's Patient with this id cannot be used, as " + err.Error() + ": look at it in eCW")
	}
	return &shownIdentity{id: id, Identity: shown.Identity()}, nil
}

// notRead is the answer when eCW did not show the Patient.
func notRead(err error) error {
	var e *ecw.Error
	switch {
	case !errors.As(err, &e):
		return err
	case e.Code == ecw.CodeBudgetUsed:
		return budgetUsed(time.Until(e.RetryAt))
	case e.Code == "not_found", e.Code == "invalid_id":
		return notLinkable("eCW has no patient with this id: copy it from eCW's patient list")
	case e.Code == "other_patient":
		return notLinkable("eCW answers with another Patient than the one with this id: look at the chart in eCW")
	}

	return &Error{
		Status: http.StatusServiceUnavailable,
		Code:   "ecw_unavailable",
		Detail: "Nothing was stored, because eCW did not say who has this external_id: " + e.Message +
			". Try again later, or leave external_id out for now.",
	}
}

func notLinkable(message string) error {
	var b broken
	b.add("external_id", "%s", message)
	return b.err()
}

func (f *patientFields) identity() fhir.Identity {
	return fhir.Identity{LastName: f.LastName, BirthDate: f.DateOfBirth}
}

// judge refuses a link when eCW shows another name or birth date, unless the caller confirms that both are
// one person. Then differ names the fields that differ, and confirmed is the fingerprint of what eCW shows:
// the next import compares it and does not ask again.
func (r *patientRequest) judge(shown *shownIdentity) (confirmed *string, differ []string, err error) {
	differ = r.identity().Differences(shown.Identity)
	switch {
	case len(differ) == 0:
		return nil, nil, nil
	case !r.ConfirmMismatch:
		return nil, nil, patientMismatch(differ)
	}
	fingerprint := shown.Fingerprint()
	return &fingerprint, differ, nil
}

// patientMismatch names the fields that differ, and never what eCW shows: a caller without access to the
// chart must not learn it by trying.
func patientMismatch(differ []string) *Error {
	e := conflict("patient_mismatch", "eCW shows another %s under this external_id. Nothing was stored. Compare both records. "+
		"Correct the one that is wrong, or send the right external_id. "+
		"If both are the same person, send the request again with confirm_mismatch.",
		strings.Join(differ, " and "))
	e.refusal = e.Code // trying is a way to learn what eCW has
	for _, field := range differ {
		e.Fields = append(e.Fields, FieldError{Field: field, Message: "is not what eCW shows under this external_id"})
	}
	return e
}

// logConfirmation logs who confirmed a mismatch. differ names what differs; it is empty when nothing was
// confirmed.
func (s *server) logConfirmation(c echo.Context, patientID uuid.UUID, differ []string) {
	if len(differ) == 0 {
		return
	}
	s.Logger.InfoContext(c.Request().Context(), "a person confirmed that a patient is the one whom eCW shows otherwise",
		"patient_id", patientID, "subject", callerOf(c).Subject, "fields", differ)
}
