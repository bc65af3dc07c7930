package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/vantrexia/vantrexia/db"
)

// address is a postal address; every part may be empty.
type address struct {
	Line       string `json:"line"`
	City       string `json:"city"`
	State      string `json:"state"`
	PostalCode string `json:"postal_code"`
	Country    string `json:"country"`
}

// patientFields are the fields of a patient that a caller may set.
type patientFields struct {
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	BirthDate string `json:"birth_date"`
	MRN       string `json:"mrn"`
	// ECWFHIRID links the patient to eCW; null or empty means not linked.
	ECWFHIRID *string `json:"ecw_fhir_id"`
	Phone     string  `json:"phone"`
	Address   address `json:"address"`
	Active    bool    `json:"active"`
}

// patientRequest is the body that creates or changes a patient.
type patientRequest struct {
	patientFields
	// ConfirmMismatch says that eCW's patient is this one although the names or the birth dates differ.
	ConfirmMismatch bool `json:"confirm_mismatch"`
}

// patient is a patient as the API shows it.
type patient struct {
	ID uuid.UUID `json:"id"`
	patientFields
	// MismatchSince is when eCW began to show another person under ECWFHIRID; null when it does not.
	MismatchSince *time.Time `json:"mismatch_since"`
	CreatedAt     time.Time  `json:"created_at"`
	UpdatedAt     time.Time  `json:"updated_at"`
}

func (s *server) createPatient(c echo.Context) error {
	ctx := c.Request().Context()
	req := patientRequest{patientFields: patientFields{Active: true}}
	if err := bind(c, &req); err != nil {
		return err
	}

	birthDate, err := req.check()
	if err != nil {
		return err
	}

	if err := s.checkIdentities(ctx, s.Store.Queries, uuid.Nil, req.patientFields); err != nil {
		return err
	}

	var confirmed *string
	var differ []string
	if req.ECWFHIRID != nil {
		asking, cancel := context.WithTimeout(ctx, linkTimeout)
		defer cancel()
		shown, err := s.readIdentity(asking, *req.ECWFHIRID)
		if err != nil {
			return err
		}
		if confirmed, differ, err = req.judge(shown); err != nil {
			return err
		}
	}

	row, err := s.Store.CreatePatient(ctx, db.CreatePatientParams{
		PracticeCode:      s.PracticeCode,
		FirstName:         req.FirstName,
		LastName:          req.LastName,
		BirthDate:         birthDate,
		MRN:               req.MRN,
		ECWFHIRID:         req.ECWFHIRID,
		Phone:             req.Phone,
		AddressLine:       req.Address.Line,
		City:              req.Address.City,
		State:             req.Address.State,
		PostalCode:        req.Address.PostalCode,
		Country:           req.Address.Country,
		Active:            req.Active,
		MismatchConfirmed: confirmed,
	})
	if db.IsNotFound(err) {
		return s.taken(ctx, uuid.Nil, req.patientFields)
	}
	if err != nil {
		return fmt.Errorf("store patient: %w", err)
	}

	s.logConfirmation(c, row.ID, differ)
	setLocation(c, "/api/v1/patients/"+row.ID.String()+"/")
	return c.JSON(http.StatusCreated, showPatient(row))
}

// updatePatient changes the fields that the body names, and leaves the others (RFC 7396). Only ecw_fhir_id
// may be null: the other fields always have a value.
func (s *server) updatePatient(c echo.Context) error {
	ctx := c.Request().Context()
	row, err := s.loadPatient(c)
	if err != nil {
		return err
	}

	change, err := newPatientChange(row, body(c))
	if err != nil {
		return err
	}

	// The patient is not locked while eCW is asked, because eCW may take long. Another request may change the
	// link meanwhile; then eCW is asked again.
	asking, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()

	for range patchTries {
		if err := s.checkIdentities(ctx, s.Store.Queries, row.ID, change.want.patientFields); err != nil {
			return err
		}

		var shown *shownIdentity
		if change.needsECW() {
			if shown, err = s.readIdentity(asking, *change.want.ECWFHIRID); err != nil {
				return err
			}
		}

		var updated db.Patient
		var differ []string
		err = s.Store.InTx(ctx, func(q *db.Queries) error {
			if change, err = s.lockForChange(ctx, q, row.ID, body(c)); err != nil {
				return err
			}
			updated, differ, err = s.patchPatient(ctx, q, change, shown)
			return err
		})

		switch {
		case errors.Is(err, errRelinked):
			continue
		case db.IsUniqueViolation(err):
			return s.taken(ctx, row.ID, change.want.patientFields)
		case err != nil:
			return err
		}

		s.logConfirmation(c, row.ID, differ)
		return c.JSON(http.StatusOK, showPatient(updated))
	}

	return conflict("patient_changed", "Somebody else is changing the link of patient %s. Nothing was changed. "+
		"Look at the patient, then try again.", row.ID)
}

