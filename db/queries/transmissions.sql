-- name: OpenTransmission :exec
-- Adds no row when the observation has a transmission that is under way or delivered; LatestTransmission
-- finds it then.
INSERT INTO transmissions (id, practice_code, observation_id, max_attempts)
VALUES (@id, @practice_code, @observation_id, @max_attempts)
ON CONFLICT (observation_id) WHERE status <> 'failed' OR next_retry_at IS NOT NULL DO NOTHING;

-- name: LatestTransmission :one
SELECT *
FROM transmissions
WHERE practice_code = @practice_code
  AND observation_id = @observation_id
ORDER BY created_at DESC, id DESC
LIMIT 1;

-- name: ListAttempts :many
SELECT *
FROM transmission_attempts
WHERE transmission_id = @transmission_id
ORDER BY delivery;

-- name: StartAttempt :execrows
-- May run twice: the second call finds its row. A workflow's time stands still while it opens a transmission, so it may
-- say a moment before the row's creation.
WITH started AS (
    UPDATE transmissions
    SET
        status = 'processing',
        attempt_count = @number,
        next_retry_at = NULL,
        held_at = NULL,
        asked = false,
        brought_forward = false,
        first_attempted_at = coalesce(first_attempted_at, greatest(@started_at::timestamptz, created_at)),
        last_attempted_at = greatest(@started_at::timestamptz, created_at),
        updated_at = now()
    WHERE id = @transmission_id
      AND observation_id = @observation_id
      AND status <> 'transmitted'
    RETURNING id, created_at
)
INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at)
SELECT id, @delivery, @number, greatest(@started_at::timestamptz, created_at)
FROM started
ON CONFLICT (transmission_id, delivery) DO UPDATE
SET number = excluded.number;

-- name: listChartAttempts :many
-- Lists the attempts of a transmission with their charts.
SELECT
    sqlc.embed(a),
    t.practice_code,
    c.ecw_patient_id
FROM transmission_attempts a
JOIN transmissions t ON t.id = a.transmission_id
LEFT JOIN patient_charts c ON c.id = a.chart_id
WHERE a.transmission_id = @transmission_id
ORDER BY a.delivery;

-- name: earlierSends :many
-- Lists the deliveries of an observation that may have reached eCW, each with its chart; the newest comes
-- first.
SELECT
    sqlc.embed(a),
    t.practice_code,
    c.ecw_patient_id
FROM transmission_attempts a
JOIN transmissions t ON t.id = a.transmission_id
LEFT JOIN patient_charts c ON c.id = a.chart_id
WHERE t.observation_id = @observation_id
  AND a.sent_at IS NOT NULL
ORDER BY a.sent_at DESC;

-- name: MarkSent :execrows
-- Records that the create is about to leave for eCW, and for which chart. No row is written, and nothing is sent, when an
-- earlier delivery was acknowledged meanwhile, or when the patient was linked to another chart, archived, or turned out to
-- be somebody else since the delivery was prepared.
WITH chart AS (
    UPDATE patient_charts c
    SET sent_to = true
    WHERE c.id = @chart_id
      AND NOT c.sent_to
)
UPDATE transmission_attempts a
SET
    sent_at = @sent_at::timestamptz,
    chart_id = @chart_id::uuid
FROM transmissions t
WHERE t.id = a.transmission_id
  AND a.transmission_id = @transmission_id
  AND a.delivery = @delivery
  AND t.observation_id = @observation_id
  AND t.status <> 'transmitted'
  AND EXISTS (
      SELECT
      FROM observations o
      JOIN patients p ON p.id = o.patient_id
      WHERE o.id = t.observation_id
        AND p.chart_id = @chart_id::uuid
        AND p.mismatch_since IS NULL
        AND p.archived_at IS NULL
  );

