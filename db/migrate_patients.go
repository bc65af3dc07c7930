package db

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/keyring"
)

// sealPatients is migration 12: it seals what stands in clear in the columns that migration 11 found and migration
// 13 drops. All of it is one transaction, so it is done or not begun.
func sealPatients(keys *keyring.Keyring) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		m := &sealing{tx: tx, q: New(keyed{keys: keys})}
		for _, step := range []struct {
			table string
			seal  func(context.Context) (rows int, err error)
		}{
			{"patients", m.patients},
			{"patient_charts", m.charts},
			{"patient_import_items", m.importItems},
		} {
			m.after, m.afterOrdinal = uuid.Nil, 0
			for rows := sealedTogether; rows == sealedTogether; {
				var err error
				if rows, err = step.seal(ctx); err != nil {
					return fmt.Errorf("seal %s: %w", step.table, err)
				}
			}
		}
		return nil
	}
}

// sealedTogether is how many rows are sealed with one statement.
const sealedTogether = 1_000

// sealing seals batch after batch, in the order of the primary key.
type sealing struct {
	tx *sql.Tx
	q  *Queries // only its keys
	// The last row of the batch before.
	after        uuid.UUID
	afterOrdinal int32
}

// hashes are the columns of an index.
type hashes struct{ a, b [][]byte }

func (h *hashes) add(index keyring.Index) {
	h.a, h.b = append(h.a, index.A), append(h.b, index.B)
}

func (m *sealing) patients(ctx context.Context) (int, error) {
	rows, err := m.tx.QueryContext(ctx, `
SELECT id, practice_code, first_name, last_name, date_of_birth, gender, mrn, external_id, phone, email, address_line1,
    address_line2, city, state, zip, mismatch_confirmed
FROM patients
WHERE id > $1
ORDER BY id
LIMIT $2`, m.after, sealedTogether)
	if err != nil {
		return 0, err
	}
	defer rows.Close()

	var ids []uuid.UUID
	var sealed [][]byte
	var mrn, external hashes
	for rows.Next() {
		var id uuid.UUID
		var practice string
		var d Demographics
		err := rows.Scan(&id, &practice, &d.FirstName, &d.LastName, &d.DateOfBirth, &d.Gender, &d.MRN, &d.ExternalID, &d.Phone, &d.Email,
			&d.AddressLine1, &d.AddressLine2, &d.City, &d.State, &d.Zip, &d.MismatchConfirmed)
		if err != nil {
			return 0, err
		}
		text, err := m.q.sealDemographics(practice, id, d)
		if err != nil {
			return 0, err
		}
		ids, sealed, m.after = append(ids, id), append(sealed, text), id
		mrn.add(m.q.mrnIndex(practice, d.MRN))
		external.add(m.q.externalIDIndex(practice, d.ExternalID))
	}
	if err := rows.Err(); err != nil || len(ids) == 0 {
		return 0, err
	}

	_, err = m.tx.ExecContext(ctx, `
UPDATE patients p
SET demographics = made.demographics,
    mrn_index_a = made.mrn_a,
    mrn_index_b = made.mrn_b,
    external_id_index_a = made.external_a,
    external_id_index_b = made.external_b
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[])
    made (id, demographics, mrn_a, mrn_b, external_a, external_b)
WHERE p.id = made.id`, ids, sealed, mrn.a, mrn.b, external.a, external.b)
	return len(ids), err
}

func (m *sealing) charts(ctx context.Context) (int, error) {
	rows, err := m.tx.QueryContext(ctx, `
SELECT plain.id, p.practice_code, plain.ecw_patient_id
FROM plain_charts plain
JOIN patients p ON p.id = plain.patient_id
WHERE plain.id > $1
ORDER BY plain.id
LIMIT $2`, m.after, sealedTogether)
	if err != nil {
		return 0, err
	}
	defer rows.Close()

	var ids []uuid.UUID
	var sealed [][]byte
	var external hashes
	for rows.Next() {
		var id uuid.UUID
		var practice, ecwID string
		if err := rows.Scan(&id, &practice, &ecwID); err != nil {
			return 0, err
		}
		text, err := m.q.ring().Seal(chartCell(practice, id), []byte(ecwID))
		if err != nil {
			return 0, err
		}
		ids, sealed, m.after = append(ids, id), append(sealed, text), id
		external.add(m.q.externalIDIndex(practice, &ecwID))
	}
	if err := rows.Err(); err != nil || len(ids) == 0 {
		return 0, err
	}

	_, err = m.tx.ExecContext(ctx, `
INSERT INTO patient_charts (
    id, practice_code, patient_id, ecw_patient_id, external_id_index_a, external_id_index_b, sent_to
)
SELECT made.id, p.practice_code, p.id, made.sealed, made.external_a, made.external_b, plain.sent_to
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[]) made (id, sealed, external_a, external_b)
JOIN plain_charts plain ON plain.id = made.id
JOIN patients p ON p.id = plain.patient_id`, ids, sealed, external.a, external.b)
	return len(ids), err
}

func (m *sealing) importItems(ctx context.Context) (int, error) {
	rows, err := m.tx.QueryContext(ctx, `
SELECT m.practice_code, i.import_id, i.ordinal, i.ecw_fhir_id
FROM patient_import_items i
JOIN patient_imports m ON m.id = i.import_id
WHERE (i.import_id, i.ordinal) > ($1, $2)
ORDER BY i.import_id, i.ordinal
LIMIT $3`, m.after, m.afterOrdinal, sealedTogether)
	if err != nil {
		return 0, err
	}
	defer rows.Close()

	var imports []uuid.UUID
	var ordinals []int32
	var sealed [][]byte
	for rows.Next() {
		var practice, ecwID string
		var importID uuid.UUID
		var ordinal int32
		if err := rows.Scan(&practice, &importID, &ordinal, &ecwID); err != nil {
			return 0, err
		}
		text, err := m.q.ring().Seal(itemCell(practice, importID, ordinal), []byte(ecwID))
		if err != nil {
			return 0, err
		}
		imports, ordinals, sealed = append(imports, importID), append(ordinals, ordinal), append(sealed, text)
		m.after, m.afterOrdinal = importID, ordinal
	}
	if err := rows.Err(); err != nil || len(imports) == 0 {
		return 0, err
	}

	_, err = m.tx.ExecContext(ctx, `
UPDATE patient_import_items i
SET sealed_ecw_fhir_id = made.sealed
FROM unnest($1::uuid[], $2::integer[], $3::bytea[]) made (import_id, ordinal, sealed)
WHERE i.import_id = made.import_id
  AND i.ordinal = made.ordinal`, imports, ordinals, sealed)
	return len(imports), err
}
