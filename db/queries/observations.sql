-- name: CreateObservation :one
-- Returns no row when the reading is stored already; FindReading finds it then.
INSERT INTO observations (id, practice_code, patient_id, observation_type, effective_at, device, measured)
VALUES (@id, @practice_code, @patient_id, @observation_type, @effective_at, @device, @measured)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: FindReading :one
SELECT
    sqlc.embed(observations),
    (measured = @measured)::boolean AS same_values
FROM observations
WHERE patient_id = @patient_id
  AND observation_type = @observation_type
  AND effective_at = @effective_at
  AND device = @device;

-- name: GetObservation :one
SELECT *
FROM observations
WHERE practice_code = @practice_code
  AND id = @id;

-- name: GetObservationWithPatient :one
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
