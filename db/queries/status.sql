-- name: QueueFigures :one
-- Readings that no workflow has transformed yet wait like the pending ones.
SELECT ((SELECT count(*) FROM transmissions t WHERE t.practice_code = @practice_code AND t.status = 'pending')
     + (SELECT count(*) FROM observations o WHERE o.practice_code = @practice_code AND o.transformed_at IS NULL
          AND NOT EXISTS (SELECT FROM transmissions t WHERE t.observation_id = o.id)))::bigint AS pending,
       (SELECT count(*) FROM transmissions t WHERE t.practice_code = @practice_code AND t.status = 'processing') AS processing,
       (SELECT count(*) FROM transmissions t WHERE t.practice_code = @practice_code AND t.status = 'failed' AND t.next_retry_at IS NOT NULL) AS failed_awaiting_retry,
       -- What nobody seems to carry, judged as ListPendingObservations does.
       ((SELECT count(*) FROM observations o WHERE o.practice_code = @practice_code AND o.transformed_at IS NULL AND o.created_at < @stalled_before::timestamptz
          AND NOT EXISTS (SELECT FROM transmissions t WHERE t.observation_id = o.id))
     + (SELECT count(*) FROM transmissions t WHERE t.practice_code = @practice_code AND t.updated_at < @stalled_before::timestamptz AND t.held_at IS NULL
          AND (t.status IN ('pending', 'processing') OR (t.status = 'failed' AND t.next_retry_at IS NOT NULL))
          AND (t.next_retry_at IS NULL OR t.next_retry_at < @stalled_before::timestamptz)))::bigint AS stalled,
       (SELECT count(*) FROM transmissions t WHERE t.practice_code = @practice_code AND t.held_at IS NOT NULL) AS held;

-- name: DayFigures :one
-- Transmissions that ended since the given moment; a failed one that still has a retry to come has not ended.
SELECT count(*) FILTER (WHERE status = 'transmitted') AS transmitted,
       count(*) FILTER (WHERE status = 'failed' AND next_retry_at IS NULL) AS failed
FROM transmissions
WHERE practice_code = @practice_code AND status IN ('transmitted', 'failed') AND updated_at >= @since::timestamptz;

-- name: LastTransmitted :one
SELECT max(updated_at)::timestamptz AS at FROM transmissions WHERE practice_code = @practice_code AND status = 'transmitted' HAVING max(updated_at) IS NOT NULL;
