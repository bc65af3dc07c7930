package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw"
	"github.com/vantrexia/vantrexia/fhir"
	"github.com/vantrexia/vantrexia/gate"
)

// PatientImport holds the activities of the patient import workflows.
type PatientImport struct {
	Store *db.Store
	EHR   *ecw.Client
	// Parallel is how many patients are imported at a time.
	Parallel int
}

// The outcomes of one patient's import.
const (
	outcomeImported = "imported"
	outcomeSkipped  = "skipped"
	outcomeError    = "error"
)

// ImportRef names an import of one practice.
type ImportRef struct {
	PracticeCode string
	ImportID     uuid.UUID
}

// ImportBatchQuery asks for the next items that are not done, by their number in the request.
type ImportBatchQuery struct {
	ImportRef
	After int
	Limit int
}

// ImportBatch is the numbers of the next items, and how many of them to import at a time.
type ImportBatch struct {
	Ordinals []int32
	Parallel int
}

// NextImportItems lists what is to be imported next. Items are known by number: eCW's ids stay in the database.
func (a *PatientImport) NextImportItems(ctx context.Context, q ImportBatchQuery) (ImportBatch, error) {
	ordinals, err := a.Store.OpenImportItems(ctx, db.OpenImportItemsParams{ImportID: q.ImportID, After: int32(q.After), Batch: int32(q.Limit)})
	if err != nil {
		return ImportBatch{}, fmt.Errorf("list import items: %w", err)
	}
	return ImportBatch{Ordinals: ordinals, Parallel: a.Parallel}, nil
}

// ImportItem names one patient of an import.
type ImportItem struct {
	ImportRef
	Ordinal int32
}

// LinkPatient reads one patient from eCW and creates or refreshes ours. It may run twice. What a person has to mend is a
// non-retryable error.
func (a *PatientImport) LinkPatient(ctx context.Context, item ImportItem) error {
	row, err := a.Store.GetImportItem(ctx, db.GetImportItemParams{ImportID: item.ImportID, Ordinal: item.Ordinal})
	if err != nil {
		return fmt.Errorf("load import item: %w", err)
	}
	resource, err := a.EHR.ReadPatient(gate.Importing(ctx), row.ECWFHIRID)
	if err != nil {
		return readFailed(err)
	}
	patient, err := fhir.ParsePatient(resource)
	if err != nil {
		return unusable("eCW's Patient resource cannot be used: " + err.Error())
	}
	params, err := importParams(item.PracticeCode, patient)
	if err != nil {
		return err
	}
	link := func(q *db.Queries) error { return link(ctx, q, item, params) }
	err = a.Store.InTx(ctx, link)
	if db.IsUniqueViolation(err) { // by an import of the same patient at the same moment, which is stored now
		err = a.Store.InTx(ctx, link)
	}
	if db.IsUniqueViolation(err) {
		return unusable("Another patient has this patient's MRN and is not the same in eCW: mend the MRN of one of them")
	}
	return err
}

func link(ctx context.Context, q *db.Queries, item ImportItem, params db.ImportPatientParams) error {
	adopt := db.AdoptPatientParams{PracticeCode: params.PracticeCode, MRN: params.MRN, ECWFHIRID: *params.ECWFHIRID}
	adopted, err := q.AdoptPatient(ctx, adopt)
	if err != nil {
		return fmt.Errorf("adopt patient: %w", err)
	}
	stored, err := q.ImportPatient(ctx, params)
	if err != nil {
		return fmt.Errorf("store patient: %w", err)
	}
	outcome := outcomeSkipped
	if stored.Created || adopted > 0 {
		outcome = outcomeImported
	}
	done := db.FinishImportItemParams{ImportID: item.ImportID, Ordinal: item.Ordinal, Outcome: &outcome, PatientID: &stored.ID}
	if err := q.FinishImportItem(ctx, done); err != nil {
		return fmt.Errorf("record import: %w", err)
	}
	return nil
}

// importParams checks that eCW says enough to tell one person from another.
func importParams(practice string, p fhir.Demographics) (db.ImportPatientParams, error) {
	birthDate, err := time.Parse(time.DateOnly, p.BirthDate)
	switch {
	case err != nil:
		return db.ImportPatientParams{}, unusable("The patient has no complete birth date in eCW: complete it there")
	case p.MRN == "":
		return db.ImportPatientParams{}, unusable("The patient has no MRN in eCW: add it there")
	case p.FirstName == "" || p.LastName == "":
		return db.ImportPatientParams{}, unusable("The patient has no full name in eCW: complete it there")
	}
	address := ""
	for i, line := range p.Address.Lines {
		if i > 0 {
			address += ", "
		}
		address += line
	}
	return db.ImportPatientParams{
		PracticeCode: practice, FirstName: p.FirstName, LastName: p.LastName, BirthDate: birthDate, MRN: p.MRN, ECWFHIRID: &p.ID,
		Phone: p.Phone, AddressLine: address, City: p.Address.City, State: p.Address.State, PostalCode: p.Address.PostalCode, Country: p.Address.Country,
	}, nil
}

// ImportFailure is why one patient was not imported. The reason holds no patient data.
type ImportFailure struct {
	ImportItem
	Reason string
}

// RecordImportError ends an item that could not be imported.
func (a *PatientImport) RecordImportError(ctx context.Context, f ImportFailure) error {
	outcome := outcomeError
	err := a.Store.FinishImportItem(ctx, db.FinishImportItemParams{ImportID: f.ImportID, Ordinal: f.Ordinal, Outcome: &outcome, Reason: f.Reason})
	if err != nil {
		return fmt.Errorf("record import error: %w", err)
	}
	return nil
}

// FinishImport marks the import as done.
func (a *PatientImport) FinishImport(ctx context.Context, ref ImportRef) error {
	// One that is not there was taken back by the API, which did not know that its workflow had started.
	if _, err := a.Store.FinishImport(ctx, ref.ImportID); err != nil && !db.IsNotFound(err) {
		return fmt.Errorf("finish import: %w", err)
	}
	return nil
}

// OpenRefresh makes an import of every patient that is linked already.
func (a *PatientImport) OpenRefresh(ctx context.Context, practice string) (ImportRef, error) {
	ref := ImportRef{PracticeCode: practice}
	err := a.Store.InTx(ctx, func(q *db.Queries) error {
		created, err := q.CreateImport(ctx, practice)
		if err != nil {
			return err
		}
		ref.ImportID = created.ID
		return q.AddLinkedPatients(ctx, db.AddLinkedPatientsParams{ImportID: created.ID, PracticeCode: practice})
	})
	if err != nil {
		return ref, fmt.Errorf("open refresh: %w", err)
	}
	return ref, nil
}

// readFailed turns an error of the eCW client into an activity error that Temporal retries when that may help. The wait
// for eCW's limit is the workflow's.
func readFailed(err error) error {
	var e *ecw.Error
	if !errors.As(err, &e) {
		return err
	}
	class, f := classify(err)
	if class == ecw.ClassRetryable {
		return retryable(class, f)
	}
	return failure(class, f)
}

func unusable(message string) error {
	return failure(ecw.ClassPermanentData, Failure{Code: "invalid_patient", Message: message})
}
