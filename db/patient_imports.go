package db

import (
	"context"
	"errors"
	"strconv"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/keyring"
)

// itemCell is the place of the id in eCW of an import's item, whose primary key has two parts.
func itemCell(practice string, importID uuid.UUID, ordinal int32) keyring.Cell {
	return keyring.Cell{
		Table:    "patient_import_items",
		Column:   "ecw_fhir_id",
		Practice: practice,
		Row:      importID.String() + "/" + strconv.Itoa(int(ordinal)),
	}
}

func (q *Queries) openItem(practice string, importID uuid.UUID, ordinal int32, sealed []byte) (string, error) {
	plain, err := q.ring().Open(itemCell(practice, importID, ordinal), sealed)
	return string(plain), err
}

// AddImportItemsParams are the patients of an import.
type AddImportItemsParams struct {
	PracticeCode string
	ImportID     uuid.UUID
	ECWFHIRIDs   []string
}

// AddImportItems adds patients to a new import. An id that is given twice counts once.
func (q *Queries) AddImportItems(ctx context.Context, arg AddImportItemsParams) error {
	return q.addItems(ctx, arg, 0)
}

// addItems adds items whose ordinals begin after a number.
func (q *Queries) addItems(ctx context.Context, arg AddImportItemsParams, after int32) error {
	items := addImportItemsParams{ImportID: arg.ImportID}
	seen := make(map[string]bool, len(arg.ECWFHIRIDs))
	for i, id := range arg.ECWFHIRIDs {
		if seen[id] {
			continue
		}
		seen[id] = true

		ordinal := after + int32(i) + 1
		sealed, err := q.ring().Seal(itemCell(arg.PracticeCode, arg.ImportID, ordinal), []byte(id))
		if err != nil {
			return err
		}
		items.Ordinals = append(items.Ordinals, ordinal)
		items.ECWFHIRIDs = append(items.ECWFHIRIDs, sealed)
	}
	return q.addImportItems(ctx, items)
}

// AddLinkedPatientsParams names an import.
type AddLinkedPatientsParams struct {
	PracticeCode string
	ImportID     uuid.UUID
}

// linkedTogether is how many patients the refresh adds with one statement.
const linkedTogether = 1_000

// AddLinkedPatients adds every patient who is linked to eCW and not archived, for the daily refresh. Those whose rows
// were changed or exchanged are left out, and unopened says of each which it is: others are refreshed all the same.
func (q *Queries) AddLinkedPatients(ctx context.Context, arg AddLinkedPatientsParams) (unopened []error, err error) {
	next := listLinkedParams{PracticeCode: arg.PracticeCode, Batch: linkedTogether}
	for added := int32(0); ; {
		rows, err := q.listLinked(ctx, next)
		if err != nil || len(rows) == 0 {
			return unopened, err
		}

		items := AddImportItemsParams{PracticeCode: arg.PracticeCode, ImportID: arg.ImportID}
		for _, row := range rows {
			d, err := q.openDemographics(arg.PracticeCode, row.ID, row.Demographics)
			if errors.Is(err, keyring.ErrCorrupt) {
				unopened = append(unopened, err)
				continue
			}
			if err != nil {
				return nil, err
			}
			items.ECWFHIRIDs = append(items.ECWFHIRIDs, *d.ExternalID) // the row has a chart
		}
		if err := q.addItems(ctx, items, added); err != nil {
			return nil, err
		}

		added += int32(len(rows))
		next.After = rows[len(rows)-1].ID
	}
}

// ListOpenImportItemsParams names items of an import.
type ListOpenImportItemsParams = listOpenImportItemsParams

// ListOpenImportItemsRow is an item of an import.
type ListOpenImportItemsRow struct {
	Ordinal   int32
	ECWFHIRID string
}

// ListOpenImportItems lists those of the items that are not done yet.
func (q *Queries) ListOpenImportItems(ctx context.Context, arg ListOpenImportItemsParams) ([]ListOpenImportItemsRow, error) {
	rows, err := q.listOpenImportItems(ctx, arg)
	if err != nil {
		return nil, err
	}
	items := make([]ListOpenImportItemsRow, len(rows))
	for i, row := range rows {
		id, err := q.openItem(row.PracticeCode, arg.ImportID, row.Ordinal, row.ECWFHIRID)
		if err != nil {
			return nil, err
		}
		items[i] = ListOpenImportItemsRow{Ordinal: row.Ordinal, ECWFHIRID: id}
	}
	return items, nil
}

