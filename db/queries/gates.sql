-- name: CreateGate :exec
INSERT INTO ecw_gates (practice_code) VALUES (@practice_code) ON CONFLICT DO NOTHING;

-- name: GetGate :one
SELECT * FROM ecw_gates WHERE practice_code = @practice_code;

-- name: LockGate :one
-- Nobody else acts on the circuit, or changes it, until the transaction ends.
SELECT * FROM ecw_gates WHERE practice_code = @practice_code FOR UPDATE;

-- name: AllowRequest :one
-- Counts one request in this minute, if it may leave; otherwise says when to ask again. Who waited for the row while the
-- minute turned comes with a time of the last one: it counts in the new one, or what that has sent would be forgotten.
WITH clock AS (
    SELECT now()::timestamptz AS at, date_trunc('minute', now()) AS minute
), allowed AS (
    UPDATE ecw_gates u
    SET sent_minute = CASE WHEN u.sent_minute BETWEEN clock.minute AND clock.minute + interval '1 minute' THEN u.sent_minute ELSE clock.minute END,
        sent = CASE WHEN u.sent_minute BETWEEN clock.minute AND clock.minute + interval '1 minute' THEN u.sent + 1 ELSE 1 END
    FROM clock
    WHERE u.practice_code = @practice_code AND u.blocked_until <= clock.at
      AND (u.sent < @per_minute::integer OR u.sent_minute NOT BETWEEN clock.minute AND clock.minute + interval '1 minute')
    RETURNING u.practice_code
)
SELECT EXISTS (SELECT FROM allowed) AS allowed,
       (CASE WHEN g.blocked_until > clock.at THEN g.blocked_until ELSE clock.minute + interval '1 minute' END)::timestamptz AS ask_again_at,
       clock.at AS asked_at
FROM ecw_gates g, clock WHERE g.practice_code = @practice_code;

-- name: PauseRequests :exec
-- Nothing leaves for a while. Several 429s of one block add up to the block, not to several.
UPDATE ecw_gates
SET queue_delay = queue_delay + greatest(now() + sqlc.arg(pause)::float8 * interval '1 second' - greatest(blocked_until, now()), '0'),
    blocked_until = greatest(blocked_until, now() + sqlc.arg(pause)::float8 * interval '1 second')
WHERE practice_code = @practice_code;

-- name: TakeTurn :one
-- Hands out the next free place in the queue. Within the current minute a turn comes at once; in a later one the turns
-- are spread evenly. The place is a moment on the queue's clock, which stands still while eCW blocks us; comes_at is when
-- that is, as things stand.
WITH clock AS (
    SELECT greatest(now(), c.blocked_until) - c.queue_delay AS at, c.queue_minute, c.queue_used FROM ecw_gates c WHERE c.practice_code = @practice_code FOR UPDATE
), filling AS (
    SELECT at, greatest(queue_minute, date_trunc('minute', at)) AS minute,
           CASE WHEN queue_minute >= date_trunc('minute', at) THEN queue_used ELSE 0 END AS used
    FROM clock
), free AS (
    SELECT at, minute, used FROM filling WHERE used + @requests::integer <= @per_minute::integer
    UNION ALL
    SELECT at, minute + interval '1 minute', 0 FROM filling WHERE used + @requests::integer > @per_minute::integer
), turn AS (
    SELECT minute, used, CASE WHEN minute > at THEN minute + used * interval '1 minute' / @per_minute::integer ELSE at END AS place FROM free
)
UPDATE ecw_gates g
SET queue_minute = turn.minute, queue_used = turn.used + @requests::integer
FROM turn
WHERE g.practice_code = @practice_code
RETURNING turn.place::timestamptz AS place, (turn.place + g.queue_delay)::timestamptz AS comes_at, now()::timestamptz AS asked_at;

-- name: TurnComesAt :one
SELECT greatest(sqlc.arg(place)::timestamptz + queue_delay, blocked_until)::timestamptz AS comes_at, now()::timestamptz AS asked_at
FROM ecw_gates WHERE practice_code = @practice_code;

