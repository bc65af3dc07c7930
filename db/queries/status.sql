-- name: QueueFigures :one
-- Counts the unfinished readings. One that no workflow has transformed yet counts as pending. One that no
-- workflow seems to carry counts as stalled, by the rule of ListPendingObservations. archived counts those of
-- the pending ones that wait because their patient is archived. Finished transmissions are not read.
SELECT
    (sent.pending + waiting.total)::bigint AS pending,
    sent.processing,
    sent.failed_awaiting_retry,
    (sent.stalled + waiting.stalled)::bigint AS stalled,
    sent.held,
    (archived.held + waiting.archived)::bigint AS archived
FROM (
    SELECT
        count(*) FILTER (WHERE t.status = 'pending') AS pending,
        count(*) FILTER (WHERE t.status = 'processing') AS processing,
        count(*) FILTER (WHERE t.status = 'failed') AS failed_awaiting_retry,
        count(*) FILTER (
            WHERE t.updated_at < now() - sqlc.arg(stalled_after)::float8 * interval '1 second'
              AND t.held_at IS NULL
              AND (
                  t.next_retry_at IS NULL
                  OR t.next_retry_at < now() - sqlc.arg(stalled_after)::float8 * interval '1 second'
              )
        ) AS stalled,
        count(*) FILTER (WHERE t.held_at IS NOT NULL) AS held
    FROM transmissions t
    WHERE t.practice_code = @practice_code
      AND (t.status IN ('pending', 'processing') OR (t.status = 'failed' AND t.next_retry_at IS NOT NULL))
) sent
CROSS JOIN (
    SELECT
        count(*) AS total,
        count(*) FILTER (
            WHERE o.created_at < now() - sqlc.arg(stalled_after)::float8 * interval '1 second'
              AND p.archived_at IS NULL
        ) AS stalled,
        count(*) FILTER (WHERE p.archived_at IS NOT NULL) AS archived
    FROM observations o
    JOIN patients p ON p.id = o.patient_id
    WHERE o.practice_code = @practice_code
      AND o.transformed_at IS NULL
      AND NOT EXISTS (
          SELECT
          FROM transmissions t
          WHERE t.observation_id = o.id
      )
) waiting
CROSS JOIN (
    SELECT count(*) AS held
    FROM transmissions t
    JOIN observations o ON o.id = t.observation_id
    JOIN patients p ON p.id = o.patient_id
    WHERE t.practice_code = @practice_code
      AND t.held_at IS NOT NULL
      AND p.archived_at IS NOT NULL
) archived;

-- name: DayFigures :one
-- Counts the transmissions that ended since the given moment. A failed one with a retry to come has not
-- ended.
SELECT
    (
        SELECT count(*)
        FROM transmissions t
        WHERE t.practice_code = @practice_code
          AND t.status = 'transmitted'
          AND t.updated_at >= @since::timestamptz
    ) AS transmitted,
    (
        SELECT count(*)
        FROM transmissions t
        WHERE t.practice_code = @practice_code
          AND t.status = 'failed'
          AND t.updated_at >= @since::timestamptz
          AND t.next_retry_at IS NULL
    ) AS failed;

-- name: LastTransmitted :one
SELECT max(updated_at)::timestamptz AS at
FROM transmissions
WHERE practice_code = @practice_code
  AND status = 'transmitted'
HAVING max(updated_at) IS NOT NULL;
