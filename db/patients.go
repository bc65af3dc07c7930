package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/keyring"
)

// Demographics is what is known of the person, and the link to eCW. It is stored as one sealed JSON text: nobody
// who reads the table sees which fields a patient has, nor how long each is.
type Demographics struct {
	FirstName   string    `json:"first_name"`
	LastName    string    `json:"last_name"`
	DateOfBirth time.Time `json:"date_of_birth"` // midnight in UTC
	// Gender is one of FHIR's administrative genders; nil: not known.
	Gender *string `json:"gender,omitempty"`
	MRN    string  `json:"mrn"`
	// ExternalID is the id of the Patient resource in eCW; nil until the patient is linked.
	ExternalID   *string `json:"external_id,omitempty"`
	Phone        string  `json:"phone,omitempty"`
	Email        string  `json:"email,omitempty"`
	AddressLine1 string  `json:"address_line1,omitempty"`
	AddressLine2 string  `json:"address_line2,omitempty"`
	City         string  `json:"city,omitempty"`
	State        string  `json:"state,omitempty"`
	Zip          string  `json:"zip,omitempty"`
	// MismatchConfirmed is a fingerprint of the family name and birth date that eCW showed when a person confirmed
	// that this is the same patient although they differ. Nil: nothing was confirmed, or eCW's were taken over since.
	MismatchConfirmed *string `json:"mismatch_confirmed,omitempty"`
}

// Name is how people are shown in lists.
func (d Demographics) Name() string { return d.FirstName + " " + d.LastName }

// check refuses what columns in clear would refuse. Callers have checked it before: its errors are about mistakes of
// ours, or about an EHR that breaks the rules of FHIR.
func (d Demographics) check() error {
	for name, text := range map[string]*string{
		"first_name":  &d.FirstName,
		"last_name":   &d.LastName,
		"mrn":         &d.MRN,
		"external_id": d.ExternalID,
	} {
		if text != nil && *text == "" {
			return fmt.Errorf("a patient's %s is empty", name)
		}
	}
	if d.Gender != nil && !slices.Contains([]string{"male", "female", "other", "unknown"}, *d.Gender) {
		return errors.New("a patient's gender is none of FHIR's administrative genders")
	}

	texts := []string{d.FirstName, d.LastName, d.MRN, d.Phone, d.Email, d.AddressLine1, d.AddressLine2, d.City, d.State, d.Zip}
	if d.ExternalID != nil {
		texts = append(texts, *d.ExternalID)
	}
	if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, "\x00") }) {
		return errors.New("a text of a patient has NUL in it") // which separates the words of the directory
	}
	return nil
}

// Patient is a patient of the practice.
type Patient struct {
	ID           uuid.UUID
	PracticeCode string
	Demographics
	// ChartID names the present chart in eCW; nil until the patient is linked.
	ChartID *uuid.UUID
	// ArchivedAt is since when nothing is sent to eCW; nil: the patient is active.
	ArchivedAt *time.Time
	// MismatchSince is since when eCW shows another person under ExternalID, and the patient's readings are held.
	MismatchSince *time.Time
	// ReadingsPrunedTo is up to when measured readings may have been pruned; nil: none was.
	ReadingsPrunedTo *time.Time
	CreatedAt        time.Time
	UpdatedAt        time.Time
}

// What the hashes of the indexes are made of; see [keyring.Keyring.Index].
const (
	indexedMRN        = "patients.mrn"
	indexedExternalID = "patients.external_id"
)

func (q *Queries) mrnIndex(practice, mrn string) keyring.Index {
	return q.ring().Index(indexedMRN, practice, mrn)
}

// externalIDIndex is also that of the charts. Without an id it is empty, and finds nothing.
func (q *Queries) externalIDIndex(practice string, id *string) keyring.Index {
	if id == nil {
		return keyring.Index{}
	}
	return q.ring().Index(indexedExternalID, practice, *id)
}

// mrnIn and externalIDIn read what is indexed of opened demographics; an empty text is none.
func mrnIn(plain []byte) (string, error) {
	d, err := parseDemographics(plain)
	return d.MRN, err
}