-- name: MarkFound :execrows
-- Records that an earlier delivery was found, and in which chart.
WITH chart AS (
    UPDATE patient_charts c
    SET sent_to = true
    WHERE c.id = @chart_id
      AND NOT c.sent_to
)
UPDATE transmission_attempts a
SET chart_id = @chart_id::uuid
FROM transmissions t
WHERE t.id = a.transmission_id
  AND a.transmission_id = @transmission_id
  AND a.delivery = @delivery
  AND t.observation_id = @observation_id;

-- name: LockOutcome :one
-- Locks a transmission whose delivery has ended, and reports whether the same outcome was recorded before. Delivery 0 is
-- none: the transmission ends between two deliveries.
SELECT
    o.patient_id,
    (
        t.status = 'transmitted'
        OR @delivery::integer = 0
            AND t.status = 'failed'
            AND t.next_retry_at IS NULL
            AND t.held_at IS NULL
            AND t.error_class = @error_class
        OR coalesce(
            a.finished_at = greatest(a.started_at, @finished_at::timestamptz)
                AND a.error_class = @error_class
                AND a.error_code = @error_code,
            false
        )
    )::boolean AS stands
FROM transmissions t
JOIN observations o ON o.id = t.observation_id
LEFT JOIN transmission_attempts a
    ON a.transmission_id = t.id
    AND a.delivery = @delivery::integer
WHERE t.id = @transmission_id
  AND t.observation_id = @observation_id
FOR UPDATE OF t;

-- name: FinishAttempt :execrows
UPDATE transmission_attempts a
SET
    finished_at = greatest(a.started_at, @finished_at::timestamptz),
    http_status = @http_status,
    ecw_observation_id = @ecw_observation_id,
    error_class = @error_class,
    error_code = @error_code,
    error_message = @error_message
FROM transmissions t
WHERE t.id = a.transmission_id
  AND a.transmission_id = @transmission_id
  AND a.delivery = @delivery
  AND t.observation_id = @observation_id;

-- name: UnsendAttempt :exec
-- Deletes a delivery that our own limits held back. Nothing was sent, although it may have been marked as
-- sent a moment before.
DELETE FROM transmission_attempts
WHERE transmission_id = @transmission_id
  AND delivery = @delivery
  AND finished_at IS NULL;

-- name: ForgetUnsent :exec
-- When a transmission ends between two deliveries: deletes those that began and were never sent.
DELETE FROM transmission_attempts a
USING transmissions t
WHERE t.id = a.transmission_id
  AND a.transmission_id = @transmission_id
  AND t.observation_id = @observation_id
  AND a.sent_at IS NULL
  AND a.finished_at IS NULL;

-- name: RecordOutcome :execrows
-- A transmission that was delivered stays as it is; only the same outcome may be recorded again.
UPDATE transmissions
SET
    status = @status,
    attempt_count = @attempt_count,
    next_retry_at = @next_retry_at,
    asked = false,
    brought_forward = false,
    held_at = CASE WHEN @held::boolean THEN now() END,
    http_status = @http_status,
    ecw_observation_id = @ecw_observation_id,
    chart_id = (
        SELECT a.chart_id
        FROM transmission_attempts a
        WHERE a.transmission_id = transmissions.id
          AND a.delivery = @delivery
          AND a.ecw_observation_id = @ecw_observation_id
    ),
    error_class = @error_class,
    error_message = @error_message,
    updated_at = now()
WHERE id = @id
  AND observation_id = @observation_id
  AND (status <> 'transmitted' OR ecw_observation_id = @ecw_observation_id);

-- name: getTransmission :one
SELECT
    sqlc.embed(t),
    o.patient_id,
    o.observation_type,
    p.demographics,
    c.ecw_patient_id
FROM transmissions t
JOIN observations o ON o.id = t.observation_id
JOIN patients p ON p.id = o.patient_id
LEFT JOIN patient_charts c ON c.id = t.chart_id
WHERE t.practice_code = @practice_code
  AND t.number = @number;
