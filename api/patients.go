package api

import (
	"context"
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

// patientFields is what a caller may set of a patient.
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

// patient is a patient as the API shows it.
type patient struct {
	ID uuid.UUID `json:"id"`
	patientFields
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

func (s *server) createPatient(c echo.Context) error {
	fields := patientFields{Active: true}
	if err := bind(c, &fields); err != nil {
		return err
	}
	birthDate, err := fields.check()
	if err != nil {
		return err
	}
	row, err := s.Store.CreatePatient(c.Request().Context(), db.CreatePatientParams{
		PracticeCode: s.PracticeCode, FirstName: fields.FirstName, LastName: fields.LastName, BirthDate: birthDate, MRN: fields.MRN,
		ECWFHIRID: fields.ECWFHIRID, Phone: fields.Phone, AddressLine: fields.Address.Line, City: fields.Address.City,
		State: fields.Address.State, PostalCode: fields.Address.PostalCode, Country: fields.Address.Country, Active: fields.Active,
	})
	if err != nil {
		return s.patientError(c, uuid.Nil, fields, err)
	}
	c.Response().Header().Set(echo.HeaderLocation, "/api/v1/patients/"+row.ID.String()+"/")
	return c.JSON(http.StatusCreated, showPatient(row))
}

// updatePatient changes the fields that the body names, and leaves the others (RFC 7396). Only ecw_fhir_id may be null:
// the other fields always have a value.
func (s *server) updatePatient(c echo.Context) error {
	row, err := s.loadPatient(c)
	if err != nil {
		return err
	}
	var fields patientFields
	var updated db.Patient
	err = s.Store.InTx(c.Request().Context(), func(q *db.Queries) error {
		fields, updated, err = s.patchPatient(c.Request().Context(), q, row.ID, body(c))
		return err
	})
	if db.IsUniqueViolation(err) {
		return s.patientError(c, row.ID, fields, err)
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, showPatient(updated))
}

// patchPatient reads, changes and writes the patient under a lock: two requests at once change one after the other, and
// neither undoes the other's fields.
func (s *server) patchPatient(ctx context.Context, q *db.Queries, id uuid.UUID, patch []byte) (fields patientFields, updated db.Patient, err error) {
	row, err := q.LockPatient(ctx, db.LockPatientParams{PracticeCode: s.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return fields, updated, notFound("patient", id.String())
	}
	if err != nil {
		return fields, updated, fmt.Errorf("load patient: %w", err)
	}
	fields = showPatient(row).patientFields
	if err := unmarshal(patch, &fields); err != nil {
		return fields, updated, err
	}
	birthDate, err := fields.check()
	if err != nil {
		return fields, updated, err
	}
	updated, err = q.UpdatePatient(ctx, db.UpdatePatientParams{
		PracticeCode: s.PracticeCode, ID: id, FirstName: fields.FirstName, LastName: fields.LastName, BirthDate: birthDate, MRN: fields.MRN,
		ECWFHIRID: fields.ECWFHIRID, Phone: fields.Phone, AddressLine: fields.Address.Line, City: fields.Address.City,
		State: fields.Address.State, PostalCode: fields.Address.PostalCode, Country: fields.Address.Country, Active: fields.Active,
	})
	if err != nil {
		return fields, updated, fmt.Errorf("store patient: %w", err)
	}
	return fields, updated, nil
}

// check trims the texts, and looks at what a schema cannot know.
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

// patientError explains why a row was refused: which other patient holds the MRN or the eCW id already. self is the
// patient that was to be changed, or zero.
func (s *server) patientError(c echo.Context, self uuid.UUID, fields patientFields, err error) error {
	if !db.IsUniqueViolation(err) {
		return fmt.Errorf("store patient: %w", err)
	}
	for _, identity := range []struct {
		field string
		query db.FindPatientByIdentityParams
	}{
		{"mrn", db.FindPatientByIdentityParams{PracticeCode: s.PracticeCode, MRN: fields.MRN}},
		{"ecw_fhir_id", db.FindPatientByIdentityParams{PracticeCode: s.PracticeCode, ECWFHIRID: fields.ECWFHIRID}}, // no MRN is empty
	} {
		holder, err := s.Store.FindPatientByIdentity(c.Request().Context(), identity.query)
		switch {
		case db.IsNotFound(err) || err == nil && holder.ID == self:
			continue
		case err != nil:
			return fmt.Errorf("find the patient with the same identity: %w", err)
		}
		return conflict("patient_exists", "Patient %s has this %s already: change that patient instead.", holder.ID, identity.field)
	}
	return conflict("patient_exists", "Another patient had this mrn or ecw_fhir_id a moment ago: try again.")
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

// listPatients takes the exact filters mrn and ecw_fhir_id.
func (s *server) listPatients(c echo.Context) error {
	p := queryPage(c)
	mrn, ecwID := queryText(c, "mrn"), queryText(c, "ecw_fhir_id")
	ctx := c.Request().Context()
	count, err := s.Store.CountPatients(ctx, db.CountPatientsParams{PracticeCode: s.PracticeCode, MRN: mrn, ECWFHIRID: ecwID})
	if err != nil {
		return fmt.Errorf("count patients: %w", err)
	}
	rows, err := s.Store.ListPatients(ctx, db.ListPatientsParams{
		PracticeCode: s.PracticeCode, MRN: mrn, ECWFHIRID: ecwID, PageSize: int32(p.size), PageOffset: int32(p.offset()),
	})
	if err != nil {
		return fmt.Errorf("list patients: %w", err)
	}
	results := make([]patient, len(rows))
	for i, row := range rows {
		results[i] = showPatient(row)
	}
	return c.JSON(http.StatusOK, newList(c, p, count, results))
}

func showPatient(p db.Patient) patient {
	return patient{
		ID: p.ID, CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt,
		patientFields: patientFields{
			FirstName: p.FirstName, LastName: p.LastName, BirthDate: p.BirthDate.Format(time.DateOnly), MRN: p.MRN, ECWFHIRID: p.ECWFHIRID,
			Phone: p.Phone, Active: p.Active,
			Address: address{Line: p.AddressLine, City: p.City, State: p.State, PostalCode: p.PostalCode, Country: p.Country},
		},
	}
}
