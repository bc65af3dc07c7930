-- name: createPatient :one
-- Stores a patient, and the chart if the patient is linked. Returns no row when another patient has the MRN or the eCW
-- id. An error instead would stand in PostgreSQL's log.
WITH created AS (
    INSERT INTO patients (
        id,
        practice_code,
        demographics,
        mrn_index_a,
        mrn_index_b,
        external_id_index_a,
        external_id_index_b,
        chart_id,
        archived_at
    )
    VALUES (
        @id,
        @practice_code,
        @demographics,
        @mrn_index_a,
        @mrn_index_b,
        @external_id_index_a,
        @external_id_index_b,
        @chart_id,
        CASE WHEN NOT @active::boolean THEN now() END
    )
    ON CONFLICT DO NOTHING
    RETURNING *
), chart AS (
    INSERT INTO patient_charts (
        id,
        practice_code,
        patient_id,
        ecw_patient_id,
        external_id_index_a,
        external_id_index_b
    )
    SELECT
        created.chart_id,
        created.practice_code,
        created.id,
        @ecw_patient_id,
        created.external_id_index_a,
        created.external_id_index_b
    FROM created
    WHERE created.chart_id IS NOT NULL
)
SELECT *
FROM created;

-- name: getPatient :one
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND id = @id;

-- name: ListKnown :many
-- Lists which of these patients the practice has.
SELECT id
FROM patients
WHERE practice_code = @practice_code
  AND id = ANY(@ids::uuid[]);

-- name: lockPatient :one
-- Until this transaction ends, no other one changes the patient.
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND id = @id
FOR UPDATE;

-- name: findPatientByMRN :one
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND (mrn_index_a = @mrn_index_a OR mrn_index_b = @mrn_index_b);

-- name: findLinkedPatient :one
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND (external_id_index_a = @external_id_index_a OR external_id_index_b = @external_id_index_b);

-- name: updatePatient :one
-- The caller has locked the patient, so nobody else makes the same chart. The daily refresh, for which an import is
-- named, archives nobody and unarchives nobody.
WITH known AS (
    SELECT c.id
    FROM patient_charts c
    WHERE c.patient_id = @id
      AND (c.external_id_index_a = @external_id_index_a OR c.external_id_index_b = @external_id_index_b)
), made AS (
    INSERT INTO patient_charts (
        id,
        practice_code,
        patient_id,
        ecw_patient_id,
        external_id_index_a,
        external_id_index_b
    )
    SELECT
        p.chart_id,
        @practice_code,
        @id,
        @ecw_patient_id,
        @external_id_index_a,
        @external_id_index_b
    FROM (SELECT sqlc.narg(new_chart_id)::uuid AS chart_id) p
    WHERE p.chart_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM known)
    RETURNING id
)
UPDATE patients
SET
    demographics = @demographics,
    mrn_index_a = @mrn_index_a,
    mrn_index_b = @mrn_index_b,
    external_id_index_a = @external_id_index_a,
    external_id_index_b = @external_id_index_b,
    chart_id = coalesce((SELECT known.id FROM known), (SELECT made.id FROM made)),
    archived_at = CASE
        WHEN (SELECT i.refresh FROM patient_imports i WHERE i.id = sqlc.narg(import_id)::uuid) THEN archived_at
        WHEN NOT @active::boolean THEN coalesce(archived_at, now())
    END,
    mismatch_since = @mismatch_since,
    updated_at = now()
WHERE patients.practice_code = @practice_code
  AND patients.id = @id
RETURNING *;

-- name: setArchived :one
-- Archives a patient, or takes that back. archived_at keeps the first moment, and a patient who is in that
-- state already is not changed.
UPDATE patients
SET
    archived_at = CASE WHEN @archived::boolean THEN coalesce(archived_at, now()) END,
    updated_at = CASE WHEN (archived_at IS NULL) = @archived::boolean THEN now() ELSE updated_at END
WHERE practice_code = @practice_code
  AND id = @id
RETURNING *;

-- name: WhyHeld :one
-- Returns why nothing is sent of an observation's patient: archived, or patient when eCW shows another person
-- under the patient's id. It is empty when nothing stands in the way.
SELECT coalesce((
    SELECT CASE
        WHEN p.archived_at IS NOT NULL THEN 'archived'
        WHEN p.mismatch_since IS NOT NULL THEN 'patient'
    END
    FROM observations o
    JOIN patients p ON p.id = o.patient_id
    WHERE o.id = @observation_id
), '')::text AS reason;

-- name: WithoutArchived :many
-- Returns those of the observations whose patient is not archived.
SELECT o.id
FROM observations o
JOIN patients p ON p.id = o.patient_id
WHERE o.id = ANY(@observation_ids::uuid[])
  AND p.archived_at IS NULL;

-- name: ListUnstarted :many
-- Lists the observations of a patient for which nothing was done yet: those that came while the patient was
-- archived. The oldest comes first.
SELECT o.id
FROM observations o
WHERE o.practice_code = @practice_code
  AND o.patient_id = @patient_id
  AND o.transformed_at IS NULL
  AND NOT EXISTS (
      SELECT
      FROM transmissions t
      WHERE t.observation_id = o.id
  )
ORDER BY o.created_at, o.id;

-- name: CountHeldReadings :many
-- Counts the readings of each patient that wait until the patient is unarchived: those for which nothing was
-- done yet, and those that wait in the queue. A patient without one has no row.
SELECT held.patient_id, count(*) AS held
FROM (
    SELECT o.patient_id
    FROM observations o
    WHERE o.practice_code = @practice_code
      AND o.patient_id = ANY(@patient_ids::uuid[])
      AND o.transformed_at IS NULL
      AND NOT EXISTS (
          SELECT
          FROM transmissions t
          WHERE t.observation_id = o.id
      )
    UNION ALL
    SELECT o.patient_id
    FROM transmissions t
    JOIN observations o ON o.id = t.observation_id
    WHERE t.practice_code = @practice_code
      AND t.held_at IS NOT NULL
      AND o.patient_id = ANY(@patient_ids::uuid[])
) held
GROUP BY held.patient_id;

-- name: listPatients :many
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND id = ANY(@ids::uuid[]);

-- name: listChanged :one
-- Lists the patients who were written at a moment or later, and the database's time, from which the next list may go
-- on. A patient is 24 bytes: the id, and updated_at in microseconds since 2000. After an import they are as many as
-- the practice has, and are read before each list for a minute; rows or arrays would take ten times as long.
SELECT
    now()::timestamptz AS at,
    coalesce(string_agg(uuid_send(id) || timestamptz_send(updated_at), ''::bytea), ''::bytea)::bytea AS written
FROM patients
WHERE practice_code = @practice_code
  AND updated_at >= @since::timestamptz;

-- name: listNames :many
SELECT
    id,
    demographics,
    (archived_at IS NOT NULL)::boolean AS archived,
    (mismatch_since IS NOT NULL)::boolean AS mismatched,
    created_at,
    updated_at
FROM patients
WHERE practice_code = @practice_code
  AND id = ANY(@ids::uuid[]);
