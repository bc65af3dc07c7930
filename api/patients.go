package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
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
	if err := decode(c, &fields); err != nil {
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
	body, err := readObject(c)
	if err != nil {
		return err
	}
	var fields patientFields
	var updated db.Patient
	err = s.Store.InTx(c.Request().Context(), func(q *db.Queries) error {
		fields, updated, err = s.patchPatient(c.Request().Context(), q, row.ID, body)
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
func (s *server) patchPatient(ctx context.Context, q *db.Queries, id uuid.UUID, body []byte) (fields patientFields, updated db.Patient, err error) {
	row, err := q.LockPatient(ctx, db.LockPatientParams{PracticeCode: s.PracticeCode, ID: id})
	if db.IsNotFound(err) {
		return fields, updated, notFound("patient", id.String())
	}
	if err != nil {
		return fields, updated, fmt.Errorf("load patient: %w", err)
	}
	fields = showPatient(row).patientFields
	if err := decodePatch(body, &fields); err != nil {
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

func decodePatch(body []byte, fields *patientFields) error {
	if err := decodeObject(body, fields); err != nil {
		return err
	}
	var b broken
	b.nulls(body, "")
	return b.err()
}

// nulls adds the fields of an object that are null where they may not be. encoding/json leaves such a field as it was,
// and the caller would believe it gone.
func (b *broken) nulls(object json.RawMessage, path string) {
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil {
		return // a text or a number, which has no members
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		switch value := members[name]; {
		case path+name == "ecw_fhir_id":
		case string(value) == "null":
			b.add(path+name, `is null: leave it out to keep it, or send "" to empty a text`)
		default:
			b.nulls(value, path+name+".")
		}
	}
}

// check trims and validates the fields.
func (f *patientFields) check() (birthDate time.Time, err error) {
	var b broken
	b.text("first_name", &f.FirstName, 100, true)
	b.text("last_name", &f.LastName, 100, true)
	b.text("mrn", &f.MRN, 64, true)
	b.text("phone", &f.Phone, 40, false)
	b.text("address.line", &f.Address.Line, 200, false)
	b.text("address.city", &f.Address.City, 100, false)
	b.text("address.state", &f.Address.State, 100, false)
	b.text("address.postal_code", &f.Address.PostalCode, 20, false)
	b.text("address.country", &f.Address.Country, 100, false)
	birthDate, err = time.Parse(time.DateOnly, f.BirthDate)
	if err != nil || birthDate.After(time.Now()) || birthDate.Year() < 1850 {
		b.add("birth_date", "is not a past date such as 1957-03-21")
	}
	if f.ECWFHIRID != nil && *f.ECWFHIRID == "" {
		f.ECWFHIRID = nil
	}
	if f.ECWFHIRID != nil && !isFHIRID(*f.ECWFHIRID) {
		b.add("ecw_fhir_id", "is not a FHIR id (1 to 64 letters, digits, '-' and '.'): copy it from eCW's Patient resource")
	}
	return birthDate, b.err()
}

// isFHIRID follows FHIR R4 §2.24.0.1, id.
func isFHIRID(s string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-."
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, allowed) == ""
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
	id, err := idParam(c)
	if err != nil {
		return db.Patient{}, err
	}
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
	if err := checkQuery(c); err != nil {
		return err
	}
	var b broken
	p := b.page(c)
	mrn, ecwID := b.queryText(c, "mrn"), b.queryText(c, "ecw_fhir_id")
	if err := b.err(); err != nil {
		return err
	}
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
