-- name: ListPendingObservations :many
-- Lists the observations that need a workflow and seem to have none: the database shows no step for the given
-- time, because no workflow was started or it stopped half-way. The queue is left out, since its own calls
-- start it, and so are readings of archived patients, for which nothing was done yet. The oldest comes first, and only those after the given one are listed.
WITH since AS (
    SELECT now() - sqlc.arg(grace)::float8 * interval '1 second' AS at
)
SELECT id, created_at
FROM (
    SELECT o.id, o.created_at
    FROM observations o
    JOIN patients p ON p.id = o.patient_id
    CROSS JOIN since
    WHERE o.practice_code = @practice_code
      AND o.transformed_at IS NULL
      AND p.archived_at IS NULL
      AND o.created_at < since.at
      AND NOT EXISTS (
          SELECT
          FROM transmissions t
          WHERE t.observation_id = o.id
      )
    UNION ALL
    SELECT t.observation_id, t.created_at
    FROM transmissions t, since
    WHERE t.practice_code = @practice_code
      AND t.updated_at < since.at
      AND t.held_at IS NULL
      AND (t.status IN ('pending', 'processing') OR (t.status = 'failed' AND t.next_retry_at IS NOT NULL))
      AND (t.next_retry_at IS NULL OR t.next_retry_at < since.at)
      AND NOT EXISTS (
          SELECT
          FROM ecw_places p
          WHERE p.id = t.id
            AND p.expires_at > now()
      )
) pending
WHERE (created_at, id) > (@after_created_at::timestamptz, @after_id::uuid)
ORDER BY created_at, id
LIMIT @batch;

-- name: ListOutcomes :many
-- Lists where the newest transmission of each observation stands. An observation without a transmission has
-- no row. A transmission that failed and is due is about to be delivered again.
SELECT DISTINCT ON (t.observation_id)
    t.observation_id,
    t.status,
    t.next_retry_at,
    t.error_message,
    (o.transformed_at IS NOT NULL)::boolean AS transformed,
    coalesce(t.next_retry_at < now(), false)::boolean AS due
FROM transmissions t
JOIN observations o ON o.id = t.observation_id
WHERE t.practice_code = @practice_code
  AND t.observation_id = ANY(@observation_ids::uuid[])
ORDER BY t.observation_id, t.created_at DESC, t.id DESC;

-- name: OpenElsewhere :many
-- Counts the transmissions under way for practices other than the given one.
SELECT practice_code, count(*) AS open
FROM transmissions
WHERE (status IN ('pending', 'processing') OR (status = 'failed' AND next_retry_at IS NOT NULL))
  AND practice_code <> @practice_code
GROUP BY practice_code
ORDER BY practice_code;
