-- name: CreateObservation :one
-- Stores a reading, and with it the idempotency key of its request, if it has one (an empty key is none).
-- Returns no row when the reading is stored already, or when the practice has no patient with this id:
-- FindReading knows which. A key that is known already is a unique violation, which stores nothing.
WITH created AS (
    INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, posted_by)
    SELECT
        @id::uuid,
        @practice_code::text,
        patients.id,
        @observation_type::text,
        @effective_at::timestamptz,
        @device::text,
        @measured::jsonb,
        @posted_by::text
    FROM patients
    WHERE patients.practice_code = @practice_code
      AND patients.id = @patient_id
    ON CONFLICT DO NOTHING
    RETURNING *
), remembered AS (
    INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id)
    SELECT @practice_code, @key::text, @request_hash::bytea, created.id
    FROM created
    WHERE @key <> ''
)
SELECT *
FROM created;

-- name: CreateObservations :many
-- Stores many readings, whose columns are given as arrays, and returns the ids of those that are new;
-- FindReadings finds the others. Of two that are the same reading the first is stored. All are stored in the
-- order of their ids: of two requests with the same readings one waits for the other, and never each for the
-- other.
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured, posted_by)
SELECT
    sent.id,
    @practice_code,
    sent.patient_id,
    sent.observation_type,
    sent.effective_at,
    sent.device,
    sent.measured,
    @posted_by
FROM (
    SELECT
        generate_subscripts(@ids::uuid[], 1) AS place,
        unnest(@ids::uuid[]) AS id,
        unnest(@patient_ids::uuid[]) AS patient_id,
        unnest(@observation_types::text[]) AS observation_type,
        unnest(@effective_at::timestamptz[]) AS effective_at,
        unnest(@devices::text[]) AS device,
        unnest(@measured::jsonb[]) AS measured
) sent
ORDER BY sent.id, sent.place
ON CONFLICT DO NOTHING
RETURNING id;

-- name: FindReading :one
-- Finds the stored reading with this patient, type, time and device, whatever its values.
SELECT sqlc.embed(observations)
FROM observations
JOIN patients ON patients.id = observations.patient_id
WHERE patients.practice_code = @practice_code
  AND patient_id = @patient_id
  AND observation_type = @observation_type
  AND effective_at = @effective_at
  AND device = @device;

-- name: FindReadings :many
-- Returns those that are stored of many readings, whatever their values. The columns are given as arrays, and
-- place counts from 1. With the LIMIT each is looked up in the index, whatever the planner believes about the
-- table.
SELECT
    sent.place::integer AS place,
    stored.id,
    stored.measured
FROM (
    SELECT
        generate_subscripts(@patient_ids::uuid[], 1) AS place,
        unnest(@patient_ids::uuid[]) AS patient_id,
        unnest(@observation_types::text[]) AS observation_type,
        unnest(@effective_at::timestamptz[]) AS effective_at,
        unnest(@devices::text[]) AS device
) sent
CROSS JOIN LATERAL (
    SELECT o.id, o.measured
    FROM observations o
    WHERE o.patient_id = sent.patient_id
      AND o.observation_type = sent.observation_type
      AND o.effective_at = sent.effective_at
      AND o.device = sent.device
    LIMIT 1
) stored;

-- name: GetObservation :one
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

-- name: SaveResource :exec
UPDATE observations
SET
    resource = @resource,
    resource_version = @resource_version,
    transformed_at = @transformed_at
WHERE id = @id;
