-- The prune deletes what is kept no longer, in batches: no statement reads or deletes more than its batch and
-- what hangs on that.

-- name: PruneIdempotencyKeys :execrows
-- An array, not a join: PostgreSQL would read the whole table for a join with a thousand rows.
DELETE FROM idempotency_keys k
WHERE k.practice_code = @practice_code
  AND k.key = ANY (ARRAY(
      SELECT oldest.key
      FROM idempotency_keys oldest
      WHERE oldest.practice_code = @practice_code
        AND oldest.created_at < @before
      ORDER BY oldest.created_at
      LIMIT @batch
  ));

-- name: PruneImportItems :execrows
DELETE FROM patient_import_items i
USING (
    SELECT items.import_id, items.ordinal
    FROM patient_import_items items
    JOIN patient_imports imports ON imports.id = items.import_id
    WHERE imports.practice_code = @practice_code
      AND imports.finished_at < @before
    LIMIT @batch
) old
WHERE i.import_id = old.import_id
  AND i.ordinal = old.ordinal;

-- name: PruneImports :execrows
-- Comes after PruneImportItems has left no items, so that no import takes thousands of them along at once.
DELETE FROM patient_imports m
USING (
    SELECT oldest.id
    FROM patient_imports oldest
    WHERE oldest.practice_code = @practice_code
      AND oldest.finished_at < @before
    ORDER BY oldest.finished_at
    LIMIT @batch
) old
WHERE m.id = old.id;

-- name: PruneAttempts :one
-- Looks at the next old attempts, and deletes those of readings that eCW has acknowledged. The others stay:
-- when such a reading is sent again, even years later, EarlierSends has to name every chart in which an
-- earlier delivery may have arrived. Returns the last one that was looked at, from which the next batch goes
-- on; no row comes back when there was none.
WITH looked AS MATERIALIZED (
    SELECT oldest.started_at, oldest.transmission_id, oldest.delivery
    FROM transmission_attempts oldest
    WHERE oldest.started_at < @before
      AND (oldest.started_at, oldest.transmission_id, oldest.delivery)
          > (@after_started_at::timestamptz, @after_transmission_id::uuid, @after_delivery::integer)
    ORDER BY oldest.started_at, oldest.transmission_id, oldest.delivery
    LIMIT @batch
), pruned AS (
    DELETE FROM transmission_attempts a
    WHERE a.started_at < @before
      AND a.transmission_id = ANY (ARRAY(
          SELECT t.id
          FROM looked l
          JOIN transmissions t ON t.id = l.transmission_id
          WHERE t.practice_code = @practice_code
            AND EXISTS (
                SELECT
                FROM transmissions acknowledged
                WHERE acknowledged.observation_id = t.observation_id
                  AND acknowledged.status = 'transmitted'
            )
      ))
    RETURNING a.delivery
)
SELECT
    (SELECT count(*) FROM looked) AS looked,
    (SELECT count(*) FROM pruned) AS pruned,
    last.started_at,
    last.transmission_id,
    last.delivery
FROM looked last
ORDER BY last.started_at DESC, last.transmission_id DESC, last.delivery DESC
LIMIT 1;

-- name: PruneReadings :many
-- Deletes readings with their transmissions, attempts and idempotency keys, oldest delivery first. Only
-- readings are found that eCW has acknowledged. They have no transmission under way, and get none any more:
-- transmissions_one_live sees to that. The patient keeps the time of the newest of them. One of them that
-- comes again looks new here, and by that time it is known that eCW has to be asked first.
WITH old AS MATERIALIZED (
    SELECT delivered.observation_id
    FROM transmissions delivered
    WHERE delivered.practice_code = @practice_code
      AND delivered.status = 'transmitted'
      AND delivered.updated_at < @before
    ORDER BY delivered.updated_at
    LIMIT @batch
), marked AS (
    UPDATE patients p
    SET readings_pruned_to = greatest(p.readings_pruned_to, newest.effective_at)
    FROM (
        SELECT o.patient_id, max(o.effective_at) AS effective_at
        FROM old
        JOIN observations o ON o.id = old.observation_id
        GROUP BY o.patient_id
    ) newest
    WHERE p.id = newest.patient_id
), keys AS (
    DELETE FROM idempotency_keys k
    USING old
    WHERE k.observation_id = old.observation_id
), sent AS ( -- and, by their foreign key, the attempts
    DELETE FROM transmissions t
    USING old
    WHERE t.observation_id = old.observation_id
)
DELETE FROM observations o
USING old
WHERE o.id = old.observation_id
RETURNING o.id, o.patient_id;

-- name: OldestIdempotencyKey :one
SELECT created_at
FROM idempotency_keys
WHERE practice_code = @practice_code
ORDER BY created_at
LIMIT 1;

-- name: OldestImport :one
SELECT created_at
FROM patient_imports
WHERE practice_code = @practice_code
ORDER BY created_at
LIMIT 1;

-- name: OldestAttempt :one
SELECT a.started_at
FROM transmission_attempts a
JOIN transmissions t ON t.id = a.transmission_id
WHERE t.practice_code = @practice_code
ORDER BY a.started_at
LIMIT 1;

-- name: OldestDelivery :one
SELECT updated_at
FROM transmissions
WHERE practice_code = @practice_code
  AND status = 'transmitted'
ORDER BY updated_at
LIMIT 1;

-- name: listCharts :many
-- Lists every chart that readings of the patient were sent to.
SELECT id, practice_code, ecw_patient_id
FROM patient_charts
WHERE patient_id = @patient_id
  AND sent_to
ORDER BY created_at, id;

-- name: PruneSignInFailures :execrows
-- Forgets failures after which nobody has tried again.
DELETE FROM sign_in_failures f
WHERE f.practice_code = @practice_code
  AND f.email_key = ANY (ARRAY(
      SELECT oldest.email_key
      FROM sign_in_failures oldest
      WHERE oldest.practice_code = @practice_code
        AND oldest.last_failed_at < @before
      ORDER BY oldest.last_failed_at
      LIMIT @batch
  ))
  AND f.last_failed_at < @before;

-- name: PruneSessions :execrows
-- Deletes sessions whose last refresh token has expired, with their tokens.
DELETE FROM sessions s
USING (
    SELECT oldest.id
    FROM sessions oldest
    JOIN users u ON u.id = oldest.user_id
    WHERE u.practice_code = @practice_code
      AND oldest.expires_at < @before
    ORDER BY oldest.expires_at
    LIMIT @batch
) old
WHERE s.id = old.id;
