-- name: CreateImport :one
INSERT INTO patient_imports (practice_code)
VALUES (@practice_code)
RETURNING *;

-- name: AddImportItems :exec
-- An id that is given twice counts once.
INSERT INTO patient_import_items (import_id, ordinal, ecw_fhir_id)
SELECT @import_id, min(ordinal), ecw_fhir_id
FROM unnest(@ecw_fhir_ids::text[]) WITH ORDINALITY AS ids (ecw_fhir_id, ordinal)
GROUP BY ecw_fhir_id;

-- name: AddLinkedPatients :exec
-- Adds every patient who is linked to eCW, for the daily refresh.
INSERT INTO patient_import_items (import_id, ordinal, ecw_fhir_id)
SELECT @import_id, row_number() OVER (ORDER BY id), ecw_fhir_id
FROM patients
WHERE practice_code = @practice_code
  AND active
  AND ecw_fhir_id IS NOT NULL;

-- name: GetImport :one
SELECT *
FROM patient_imports
WHERE practice_code = @practice_code
  AND id = @id;

-- name: DeleteImport :exec
DELETE FROM patient_imports
WHERE id = @id;

-- name: OpenImportItems :many
SELECT ordinal
FROM patient_import_items
WHERE import_id = @import_id
  AND outcome IS NULL
  AND ordinal > @after
ORDER BY ordinal
LIMIT @batch;

-- name: CountOpenImportItems :one
SELECT count(*)
FROM patient_import_items
WHERE import_id = @import_id
  AND outcome IS NULL;

-- name: ListOpenImportItems :many
-- Lists those of the items that are not done yet.
SELECT ordinal, ecw_fhir_id
FROM patient_import_items
WHERE import_id = @import_id
  AND ordinal = ANY(@ordinals::integer[])
  AND outcome IS NULL
ORDER BY ordinal;

-- name: GetImportItem :one
SELECT *
FROM patient_import_items
WHERE import_id = @import_id
  AND ordinal = @ordinal;

-- name: FinishImportItem :exec
-- The first outcome stays: an activity that is repeated would find the patient that it added itself.
UPDATE patient_import_items
SET
    outcome = @outcome,
    patient_id = @patient_id,
    reason = @reason
WHERE import_id = @import_id
  AND ordinal = @ordinal
  AND outcome IS NULL;

-- name: FinishImport :one
-- Items without an outcome were lost with a workflow that a person ended. The first end of an import stays.
WITH lost AS (
    UPDATE patient_import_items
    SET
        outcome = 'error',
        reason = 'The import was interrupted: import this patient again'
    WHERE import_id = @id
      AND outcome IS NULL
)
UPDATE patient_imports
SET finished_at = coalesce(finished_at, now())
WHERE id = @id
RETURNING *;

-- name: CountImportItems :one
SELECT
    count(*) AS total,
    count(*) FILTER (WHERE outcome IS NOT NULL) AS done,
    count(*) FILTER (WHERE outcome = 'imported') AS imported,
    count(*) FILTER (WHERE outcome = 'skipped') AS skipped
FROM patient_import_items
WHERE import_id = @import_id;

-- name: ListImportedPatients :many
-- Lists the patients in the order of the request.
SELECT
    sqlc.embed(patients),
    items.outcome
FROM patient_import_items items
JOIN patients ON patients.id = items.patient_id
WHERE items.import_id = @import_id
  AND items.outcome IN ('imported', 'skipped')
ORDER BY items.ordinal;

-- name: ListImportErrors :many
SELECT ecw_fhir_id, reason
FROM patient_import_items
WHERE import_id = @import_id
  AND outcome = 'error'
ORDER BY ordinal;

-- name: LockLinkedPatient :one
-- Until this transaction ends, no other one changes the patient.
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND ecw_fhir_id = @ecw_fhir_id
FOR UPDATE;

-- name: LockPatientByMRN :one
-- Until this transaction ends, no other one changes the patient.
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND mrn = @mrn
FOR UPDATE;

-- name: AddLinkedPatient :one
-- Returns no row when another patient has the MRN or the eCW id by now.
INSERT INTO patients (
    practice_code,
    first_name,
    last_name,
    birth_date,
    mrn,
    ecw_fhir_id,
    phone,
    address_line,
    city,
    state,
    postal_code,
    country
)
VALUES (
    @practice_code,
    @first_name,
    @last_name,
    @birth_date,
    @mrn,
    @ecw_fhir_id,
    @phone,
    @address_line,
    @city,
    @state,
    @postal_code,
    @country
)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: TakeOverDemographics :execrows
-- Links the patient and writes eCW's demographics over ours. The caller has made sure that both are the same
-- person. A patient who was not linked before becomes active, as with every import; a linked one stays as
-- active as it was.
UPDATE patients
SET
    first_name = @first_name,
    last_name = @last_name,
    birth_date = @birth_date,
    mrn = @mrn,
    ecw_fhir_id = @ecw_fhir_id,
    phone = @phone,
    address_line = @address_line,
    city = @city,
    state = @state,
    postal_code = @postal_code,
    country = @country,
    active = active OR ecw_fhir_id IS NULL,
    mismatch_since = NULL,
    mismatch_confirmed = NULL,
    updated_at = now()
WHERE practice_code = @practice_code
  AND id = @id;

-- name: HoldForMismatch :execrows
-- Changes only a patient whose readings are not held yet: mismatch_since keeps the first moment.
UPDATE patients
SET
    mismatch_since = now(),
    updated_at = now()
WHERE practice_code = @practice_code
  AND id = @id
  AND mismatch_since IS NULL;

-- name: ListLinkedIDs :many
-- Lists which of these eCW ids belong to a patient of ours.
SELECT ecw_fhir_id::text, id
FROM patients
WHERE practice_code = @practice_code
  AND ecw_fhir_id = ANY(@ecw_fhir_ids::text[]);