-- name: SetCircuit :exec
UPDATE ecw_gates
SET circuit = @circuit, reason = @reason, message = @message, failing = @failing, failing_since = @failing_since,
    opened_at = @opened_at, next_trial_at = @next_trial_at, trial = @trial
WHERE practice_code = @practice_code;

-- name: ForgetFailures :exec
-- eCW answered: what failed before was not the start of an outage.
UPDATE ecw_gates SET failing = '{}', failing_since = NULL
WHERE practice_code = @practice_code AND circuit = 'closed' AND failing <> '{}';

-- name: PlanTrial :exec
UPDATE ecw_gates SET next_trial_at = now() + sqlc.arg(wait)::float8 * interval '1 second'
WHERE practice_code = @practice_code AND circuit <> 'closed';

-- name: HoldTransmission :exec
-- Waits for the circuit to close. A delivery that had begun and was not sent is no attempt.
UPDATE transmissions
SET status = 'pending', held_at = coalesce(held_at, now()), next_retry_at = NULL, updated_at = now(),
    attempt_count = CASE WHEN status = 'processing' THEN attempt_count - 1 ELSE attempt_count END
WHERE id = @id;

-- name: QueueTransmission :exec
-- Waits for its turn within the request limit. A delivery that had begun and was not sent is no attempt.
UPDATE transmissions
SET status = 'pending', held_at = NULL, next_retry_at = @turn_comes_at::timestamptz, updated_at = now(),
    attempt_count = CASE WHEN status = 'processing' THEN attempt_count - 1 ELSE attempt_count END
WHERE id = @id;

-- name: ReleaseTransmission :exec
-- Waits for its turn now, and no longer for the circuit: unless it went on since it was seen to wait.
UPDATE transmissions SET status = 'pending', held_at = NULL, next_retry_at = @turn_comes_at::timestamptz, updated_at = now()
WHERE id = @id AND updated_at = @seen_at;

-- name: ListHeld :many
-- What a closed circuit releases: whatever waits for it, and what failed or was forbidden during the outage and waits for
-- its retry. First in, first out. What was forbidden is pending before and after its release: only updated_at tells. What
-- may have arrived gets the five minutes of the schedule's first wait, until eCW's searches show it.
SELECT id, observation_id, (first_attempted_at IS NOT NULL)::boolean AS attempted, updated_at FROM transmissions
WHERE practice_code = @practice_code
  AND (held_at IS NOT NULL OR ((status = 'failed' OR (error_class = 'permanent_credentials' AND updated_at <= @failing_until::timestamptz))
       AND (error_class <> 'unknown' OR last_attempted_at < now() - interval '5 minutes')
       AND next_retry_at > now() AND last_attempted_at BETWEEN @failing_since::timestamptz AND @failing_until::timestamptz))
ORDER BY created_at, id
LIMIT @batch;

-- name: ListTrials :many
-- Who might be let through next: the one that was left alone the longest.
SELECT id, observation_id FROM transmissions
WHERE practice_code = @practice_code
  AND (held_at IS NOT NULL OR ((status = 'failed' OR error_class = 'permanent_credentials') AND (error_class <> 'unknown' OR last_attempted_at < now() - interval '5 minutes') AND next_retry_at > now() AND last_attempted_at >= @failing_since::timestamptz))
ORDER BY updated_at, id
LIMIT @batch;

-- name: TouchTransmission :exec
UPDATE transmissions SET updated_at = now() WHERE id = @id;

-- name: CountHeld :one
SELECT count(*) FROM transmissions WHERE practice_code = @practice_code AND held_at IS NOT NULL;

-- name: LockTransmission :exec
-- Whoever locks a transmission and the gate does so in this order.
SELECT FROM transmissions WHERE id = @id FOR UPDATE;

-- name: UnsendAttempt :exec
-- A delivery that our own limit held back before anything was sent.
DELETE FROM transmission_attempts WHERE transmission_id = @transmission_id AND delivery = @delivery AND finished_at IS NULL;

-- name: ResetQueue :exec
-- The turns that were handed out before an outage were not used: who waited for it takes them anew.
UPDATE ecw_gates SET queue_minute = 'epoch', queue_used = 0 WHERE practice_code = @practice_code;
