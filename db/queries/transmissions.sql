-- name: OpenTransmission :exec
-- Does nothing when the observation has a live or delivered transmission: LatestTransmission then names it.
INSERT INTO transmissions (practice_code, observation_id, max_attempts)
VALUES (@practice_code, @observation_id, @max_attempts)
ON CONFLICT (observation_id) WHERE status <> 'failed' OR next_retry_at IS NOT NULL DO NOTHING;

-- name: LatestTransmission :one
SELECT * FROM transmissions
WHERE practice_code = @practice_code AND observation_id = @observation_id
ORDER BY created_at DESC, id DESC
LIMIT 1;

-- name: ListAttempts :many
SELECT * FROM transmission_attempts WHERE transmission_id = @transmission_id ORDER BY delivery;

-- name: StartAttempt :exec
-- Idempotent: a repeated call finds its row.
WITH attempt AS (
    INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at)
    VALUES (@transmission_id, @delivery, @number, @started_at::timestamptz)
    ON CONFLICT (transmission_id, delivery) DO NOTHING
)
UPDATE transmissions
SET status = 'processing', attempt_count = @number, next_retry_at = NULL, held_at = NULL,
    first_attempted_at = coalesce(first_attempted_at, @started_at::timestamptz), last_attempted_at = @started_at::timestamptz, updated_at = now()
WHERE id = @transmission_id;

-- name: CountEarlierDeliveries :one
-- How often something may have been sent for this observation before this delivery, whatever became of it.
SELECT count(*)
FROM transmission_attempts a JOIN transmissions t ON t.id = a.transmission_id
WHERE t.observation_id = @observation_id
  AND (a.transmission_id, a.delivery) <> (@transmission_id::text, @delivery::integer);

-- name: FinishAttempt :exec
UPDATE transmission_attempts
SET finished_at = greatest(started_at, @finished_at::timestamptz), http_status = @http_status, ecw_observation_id = @ecw_observation_id,
    error_class = @error_class, error_code = @error_code, error_message = @error_message
WHERE transmission_id = @transmission_id AND delivery = @delivery;

-- name: RecordOutcome :exec
UPDATE transmissions
SET status = @status, attempt_count = @attempt_count, next_retry_at = @next_retry_at,
    held_at = CASE WHEN @held::boolean THEN now() END, http_status = @http_status, ecw_observation_id = @ecw_observation_id,
    error_class = @error_class, error_message = @error_message, updated_at = now()
WHERE id = @id;

-- name: GetTransmission :one
SELECT sqlc.embed(t), o.patient_id, o.observation_type, (p.first_name || ' ' || p.last_name)::text AS patient_name
FROM transmissions t JOIN observations o ON o.id = t.observation_id JOIN patients p ON p.id = o.patient_id
WHERE t.practice_code = @practice_code AND t.id = @id;

-- name: CountTransmissions :one
SELECT count(*)
FROM transmissions t JOIN observations o ON o.id = t.observation_id
WHERE t.practice_code = @practice_code
  AND (sqlc.narg(status)::text IS NULL OR t.status = sqlc.narg(status))
  AND (sqlc.narg(patient_id)::uuid IS NULL OR o.patient_id = sqlc.narg(patient_id))
  AND (sqlc.narg(observation_type)::text IS NULL OR o.observation_type = sqlc.narg(observation_type))
  AND (sqlc.narg(date_from)::timestamptz IS NULL OR t.created_at >= sqlc.narg(date_from))
  AND (sqlc.narg(date_to)::timestamptz IS NULL OR t.created_at < sqlc.narg(date_to));

-- name: ListTransmissions :many
-- ordering: created_at, last_attempted_at or next_retry_at, with - in front for descending.
SELECT sqlc.embed(t), o.patient_id, o.observation_type, (p.first_name || ' ' || p.last_name)::text AS patient_name
FROM transmissions t JOIN observations o ON o.id = t.observation_id JOIN patients p ON p.id = o.patient_id
WHERE t.practice_code = @practice_code
  AND (sqlc.narg(status)::text IS NULL OR t.status = sqlc.narg(status))
  AND (sqlc.narg(patient_id)::uuid IS NULL OR o.patient_id = sqlc.narg(patient_id))
  AND (sqlc.narg(observation_type)::text IS NULL OR o.observation_type = sqlc.narg(observation_type))
  AND (sqlc.narg(date_from)::timestamptz IS NULL OR t.created_at >= sqlc.narg(date_from))
  AND (sqlc.narg(date_to)::timestamptz IS NULL OR t.created_at < sqlc.narg(date_to))
ORDER BY CASE @ordering::text WHEN 'created_at' THEN t.created_at WHEN 'last_attempted_at' THEN t.last_attempted_at WHEN 'next_retry_at' THEN t.next_retry_at END ASC NULLS LAST,
         CASE @ordering::text WHEN '-created_at' THEN t.created_at WHEN '-last_attempted_at' THEN t.last_attempted_at WHEN '-next_retry_at' THEN t.next_retry_at END DESC NULLS LAST,
         t.id DESC
LIMIT @page_size OFFSET @page_offset;

-- name: CountPatientAttempts :one
SELECT count(*)
FROM transmission_attempts a JOIN transmissions t ON t.id = a.transmission_id JOIN observations o ON o.id = t.observation_id
WHERE t.practice_code = @practice_code AND o.patient_id = @patient_id;

-- name: ListPatientAttempts :many
-- Every push of a patient's readings, newest first.
SELECT sqlc.embed(a), t.observation_id, o.observation_type, o.effective_at, t.status, t.next_retry_at
FROM transmission_attempts a JOIN transmissions t ON t.id = a.transmission_id JOIN observations o ON o.id = t.observation_id
WHERE t.practice_code = @practice_code AND o.patient_id = @patient_id
ORDER BY a.started_at DESC, a.transmission_id DESC, a.delivery DESC
LIMIT @page_size OFFSET @page_offset;
