-- name: CreatePatient :one
-- Returns no row when another patient has the MRN or the eCW id. An error instead would stand in PostgreSQL's
-- log.
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
    country,
    active,
    mismatch_confirmed
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
    @country,
    @active,
    @mismatch_confirmed
)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: GetPatient :one
SELECT *
FROM patients
WHERE practice_code = @practice_code
  AND id = @id;

-- name: ListActive :many
-- Lists which of these patients the practice has, and whether they are active.
SELECT id, active
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
  AND ecw_fhir_id = @ecw_fhir_id;

-- name: UpdatePatient :one
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
    active = @active,
    mismatch_since = @mismatch_since,
    mismatch_confirmed = @mismatch_confirmed,
    updated_at = now()
WHERE practice_code = @practice_code
  AND id = @id
RETURNING *;
