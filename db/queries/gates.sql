-- name: CreateGate :exec
INSERT INTO ecw_gates (practice_code)
VALUES (@practice_code)
ON CONFLICT DO NOTHING;

-- name: GetGate :one
SELECT *
FROM ecw_gates
WHERE practice_code = @practice_code;

-- name: LockGate :one
-- Until this transaction ends, no other one lets a request through or changes the circuit.
SELECT *
FROM ecw_gates
WHERE practice_code = @practice_code
FOR UPDATE;

-- name: Clock :one
-- Returns PostgreSQL's time, on which all processes agree. Ask for it after the gate is locked: now() would
-- be the start of the transaction.
SELECT clock_timestamp()::timestamptz AS now;

-- name: SpendRequests :exec
UPDATE ecw_gates
SET bucket_full_at = @bucket_full_at::timestamptz
WHERE practice_code = @practice_code;

-- name: SpendAsked :exec
UPDATE ecw_gates
SET asked_full_at = @asked_full_at::timestamptz
WHERE practice_code = @practice_code;

-- name: LookAtAsked :one
SELECT asked_full_at, clock_timestamp()::timestamptz AS now
FROM ecw_gates
WHERE practice_code = @practice_code;

-- name: PauseRequests :exec
-- Adds the row where a restored database has none: the pause must not be lost.
INSERT INTO ecw_gates AS g (practice_code, blocked_until)
VALUES (@practice_code, now() + sqlc.arg(pause)::float8 * interval '1 second')
ON CONFLICT (practice_code) DO UPDATE
SET blocked_until = greatest(g.blocked_until, excluded.blocked_until);

-- name: ReservePlace :exec
UPDATE ecw_gates
SET reserved_until = clock_timestamp() + sqlc.arg(wait)::float8 * interval '1 second'
WHERE practice_code = @practice_code;

-- name: SettleRequest :exec
-- Adapts the number of places to how eCW bore a request. An overload halves it once for all requests that
-- were under way together. Most requests change nothing, and then nothing is written.
UPDATE ecw_gates
SET
    parallel = CASE
        WHEN @overloaded::boolean AND @began_at::timestamptz > reduced_at THEN greatest(1, least(parallel, @most::float8) / 2)
        WHEN @prompt::boolean THEN least(@most::float8, parallel + 1 / parallel)
        ELSE parallel
    END,
    reduced_at = CASE
        WHEN @overloaded::boolean AND @began_at::timestamptz > reduced_at THEN clock_timestamp()
        ELSE reduced_at
    END
WHERE practice_code = @practice_code
  AND (
      @overloaded::boolean AND @began_at::timestamptz > reduced_at
      OR @prompt::boolean AND parallel < @most::float8
  );

-- name: SinceAnswered :one
SELECT extract(epoch FROM clock_timestamp() - answered_at)::float8 AS seconds
FROM ecw_gates
WHERE practice_code = @practice_code;

-- name: CountPlaces :one
-- Counts the places that are taken, without the one of the given id.
SELECT
    count(*) AS total,
    count(*) FILTER (WHERE kind = 'import') AS imports,
    count(*) FILTER (WHERE kind <> 'delivery') AS singles
FROM ecw_places
WHERE practice_code = @practice_code
  AND expires_at > clock_timestamp()
  AND id <> @id;

-- name: HoldsPlace :one
SELECT EXISTS (
    SELECT
    FROM ecw_places
    WHERE id = @id
      AND expires_at > clock_timestamp()
);

-- name: TakePlace :exec
INSERT INTO ecw_places (id, practice_code, kind, expires_at)
VALUES (@id, @practice_code, @kind, clock_timestamp() + sqlc.arg(lease)::float8 * interval '1 second')
ON CONFLICT (id) DO UPDATE
SET expires_at = excluded.expires_at;

-- name: ClearPlaces :exec
-- Deletes the places of processes that died.
DELETE FROM ecw_places
WHERE practice_code = @practice_code
  AND expires_at < clock_timestamp();

-- name: LeavePlace :execrows
DELETE FROM ecw_places
WHERE id = @id;

-- name: QueueIsEmpty :one
SELECT NOT EXISTS (
    SELECT
    FROM ecw_queue
    WHERE practice_code = @practice_code
);

-- name: GoesFirst :one
-- Reports whether no other transmission in the queue comes before this one, in the order of ListNext.
-- Transmissions that a person asked for and all others are two parts of the index, so each has a condition of
-- its own: one OR over both would read the whole queue to find its head.
SELECT (
    NOT EXISTS (
        SELECT
        FROM ecw_queue q
        WHERE q.practice_code = @practice_code
          AND q.asked
          AND q.id <> t.id
          AND (NOT t.asked OR (q.created_at, q.id) < (t.created_at, t.id))
    )
    AND (t.asked OR NOT EXISTS (
        SELECT
        FROM ecw_queue q
        WHERE q.practice_code = @practice_code
          AND NOT q.asked
          AND (q.created_at, q.id) < (t.created_at, t.id)
    ))
)::boolean AS goes_first
FROM transmissions t
WHERE t.id = @id;

