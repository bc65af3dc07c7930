-- name: CreatePatient :one
-- Returns no row when another patient has the MRN or the eCW id. An error instead would stand in PostgreSQL's
-- log.
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
    zip,
    archived_at,
    mismatch_confirmed
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
    @zip,
    CASE WHEN NOT @active::boolean THEN now() END,
    @mismatch_confirmed
)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: GetPatient :one
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

-- name: LockPatient :one
-- Until this transaction ends, no other one changes the patient.
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND id = @id
FOR UPDATE;

-- name: FindPatientByMRN :one
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND mrn = @mrn;

-- name: FindLinkedPatient :one
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND external_id = @external_id;

-- name: UpdatePatient :one
UPDATE patients
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
    archived_at = CASE WHEN NOT @active::boolean THEN coalesce(archived_at, now()) END,
    mismatch_since = @mismatch_since,
    mismatch_confirmed = @mismatch_confirmed,
    updated_at = now()
WHERE practice_code = @practice_code
  AND id = @id
RETURNING *;

-- name: SetArchived :one
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
