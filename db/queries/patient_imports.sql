-- name: CreateImport :one
INSERT INTO patient_imports (practice_code, refresh)
VALUES (@practice_code, @refresh)
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
SELECT @import_id, row_number() OVER (ORDER BY id), external_id
FROM patients
WHERE practice_code = @practice_code
  AND archived_at IS NULL
  AND external_id IS NOT NULL;

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
  AND external_id = @external_id
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
    date_of_birth,
    gender,
    mrn,
    external_id,
    phone,
    email,
    address_line1,
    address_line2,
    city,
    state,
    zip
)
VALUES (
    @practice_code,
    @first_name,
    @last_name,
    @date_of_birth,
    @gender,
    @mrn,
    @external_id,
    @phone,
    @email,
    @address_line1,
    @address_line2,
    @city,
    @state,
    @zip
)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: TakeOverDemographics :execrows
-- Links the patient and writes eCW's demographics over ours. The caller has made sure that both are the same
-- person. An import that a person asked for makes the patient active; the daily refresh archives nobody and
-- unarchives nobody.
UPDATE patients p
SET
    first_name = @first_name,
    last_name = @last_name,
    date_of_birth = @date_of_birth,
    gender = @gender,
    mrn = @mrn,
    external_id = @external_id,
    phone = @phone,
    email = @email,
    address_line1 = @address_line1,
    address_line2 = @address_line2,
    city = @city,
    state = @state,
    zip = @zip,
    archived_at = CASE WHEN i.refresh THEN p.archived_at END,
    mismatch_since = NULL,
    mismatch_confirmed = NULL,
    updated_at = now()
FROM patient_imports i
WHERE i.id = @import_id
  AND p.practice_code = @practice_code
  AND p.id = @id;

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
SELECT external_id::text, id
FROM patients
WHERE practice_code = @practice_code
  AND external_id = ANY(@external_ids::text[]);

-- name: ListReleased :many
-- Lists the observations of the patient of an item for which nothing was done yet, unless the patient is
-- archived. The oldest comes first.
SELECT o.id
FROM patient_import_items items
JOIN patients p ON p.id = items.patient_id
JOIN observations o ON o.patient_id = p.id
WHERE items.import_id = @import_id
  AND items.ordinal = @ordinal
  AND p.archived_at IS NULL
  AND o.transformed_at IS NULL
  AND NOT EXISTS (
      SELECT
      FROM transmissions t
      WHERE t.observation_id = o.id
  )
ORDER BY o.created_at, o.id;