-- name: ListNext :many
-- Lists the head of the queue. Transmissions that a person asked for come first, then the oldest.
SELECT id, observation_id
FROM ecw_queue
WHERE practice_code = @practice_code
ORDER BY asked DESC, created_at, id
LIMIT @batch;

-- name: HoldTransmission :one
-- Puts a transmission into the queue. One that was brought forward goes back to the moment that the schedule
-- gave it, unless a person asked for it. A delivery that had begun and was not sent is no attempt, so its
-- number is free again. No row comes back when there is nothing to hold: another writer has delivered or
-- ended it, or the database does not know it.
UPDATE transmissions
SET
    status = CASE WHEN next_retry_at > now() AND NOT @asked::boolean THEN status ELSE 'pending' END,
    held_at = CASE WHEN next_retry_at > now() AND NOT @asked::boolean THEN NULL ELSE coalesce(held_at, now()) END,
    next_retry_at = CASE WHEN next_retry_at > now() AND NOT @asked::boolean THEN next_retry_at END,
    asked = @asked::boolean OR asked,
    brought_forward = false,
    attempt_count = CASE WHEN status = 'processing' THEN attempt_count - 1 ELSE attempt_count END,
    updated_at = now()
WHERE id = @id
  AND observation_id = @observation_id
  AND (status IN ('pending', 'processing') OR (status = 'failed' AND next_retry_at IS NOT NULL))
RETURNING (held_at IS NOT NULL)::boolean AS held;

-- name: SetCircuit :exec
UPDATE ecw_gates
SET
    circuit = @circuit,
    reason = @reason,
    message = @message,
    failing = @failing,
    failing_since = @failing_since,
    opened_at = @opened_at,
    next_trial_at = @next_trial_at,
    trial = @trial
WHERE practice_code = @practice_code;

-- name: NoteAnswer :exec
-- eCW has answered a delivery. Written once a second at most.
UPDATE ecw_gates
SET answered_at = clock_timestamp()
WHERE practice_code = @practice_code
  AND answered_at < now() - interval '1 second';

-- name: StartSlowly :exec
-- After an outage one request is under way at first.
UPDATE ecw_gates
SET
    parallel = 1,
    reduced_at = clock_timestamp()
WHERE practice_code = @practice_code;

-- name: BringForward :exec
-- Puts the deliveries that failed or were forbidden in an outage into the queue, before their retry. One that
-- may have arrived waits until the schedule's first wait is over: eCW's searches may show it only then. Two
-- callers may do this at once, so they lock the rows in the same order.
UPDATE transmissions
SET brought_forward = true
WHERE id IN (
    SELECT t.id
    FROM transmissions t
    WHERE t.practice_code = @practice_code
      AND t.next_retry_at > now()
      AND t.last_attempted_at >= @failing_since::timestamptz
      AND (t.status = 'failed' OR t.error_class = 'permanent_credentials')
      AND (t.error_class <> 'unknown' OR t.updated_at < now() - sqlc.arg(first_wait)::float8 * interval '1 second')
      AND NOT t.brought_forward
    ORDER BY t.id
    FOR UPDATE
);

-- name: PlanTrial :exec
UPDATE ecw_gates
SET next_trial_at = now() + sqlc.arg(wait)::float8 * interval '1 second'
WHERE practice_code = @practice_code
  AND circuit <> 'closed';

-- name: ListTrials :many
-- Lists the candidates for the next trial; the one that was left alone the longest comes first. The condition
-- on the status leaves nothing out: it is the predicate of the index transmissions_unfinished, and without it
-- PostgreSQL would read the whole log.
SELECT t.id, t.observation_id
FROM transmissions t
WHERE t.practice_code = @practice_code
  AND (t.status IN ('pending', 'processing') OR (t.status = 'failed' AND t.next_retry_at IS NOT NULL))
  AND NOT EXISTS (
      SELECT
      FROM observations o
      JOIN patients p ON p.id = o.patient_id
      WHERE o.id = t.observation_id
        AND (p.archived_at IS NOT NULL OR p.mismatch_since IS NOT NULL)
  )
  AND (
      t.held_at IS NOT NULL
      OR t.next_retry_at > now()
      AND t.last_attempted_at >= @failing_since::timestamptz
      AND (t.status = 'failed' OR t.error_class = 'permanent_credentials')
      AND (t.error_class <> 'unknown' OR t.updated_at < now() - sqlc.arg(first_wait)::float8 * interval '1 second')
  )
ORDER BY t.updated_at, t.id
LIMIT @batch;

-- name: TouchTransmission :exec
UPDATE transmissions
SET updated_at = now()
WHERE id = @id;

-- name: CountHeld :one
SELECT count(*)
FROM transmissions
WHERE practice_code = @practice_code
  AND held_at IS NOT NULL;

-- name: LockTransmission :execrows
-- A transaction that locks a transmission and the gate locks the transmission first. No row comes back when
-- there is nothing to deliver: another writer has delivered it, or the database does not know it as this
-- observation's.
SELECT
FROM transmissions
WHERE id = @id
  AND observation_id = @observation_id
  AND status <> 'transmitted'
FOR UPDATE;
