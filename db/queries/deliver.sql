-- The first delivery of a reading, when nothing stands in its way: one statement before the send, one after it.

-- name: getUndelivered :one
-- Loads an observation and its patient. known: something was done for it before. shut: nothing may leave for eCW now.
SELECT
    sqlc.embed(o),
    sqlc.embed(p),
    EXISTS (SELECT FROM transmissions t WHERE t.observation_id = o.id) AS known,
    EXISTS (
        SELECT FROM ecw_gates g
        WHERE g.practice_code = o.practice_code
          AND (g.circuit <> 'closed' OR g.blocked_until > now())
    ) AS shut
FROM observations o
JOIN patients p ON p.id = o.patient_id
WHERE o.practice_code = @practice_code
  AND o.id = @id;

-- name: beginDelivery :one
-- Opens the transmission of an observation for which nothing was done yet, stores its resource, and marks its first
-- delivery as sent. No row comes back, and nothing is sent, when the pass has lapsed, when a transmission exists, or when
-- the patient was linked to another chart, or turned out to be somebody else, while the delivery waited for its pass.
WITH place AS (
    UPDATE ecw_places
    SET expires_at = clock_timestamp() + sqlc.arg(lease)::float8 * interval '1 second'
    WHERE ecw_places.id = @id
      AND expires_at > clock_timestamp()
      AND EXISTS (
          SELECT
          FROM patients p
          WHERE p.id = @patient_id
            AND p.chart_id = @chart_id::uuid
            AND p.mismatch_since IS NULL
            AND p.archived_at IS NULL
      )
      AND NOT EXISTS (
          SELECT
          FROM transmissions t
          WHERE t.observation_id = @observation_id
      )
    RETURNING ecw_places.id
), opened AS (
    INSERT INTO transmissions (
        id, practice_code, observation_id, max_attempts, status, attempt_count, first_attempted_at, last_attempted_at
    )
    SELECT place.id, @practice_code, @observation_id, @max_attempts, 'processing', 1, now(), now()
    FROM place
    ON CONFLICT (observation_id) WHERE status <> 'failed' OR next_retry_at IS NOT NULL DO NOTHING
    RETURNING transmissions.id, transmissions.number
), transformed AS (
    UPDATE observations
    SET resource = @resource::bytea,
        plain_resource = NULL,
        resource_version = @resource_version,
        transformed_at = @transformed_at
    FROM opened
    WHERE observations.id = @observation_id
), chart AS (
    UPDATE patient_charts
    SET sent_to = true
    FROM opened
    WHERE patient_charts.id = @chart_id
      AND NOT patient_charts.sent_to
), attempt AS (
    INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at, sent_at, chart_id)
    SELECT opened.id, 1, 1, now(), @sent_at::timestamptz, @chart_id::uuid
    FROM opened
)
SELECT opened.number, now()::timestamptz AS began_at
FROM opened;

-- name: ResumeDelivery :one
-- Marks the first delivery of a transmission as sent that was called from the queue, where its place is kept. No row comes
-- back, and nothing is sent, when the place is not kept any more, when the transmission does not wait in the queue, or when
-- the patient's link is not what it was.
WITH place AS (
    UPDATE ecw_places
    SET expires_at = clock_timestamp() + sqlc.arg(lease)::float8 * interval '1 second'
    WHERE ecw_places.id = @id
      AND expires_at > clock_timestamp()
      AND EXISTS (
          SELECT
          FROM patients p
          WHERE p.id = @patient_id
            AND p.chart_id = @chart_id::uuid
            AND p.mismatch_since IS NULL
            AND p.archived_at IS NULL
      )
    RETURNING ecw_places.id
), resumed AS (
    UPDATE transmissions
    SET status = 'processing',
        attempt_count = 1,
        held_at = NULL,
        asked = false,
        first_attempted_at = now(),
        last_attempted_at = now(),
        updated_at = now()
    FROM place
    WHERE transmissions.id = place.id
      AND transmissions.observation_id = @observation_id
      AND transmissions.held_at IS NOT NULL
      AND transmissions.attempt_count = 0
    RETURNING transmissions.id
), chart AS (
    UPDATE patient_charts
    SET sent_to = true
    FROM resumed
    WHERE patient_charts.id = @chart_id
      AND NOT patient_charts.sent_to
), attempt AS (
    INSERT INTO transmission_attempts (transmission_id, delivery, number, started_at, sent_at, chart_id)
    SELECT resumed.id, 1, 1, now(), @sent_at::timestamptz, @chart_id::uuid
    FROM resumed
)
SELECT now()::timestamptz AS began_at
FROM resumed;

-- name: RecordDelivered :one
-- Records that eCW has acknowledged the first delivery, and frees its place: what Record does, where the circuit has
-- nothing to learn from it. No row comes back, and nothing is written, when it has, or when the transmission is not in
-- that delivery any more.
WITH settled AS (
    SELECT practice_code
    FROM ecw_gates
    WHERE practice_code = @practice_code
      AND circuit = 'closed'
      AND failing = '{}'
), delivered AS (
    UPDATE transmissions
    SET status = 'transmitted',
        http_status = @http_status,
        ecw_observation_id = @ecw_observation_id,
        chart_id = @chart_id,
        updated_at = now()
    FROM settled
    WHERE transmissions.id = @id
      AND transmissions.observation_id = @observation_id
      AND transmissions.status = 'processing'
      AND transmissions.attempt_count = 1
    RETURNING transmissions.id
), finished AS (
    UPDATE transmission_attempts a
    SET finished_at = greatest(a.started_at, @finished_at::timestamptz),
        http_status = @http_status,
        ecw_observation_id = @ecw_observation_id
    FROM delivered
    WHERE a.transmission_id = delivered.id
      AND a.delivery = 1
), answered AS (
    UPDATE ecw_gates g
    SET answered_at = clock_timestamp()
    FROM delivered
    WHERE g.practice_code = @practice_code
      AND g.answered_at < now() - interval '1 second'
    RETURNING g.practice_code
), freed AS ( -- after the gate, as everywhere: whoever holds its lock may be clearing this very place away
    DELETE FROM ecw_places
    WHERE ecw_places.id IN (SELECT delivered.id FROM delivered)
      AND (SELECT count(*) FROM answered) >= 0
)
SELECT EXISTS (SELECT FROM ecw_queue WHERE ecw_queue.practice_code = @practice_code) AS queued
FROM delivered;

-- name: TakePlaces :exec
INSERT INTO ecw_places (id, practice_code, kind, expires_at)
SELECT unnest(@ids::uuid[]), @practice_code, 'delivery', clock_timestamp() + sqlc.arg(lease)::float8 * interval '1 second';