// patchTries is how often a change is tried when another request changes the link at the same time.
const patchTries = 3

// errRelinked means that another request changed the link while eCW was asked about the former one.
var errRelinked = errors.New("the patient was linked elsewhere meanwhile")

// lockForChange reads the patient and locks the row. Of two requests at the same time, the second waits and
// then changes what the first one stored, so neither undoes the other's fields.
func (s *server) lockForChange(ctx context.Context, q *db.Queries, id uuid.UUID, patch []byte) (patientChange, error) {
	row, err := q.LockPatient(ctx, db.LockPatientParams{PracticeCode: s.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return patientChange{}, notFound("patient", id.String())
	}
	if err != nil {
		return patientChange{}, fmt.Errorf("load patient: %w", err)
	}
	return newPatientChange(row, patch)
}

// patchPatient writes a change of a patient who is locked. shown is what eCW shows under the id that the
// change wants; nil when eCW was not asked. differ names the fields that differ from it and were confirmed.
func (s *server) patchPatient(ctx context.Context, q *db.Queries, change patientChange, shown *shownIdentity) (
	updated db.Patient, differ []string, err error,
) {
	row, want := change.row, change.want
	if err := s.checkIdentities(ctx, q, row.ID, want.patientFields); err != nil {
		return updated, nil, err
	}

	since, confirmed := row.MismatchSince, row.MismatchConfirmed
	switch {
	case want.ECWFHIRID == nil:
		since, confirmed = nil, nil
	case change.needsECW() && (shown == nil || shown.ecwFHIRID != *want.ECWFHIRID):
		return updated, nil, errRelinked
	case change.needsECW():
		since = nil
		if confirmed, differ, err = want.judge(shown); err != nil {
			return updated, nil, err
		}
	}

	updated, err = q.UpdatePatient(ctx, db.UpdatePatientParams{
		PracticeCode:      s.PracticeCode,
		ID:                row.ID,
		FirstName:         want.FirstName,
		LastName:          want.LastName,
		BirthDate:         change.birthDate,
		MRN:               want.MRN,
		ECWFHIRID:         want.ECWFHIRID,
		Phone:             want.Phone,
		AddressLine:       want.Address.Line,
		City:              want.Address.City,
		State:             want.Address.State,
		PostalCode:        want.Address.PostalCode,
		Country:           want.Address.Country,
		Active:            want.Active,
		MismatchSince:     since,
		MismatchConfirmed: confirmed,
	})
	if err != nil {
		return updated, nil, fmt.Errorf("store patient: %w", err)
	}
	return updated, differ, nil
}

// patientChange is a patient as stored, and as a request wants to have it.
type patientChange struct {
	row       db.Patient
	want      patientRequest
	birthDate time.Time // of want
}

func newPatientChange(row db.Patient, patch []byte) (patientChange, error) {
	change := patientChange{row: row, want: patientRequest{patientFields: showPatient(row).patientFields}}
	if row.ECWFHIRID != nil { // a copy: encoding/json would write through the pointer into the row
		linked := *row.ECWFHIRID
		change.want.ECWFHIRID = &linked
	}
	err := unmarshal(patch, &change.want)
	if err == nil {
		change.birthDate, err = change.want.check()
	}
	return change, err
}

// needsECW reports whether eCW must be asked who is linked: the change sets the link, changes the name or
// birth date of a linked patient, or confirms a mismatch.
func (p patientChange) needsECW() bool {
	if p.want.ECWFHIRID == nil {
		return false
	}
	stored := showPatient(p.row).patientFields
	return stored.ECWFHIRID == nil || *stored.ECWFHIRID != *p.want.ECWFHIRID ||
		len(stored.identity().Differences(p.want.identity())) > 0 ||
		p.want.ConfirmMismatch && p.row.MismatchSince != nil
}

// check trims the texts, and checks what a schema cannot.
func (f *patientFields) check() (birthDate time.Time, err error) {
	a := &f.Address
	for _, text := range []*string{&f.FirstName, &f.LastName, &f.MRN, &f.Phone, &a.Line, &a.City, &a.State, &a.PostalCode, &a.Country} {
		*text = strings.TrimSpace(*text)
	}

	if f.ECWFHIRID != nil && *f.ECWFHIRID == "" {
		f.ECWFHIRID = nil
	}

	var b broken
	birthDate, err = time.Parse(time.DateOnly, f.BirthDate)
	if err != nil || birthDate.After(time.Now()) || birthDate.Year() < 1850 {
		b.add("birth_date", "is not a past date such as 1957-03-21")
	}
	return birthDate, b.err()
}

// checkIdentities refuses an MRN or an eCW id that another patient has. self is the id of the patient to
// change, or zero.
func (s *server) checkIdentities(ctx context.Context, q *db.Queries, self uuid.UUID, fields patientFields) error {
	holder, err := q.FindPatientByMRN(ctx, db.FindPatientByMRNParams{PracticeCode: s.PracticeCode, MRN: fields.MRN})
	if refused := held("mrn", self, holder.ID, err); refused != nil || fields.ECWFHIRID == nil {
		return refused
	}
	holder, err = q.FindLinkedPatient(ctx, db.FindLinkedPatientParams{PracticeCode: s.PracticeCode, ECWFHIRID: fields.ECWFHIRID})
	return held("ecw_fhir_id", self, holder.ID, err)
}

// held returns an error when the search for the patient with a field has found somebody else.
func held(field string, self, holder uuid.UUID, err error) error {
	switch {
	case db.IsNotFound(err) || err == nil && holder == self:
		return nil
	case err != nil:
		return fmt.Errorf("find the patient with the same %s: %w", field, err)
	}
	return conflict("patient_exists", "Patient %s has this %s already: change that patient instead.", holder, field)
}

// taken explains a write that the database refused: another patient with the MRN or the eCW id was stored
// since checkIdentities looked.
func (s *server) taken(ctx context.Context, self uuid.UUID, fields patientFields) error {
	if err := s.checkIdentities(ctx, s.Store.Queries, self, fields); err != nil {
		return err
	}
	return conflict("patient_exists", "Another patient had this mrn or ecw_fhir_id a moment ago: send the request again.")
}

func (s *server) getPatient(c echo.Context) error {
	row, err := s.loadPatient(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, showPatient(row))
}

func (s *server) loadPatient(c echo.Context) (db.Patient, error) {
	id := idParam(c)
	row, err := s.Store.GetPatient(c.Request().Context(), db.GetPatientParams{PracticeCode: s.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return row, notFound("patient", id.String())
	}
	if err != nil {
		return row, fmt.Errorf("load patient: %w", err)
	}
	return row, nil
}

// listPatients takes the exact filters mrn, ecw_fhir_id and mismatch.
func (s *server) listPatients(c echo.Context) error {
	p, err := queryListPage[db.PatientKey](c, "patients")
	if err != nil {
		return err
	}

	filter := db.PatientFilter{
		PracticeCode: s.PracticeCode,
		MRN:          queryText(c, "mrn"),
		ECWFHIRID:    queryText(c, "ecw_fhir_id"),
		Mismatch:     queryBool(c, "mismatch"),
	}

	ctx := c.Request().Context()
	count, err := s.Store.CountPatients(ctx, filter)
	if err != nil {
		return fmt.Errorf("count patients: %w", err)
	}

	rows, err := s.Store.ListPatients(ctx, filter, p.Page)
	if err != nil {
		return fmt.Errorf("list patients: %w", err)
	}

	answer, err := newList(c, p, count, rows, showPatient, db.Patient.Key)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, answer)
}

func showPatient(p db.Patient) patient {
	return patient{
		ID:            p.ID,
		MismatchSince: p.MismatchSince,
		CreatedAt:     p.CreatedAt,
		UpdatedAt:     p.UpdatedAt,
		patientFields: patientFields{
			FirstName: p.FirstName,
			LastName:  p.LastName,
			BirthDate: p.BirthDate.Format(time.DateOnly),
			MRN:       p.MRN,
			ECWFHIRID: p.ECWFHIRID,
			Phone:     p.Phone,
			Active:    p.Active,
			Address: address{
				Line:       p.AddressLine,
				City:       p.City,
				State:      p.State,
				PostalCode: p.PostalCode,
				Country:    p.Country,
			},
		},
	}
}