// GetImportItemParams names an item of an import.
type GetImportItemParams = getImportItemParams

// GetImportItem returns the id in eCW of an item.
func (q *Queries) GetImportItem(ctx context.Context, arg GetImportItemParams) (ecwFHIRID string, err error) {
	row, err := q.getImportItem(ctx, arg)
	if err != nil {
		return "", err
	}
	return q.openItem(row.PracticeCode, arg.ImportID, arg.Ordinal, row.ECWFHIRID)
}

// ListImportErrorsRow is a patient who was not imported.
type ListImportErrorsRow struct {
	ECWFHIRID string
	Reason    string
}

// ListImportErrors lists the patients who were not imported, in the order of the request.
func (q *Queries) ListImportErrors(ctx context.Context, importID uuid.UUID) ([]ListImportErrorsRow, error) {
	rows, err := q.listImportErrors(ctx, importID)
	if err != nil {
		return nil, err
	}
	failures := make([]ListImportErrorsRow, len(rows))
	for i, row := range rows {
		id, err := q.openItem(row.PracticeCode, importID, row.Ordinal, row.ECWFHIRID)
		if err != nil {
			return nil, err
		}
		failures[i] = ListImportErrorsRow{ECWFHIRID: id, Reason: row.Reason}
	}
	return failures, nil
}

// ListImportedPatients lists the patients whom an import has linked or found linked, in the order of the request.
func (q *Queries) ListImportedPatients(ctx context.Context, importID uuid.UUID) ([]Patient, error) {
	rows, err := q.listImportedPatients(ctx, importID)
	if err != nil {
		return nil, err
	}
	patients := make([]Patient, len(rows))
	for i, row := range rows {
		if patients[i], err = q.openPatient(row, nil); err != nil {
			return nil, err
		}
	}
	return patients, nil
}

// LockLinkedPatient returns the patient who is linked to an id of eCW. Until this transaction ends, no other one
// changes the patient.
func (q *Queries) LockLinkedPatient(ctx context.Context, arg FindLinkedPatientParams) (Patient, error) {
	index := q.externalIDIndex(arg.PracticeCode, arg.ExternalID)
	return q.openPatient(q.lockLinkedPatient(ctx, lockLinkedPatientParams{
		PracticeCode:     arg.PracticeCode,
		ExternalIDIndexA: index.A,
		ExternalIDIndexB: index.B,
	}))
}

// LockPatientByMRN returns the patient with an MRN. Until this transaction ends, no other one changes the patient.
func (q *Queries) LockPatientByMRN(ctx context.Context, arg FindPatientByMRNParams) (Patient, error) {
	index := q.mrnIndex(arg.PracticeCode, arg.MRN)
	return q.openPatient(q.lockPatientByMRN(ctx, lockPatientByMRNParams{
		PracticeCode: arg.PracticeCode,
		MRNIndexA:    index.A,
		MRNIndexB:    index.B,
	}))
}

// ListLinkedIDsParams are ids of eCW.
type ListLinkedIDsParams struct {
	PracticeCode string
	ExternalIDs  []string
}

// ListLinkedIDs returns which of these eCW ids belong to a patient of ours, and to whom.
func (q *Queries) ListLinkedIDs(ctx context.Context, arg ListLinkedIDsParams) (map[string]uuid.UUID, error) {
	asked := listLinkedIDsParams{PracticeCode: arg.PracticeCode}
	byHash := make(map[string]string, len(arg.ExternalIDs))
	for _, id := range arg.ExternalIDs {
		index := q.externalIDIndex(arg.PracticeCode, &id)
		if index.A != nil {
			asked.ExternalIDIndexA = append(asked.ExternalIDIndexA, index.A)
			byHash[string(index.A)] = id
		}
		if index.B != nil {
			asked.ExternalIDIndexB = append(asked.ExternalIDIndexB, index.B)
			byHash[string(index.B)] = id
		}
	}

	rows, err := q.listLinkedIDs(ctx, asked)
	if err != nil {
		return nil, err
	}
	linked := make(map[string]uuid.UUID, len(rows))
	for _, row := range rows {
		for _, hash := range [][]byte{row.ExternalIDIndexA, row.ExternalIDIndexB} {
			if id, ok := byHash[string(hash)]; ok {
				linked[id] = row.ID
			}
		}
	}
	return linked, nil
}
