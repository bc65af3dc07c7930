-- name: CreateImport :one
INSERT INTO patient_imports (practice_code, refresh)
VALUES (@practice_code, @refresh)
RETURNING *;

-- name: addImportItems :exec
INSERT INTO patient_import_items (import_id, ordinal, ecw_fhir_id)
SELECT @import_id, unnest(@ordinals::integer[]), unnest(@ecw_fhir_ids::bytea[]);

-- name: listLinked :many
-- Lists the patients who are linked to eCW and not archived, in batches.
SELECT id, demographics
FROM patients
WHERE practice_code = @practice_code
  AND archived_at IS NULL
  AND chart_id IS NOT NULL
  AND id > @after
ORDER BY id
LIMIT @batch;

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

-- name: listOpenImportItems :many
-- Lists those of the items that are not done yet.
SELECT m.practice_code, i.ordinal, i.ecw_fhir_id
FROM patient_import_items i
JOIN patient_imports m ON m.id = i.import_id
WHERE i.import_id = @import_id
  AND i.ordinal = ANY(@ordinals::integer[])
  AND i.outcome IS NULL
ORDER BY i.ordinal;

-- name: getImportItem :one
SELECT m.practice_code, i.ecw_fhir_id
FROM patient_import_items i
JOIN patient_imports m ON m.id = i.import_id
WHERE i.import_id = @import_id
  AND i.ordinal = @ordinal;

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

-- name: listImportedPatients :many
-- Lists the patients in the order of the request.
SELECT patients.*
FROM patient_import_items items
JOIN patients ON patients.id = items.patient_id
WHERE items.import_id = @import_id
  AND items.outcome IN ('imported', 'skipped')
ORDER BY items.ordinal;

-- name: listImportErrors :many
SELECT m.practice_code, i.ordinal, i.ecw_fhir_id, i.reason
FROM patient_import_items i
JOIN patient_imports m ON m.id = i.import_id
WHERE i.import_id = @import_id
  AND i.outcome = 'error'
ORDER BY i.ordinal;

-- name: lockLinkedPatient :one
-- Until this transaction ends, no other one changes the patient.
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND (external_id_index_a = @external_id_index_a OR external_id_index_b = @external_id_index_b)
FOR UPDATE;

-- name: lockPatientByMRN :one
-- Until this transaction ends, no other one changes the patient.
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND (mrn_index_a = @mrn_index_a OR mrn_index_b = @mrn_index_b)
FOR UPDATE;

-- name: HoldForMismatch :execrows
-- Changes only a patient whose readings are not held yet: mismatch_since keeps the first moment.
UPDATE patients
SET
    mismatch_since = now(),
    updated_at = now()
WHERE practice_code = @practice_code
  AND id = @id
  AND mismatch_since IS NULL;

-- name: listLinkedIDs :many
-- Lists the patients of ours with these ids in eCW.
SELECT id, external_id_index_a, external_id_index_b
FROM patients
WHERE practice_code = @practice_code
  AND (
      external_id_index_a = ANY(@external_id_index_a::bytea[])
      OR external_id_index_b = ANY(@external_id_index_b::bytea[])
  );

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