func externalIDIn(plain []byte) (string, error) {
	d, err := parseDemographics(plain)
	if d.ExternalID == nil {
		return "", err
	}
	return *d.ExternalID, err
}

func parseDemographics(plain []byte) (d Demographics, err error) {
	if json.Unmarshal(plain, &d) != nil { // its error would repeat the text
		return d, errors.New("is not written as this version writes it: use a newer binary")
	}
	return d, nil
}

func demographicsCell(practice string, id uuid.UUID) keyring.Cell {
	return keyring.Cell{Table: "patients", Column: "demographics", Practice: practice, Row: id.String()}
}

func (q *Queries) sealDemographics(practice string, id uuid.UUID, d Demographics) ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return q.ring().Seal(demographicsCell(practice, id), plain)
}

func (q *Queries) openDemographics(practice string, id uuid.UUID, sealed []byte) (d Demographics, err error) {
	cell := demographicsCell(practice, id)
	plain, err := q.ring().Open(cell, sealed)
	if err != nil {
		return d, err
	}
	if d, err = parseDemographics(plain); err != nil {
		return d, fmt.Errorf("%s: %w", cell, err)
	}
	return d, nil
}

// openPatient opens a row that a query has returned, and passes its error on.
func (q *Queries) openPatient(row sealedPatient, err error) (Patient, error) {
	if err != nil {
		return Patient{}, err
	}
	d, err := q.openDemographics(row.PracticeCode, row.ID, row.Demographics)
	if err != nil {
		return Patient{}, err
	}
	return Patient{
		ID:               row.ID,
		PracticeCode:     row.PracticeCode,
		Demographics:     d,
		ChartID:          row.ChartID,
		ArchivedAt:       row.ArchivedAt,
		MismatchSince:    row.MismatchSince,
		ReadingsPrunedTo: row.ReadingsPrunedTo,
		CreatedAt:        row.CreatedAt,
		UpdatedAt:        row.UpdatedAt,
	}, nil
}

// CreatePatientParams is a new patient.
type CreatePatientParams struct {
	PracticeCode string
	Demographics
	Active bool
}

// CreatePatient stores a patient. Another patient who has the MRN or the eCW id makes it an error of which
// [IsNotFound] is true.
func (q *Queries) CreatePatient(ctx context.Context, arg CreatePatientParams) (Patient, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return Patient{}, err
	}
	sealed, err := q.sealDemographics(arg.PracticeCode, id, arg.Demographics)
	if err != nil {
		return Patient{}, err
	}
	chart, sealedChart, err := q.newChart(arg.PracticeCode, arg.ExternalID)
	if err != nil {
		return Patient{}, err
	}

	mrn, external := q.mrnIndex(arg.PracticeCode, arg.MRN), q.externalIDIndex(arg.PracticeCode, arg.ExternalID)
	row, err := q.createPatient(ctx, createPatientParams{
		ID:               id,
		PracticeCode:     arg.PracticeCode,
		Demographics:     sealed,
		MRNIndexA:        mrn.A,
		MRNIndexB:        mrn.B,
		ExternalIDIndexA: external.A,
		ExternalIDIndexB: external.B,
		ChartID:          chart,
		Active:           arg.Active,
		ECWPatientID:     sealedChart,
	})
	return q.openPatient(sealedPatient(row), err)
}

// UpdatePatientParams is a patient as it shall be. The caller has locked the row.
type UpdatePatientParams struct {
	PracticeCode string
	ID           uuid.UUID
	Demographics
	Active        bool
	MismatchSince *time.Time
}

// UpdatePatient changes a patient whom this transaction has locked. Another patient who has the MRN or the eCW id
// makes it an error of which [IsUniqueViolation] is true.
func (q *Queries) UpdatePatient(ctx context.Context, arg UpdatePatientParams) (Patient, error) {
	return q.writePatient(ctx, arg, nil)
}

// TakeOverDemographicsParams is what eCW shows of a patient whom an import has found.
type TakeOverDemographicsParams struct {
	ImportID     uuid.UUID
	PracticeCode string
	ID           uuid.UUID
	Demographics
}

