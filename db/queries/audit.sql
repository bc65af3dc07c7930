-- name: addAuditEvent :execrows
-- Adds no row when the clock of the process is minutes off: the sealer looks for new rows by their time, and a trail must
-- not be written into the past.
INSERT INTO audit_events (
    recorded_at, writer, sequence, practice_code, subject, role, token_id, address, action, resource_type, resource_ids,
    patient_ids, outcome, reason, code_before, code, key_id
)
SELECT
    @recorded_at, @writer, @sequence, @practice_code, @subject, @role, @token_id, @address, @action, @resource_type,
    @resource_ids::text[], @patient_ids::uuid[], @outcome, @reason, @code_before, @code, @key_id
WHERE @recorded_at::timestamptz BETWEEN clock_timestamp() - interval '5 minutes' AND clock_timestamp() + interval '5 minutes';

-- name: AddAuditMonths :one
-- Makes the partitions of this month and of those that follow.
SELECT audit_add_months(@ahead::integer);

-- name: DropAuditMonth :one
-- Drops the oldest month, if it may go, and returns its first day; no row comes back when none may.
SELECT dropped.month::timestamptz AS month
FROM (SELECT audit_drop_month(@keep_days::integer)::timestamp AT TIME ZONE 'UTC' AS month) dropped
WHERE dropped.month IS NOT NULL;

-- name: OldestAuditEvent :one
SELECT recorded_at
FROM audit_events
ORDER BY recorded_at
LIMIT 1;

-- name: LockAuditLog :one
-- Reports whether this transaction is now the only one that seals.
SELECT pg_try_advisory_xact_lock(hashtext('vantrexia audit log'))::boolean;

-- name: ListAuditWritersToSeal :many
-- Lists the writers that have rows after their last seal, of rows since a moment.
SELECT w.writer, w.newest, coalesce(s.last_sequence, 0)::bigint AS sealed
FROM (
    SELECT e.writer, max(e.sequence)::bigint AS newest
    FROM audit_events e
    WHERE e.recorded_at >= @since
    GROUP BY e.writer
) w
LEFT JOIN LATERAL (
    SELECT max(last_sequence) AS last_sequence
    FROM audit_seals
    WHERE audit_seals.writer = w.writer
) s ON true
WHERE w.newest > coalesce(s.last_sequence, 0)
ORDER BY w.writer;

-- name: ListAuditEventsToSeal :many
SELECT *
FROM audit_events
WHERE writer = @writer
  AND sequence > @sealed
ORDER BY sequence
LIMIT @batch;

-- name: AddAuditSeal :exec
INSERT INTO audit_seals (leaf, writer, first_sequence, last_sequence, recorded_from, recorded_to, digests)
VALUES (@leaf, @writer, @first_sequence, @last_sequence, @recorded_from, @recorded_to, @digests);

-- name: AddAuditHashes :exec
INSERT INTO audit_hashes (position, hash)
SELECT unnest(@positions::bigint[]), unnest(@hashes::bytea[]);

-- name: ListAuditHashes :many
SELECT position, hash
FROM audit_hashes
WHERE position = ANY(@positions::bigint[]);

-- name: ListAuditHashesFrom :many
SELECT position, hash
FROM audit_hashes
WHERE position >= @from_position
  AND position < @before_position
ORDER BY position;

-- name: AddAuditCheckpoint :exec
INSERT INTO audit_checkpoints (size, note, key_id)
VALUES (@size, @note, @key_id);

-- name: NewestAuditCheckpoint :one
SELECT *
FROM audit_checkpoints
ORDER BY size DESC
LIMIT 1;

-- name: ListAuditCheckpoints :many
SELECT *
FROM audit_checkpoints
WHERE size > @after
ORDER BY size
LIMIT @batch;

-- name: NewestAuditSeal :one
-- The time, which no seal covers, is not believed when it lies ahead: nothing would be sealed until then.
SELECT leaf, least(sealed_at, now())::timestamptz AS sealed_at
FROM audit_seals
ORDER BY leaf DESC
LIMIT 1;

-- name: ListAuditSeals :many
SELECT *
FROM audit_seals
WHERE leaf >= @from_leaf
ORDER BY leaf
LIMIT @batch;

-- name: ListAuditEventsOfWriter :many
-- Lists rows in the order of a writer's sequence, the writers one after the other.
SELECT *
FROM audit_events
WHERE (writer, sequence, recorded_at) > (@writer, @sequence::bigint, @recorded_at::timestamptz)
ORDER BY writer, sequence, recorded_at
LIMIT @batch;

-- name: ListAuditSealsOfWriter :many
-- Lists seals in the same order as ListAuditEventsOfWriter.
SELECT *
FROM audit_seals
WHERE (writer, last_sequence) > (@writer, @sequence::bigint)
ORDER BY writer, last_sequence
LIMIT @batch;

-- name: ListAuditPrunes :many
-- Lists the rows that say that months of the trail were pruned.
SELECT *
FROM audit_events
WHERE action = @action
  AND outcome = 'success';
