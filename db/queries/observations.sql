-- name: createObservation :one
-- Stores a reading, and with it the idempotency key of its request, if it has one (null is none). Returns no row
-- when the reading is stored already, or when the practice has no patient with this id: GetObservation knows
-- which. A key that is known already is a unique violation, which stores nothing.
WITH created AS (
    INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, reading, posted_by)
    SELECT
        @id::uuid,
        @practice_code::text,
        patients.id,
        @observation_type::text,
        @effective_at::timestamptz,
        @reading::bytea,
        @posted_by::text
    FROM patients
    WHERE patients.practice_code = @practice_code
      AND patients.id = @patient_id
    ON CONFLICT DO NOTHING
    RETURNING id, effective_at, created_at
), remembered AS (
    INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id)
    SELECT @practice_code, @key::bytea, @request_hash::bytea, created.id
    FROM created
    WHERE @key IS NOT NULL
)
SELECT effective_at, created_at
FROM created;

-- name: createObservations :many
-- Stores many readings, whose columns are given as arrays, and returns the ids of those that are new;
-- FindReadings finds the others. Of two that are the same reading the first is stored. All are stored in the
-- order of their ids: of two requests with the same readings one waits for the other, and never each for the
-- other.
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, reading, posted_by)
SELECT
    sent.id,
    @practice_code,
    sent.patient_id,
    sent.observation_type,
    sent.effective_at,
    sent.reading,
    @posted_by
FROM (
    SELECT
        generate_subscripts(@ids::uuid[], 1) AS place,
        unnest(@ids::uuid[]) AS id,
        unnest(@patient_ids::uuid[]) AS patient_id,
        unnest(@observation_types::text[]) AS observation_type,
        unnest(@effective_at::timestamptz[]) AS effective_at,
        unnest(@readings::bytea[]) AS reading
) sent
ORDER BY sent.id, sent.place
ON CONFLICT DO NOTHING
RETURNING id;

-- name: findReadings :many
-- Returns those that are stored of many readings. With the LIMIT each is looked up in the index, whatever the
-- planner believes about the table.
SELECT stored.id, stored.reading, stored.device, stored.measured
FROM unnest(@ids::uuid[]) AS sent (id)
CROSS JOIN LATERAL (
    SELECT o.id, o.reading, o.device, o.measured
    FROM observations o
    WHERE o.practice_code = @practice_code
      AND o.id = sent.id
    LIMIT 1
) stored;

-- name: getObservation :one
SELECT *
FROM observations
WHERE practice_code = @practice_code
  AND id = @id;

-- name: getObservationWithPatient :one
SELECT
    sqlc.embed(observations),
    sqlc.embed(patients)
FROM observations
JOIN patients ON patients.id = observations.patient_id
WHERE observations.practice_code = @practice_code
  AND observations.id = @id;

-- name: saveResource :exec
UPDATE observations
SET
    resource = @resource,
    plain_resource = NULL,
    resource_version = @resource_version,
    transformed_at = @transformed_at
WHERE practice_code = @practice_code
  AND id = @id;