// TakeOverDemographics links a patient whom this transaction has locked, and writes eCW's demographics over ours,
// and returns the patient. The caller has made sure that both are the same person. An import that a person asked for makes the patient
// active; the daily refresh archives nobody and unarchives nobody.
func (q *Queries) TakeOverDemographics(ctx context.Context, arg TakeOverDemographicsParams) (Patient, error) {
	return q.writePatient(ctx, UpdatePatientParams{
		PracticeCode: arg.PracticeCode,
		ID:           arg.ID,
		Demographics: arg.Demographics,
		Active:       true,
	}, &arg.ImportID)
}

func (q *Queries) writePatient(ctx context.Context, arg UpdatePatientParams, importID *uuid.UUID) (Patient, error) {
	sealed, err := q.sealDemographics(arg.PracticeCode, arg.ID, arg.Demographics)
	if err != nil {
		return Patient{}, err
	}
	chart, sealedChart, err := q.newChart(arg.PracticeCode, arg.ExternalID)
	if err != nil {
		return Patient{}, err
	}

	mrn, external := q.mrnIndex(arg.PracticeCode, arg.MRN), q.externalIDIndex(arg.PracticeCode, arg.ExternalID)
	return q.openPatient(q.updatePatient(ctx, updatePatientParams{
		Demographics:     sealed,
		MRNIndexA:        mrn.A,
		MRNIndexB:        mrn.B,
		ExternalIDIndexA: external.A,
		ExternalIDIndexB: external.B,
		ImportID:         importID,
		Active:           arg.Active,
		MismatchSince:    arg.MismatchSince,
		PracticeCode:     arg.PracticeCode,
		ID:               arg.ID,
		ECWPatientID:     sealedChart,
		NewChartID:       chart,
	}))
}

// GetPatientParams names a patient.
type GetPatientParams = getPatientParams

// GetPatient returns a patient.
func (q *Queries) GetPatient(ctx context.Context, arg GetPatientParams) (Patient, error) {
	return q.openPatient(q.getPatient(ctx, arg))
}

// LockPatientParams names a patient.
type LockPatientParams = lockPatientParams

// LockPatient returns a patient. Until this transaction ends, no other one changes it.
func (q *Queries) LockPatient(ctx context.Context, arg LockPatientParams) (Patient, error) {
	return q.openPatient(q.lockPatient(ctx, arg))
}

// FindPatientByMRNParams names a patient by the practice's own number.
type FindPatientByMRNParams struct {
	PracticeCode string
	MRN          string
}

// FindPatientByMRN returns the patient with an MRN.
func (q *Queries) FindPatientByMRN(ctx context.Context, arg FindPatientByMRNParams) (Patient, error) {
	index := q.mrnIndex(arg.PracticeCode, arg.MRN)
	return q.openPatient(q.findPatientByMRN(ctx, findPatientByMRNParams{
		PracticeCode: arg.PracticeCode,
		MRNIndexA:    index.A,
		MRNIndexB:    index.B,
	}))
}

// FindLinkedPatientParams names a patient by the id in eCW.
type FindLinkedPatientParams struct {
	PracticeCode string
	ExternalID   *string
}

// FindLinkedPatient returns the patient who is linked to an id of eCW.
func (q *Queries) FindLinkedPatient(ctx context.Context, arg FindLinkedPatientParams) (Patient, error) {
	index := q.externalIDIndex(arg.PracticeCode, arg.ExternalID)
	return q.openPatient(q.findLinkedPatient(ctx, findLinkedPatientParams{
		PracticeCode:     arg.PracticeCode,
		ExternalIDIndexA: index.A,
		ExternalIDIndexB: index.B,
	}))
}

// SetArchivedParams says whether a patient shall be archived.
type SetArchivedParams = setArchivedParams

// SetArchived archives a patient, or takes that back. ArchivedAt keeps the first moment, and a patient who is in
// that state already is not changed.
func (q *Queries) SetArchived(ctx context.Context, arg SetArchivedParams) (Patient, error) {
	return q.openPatient(q.setArchived(ctx, arg))
}
