-- name: createUser :one
-- Returns no row when somebody has the e-mail.
INSERT INTO users (
    id,
    practice_code,
    profile,
    email_index_a,
    email_index_b,
    role,
    password_hash,
    password_temporary_until
)
VALUES (
    @id,
    @practice_code,
    @profile,
    @email_index_a,
    @email_index_b,
    @role,
    @password_hash,
    now() + sqlc.narg(temporary_seconds)::float8 * interval '1 second'
)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: findUser :one
SELECT *
FROM users
WHERE practice_code = @practice_code
  AND (email_index_a = sqlc.narg(email_index_a) OR email_index_b = sqlc.narg(email_index_b));

-- name: listUsers :many
SELECT *
FROM users
WHERE practice_code = @practice_code;

-- name: getUser :one
SELECT *
FROM users
WHERE practice_code = @practice_code
  AND id = @id;

-- name: lockUser :one
SELECT *
FROM users
WHERE practice_code = @practice_code
  AND id = @id
FOR UPDATE;

-- name: lockUserAndAdmins :many
-- Locks the user, and all administrators who may sign in: of two who demote each other at the same moment,
-- the second waits, and then sees what the first has done.
SELECT *
FROM users
WHERE practice_code = @practice_code
  AND (id = @id OR role = 'admin' AND disabled_at IS NULL)
ORDER BY id
FOR UPDATE;

-- name: listLocks :many
-- Lists those of the e-mails that are locked.
SELECT email_key, locked_until::timestamptz AS locked_until
FROM sign_in_failures
WHERE practice_code = @practice_code
  AND email_key = ANY (@email_keys::bytea[])
  AND locked_until > now();

-- name: updateUser :exec
-- Writes what an administrator may change. disabled keeps the moment of an account that is disabled already.
UPDATE users
SET profile = @profile,
    email_index_a = @email_index_a,
    email_index_b = @email_index_b,
    role = @role,
    disabled_at = CASE WHEN sqlc.arg(disabled)::boolean THEN coalesce(disabled_at, now()) END,
    updated_at = now()
WHERE practice_code = @practice_code
  AND id = @id;

-- name: SetPassword :one
UPDATE users
SET password_hash = @password_hash,
    password_temporary_until = now() + sqlc.narg(temporary_seconds)::float8 * interval '1 second',
    updated_at = now()
WHERE practice_code = @practice_code
  AND id = @id
RETURNING password_temporary_until;

-- name: offerTOTP :exec
UPDATE users
SET totp_secret = @totp_secret,
    updated_at = now()
WHERE id = @id
  AND NOT totp_enabled;

-- name: EnableTOTP :exec
UPDATE users
SET totp_enabled = true,
    updated_at = now()
WHERE id = @id;

-- name: RemoveTOTP :exec
UPDATE users
SET totp_enabled = false,
    totp_secret = NULL,
    updated_at = now()
WHERE id = @id;

-- name: UseTOTPStep :execrows
-- Marks a step as used, once: no row is changed when it, or a later one, was used before.
UPDATE users
SET totp_step = @step
WHERE id = @id
  AND totp_step < @step;

-- name: refuseLocked :one
-- Counts a try as one more failure while the e-mail is locked, which starts the lock again. Returns no row
-- when it is not locked.
UPDATE sign_in_failures
SET failures = failures + 1,
    last_failed_at = now(),
    locked_until = now() + sqlc.arg(lock_seconds)::float8 * interval '1 second'
WHERE practice_code = @practice_code
  AND email_key = @email_key
  AND locked_until > now()
RETURNING locked_until;

-- name: holdSignIn :exec
-- Locks the e-mail's row until the transaction ends, so that tries at the same moment are counted one after
-- the other.
INSERT INTO sign_in_failures (practice_code, email_key)
VALUES (@practice_code, @email_key)
ON CONFLICT (practice_code, email_key) DO UPDATE SET email_key = EXCLUDED.email_key;

-- name: countFailure :one
-- Counts a failed try. From @most in a row on, each locks the e-mail.
UPDATE sign_in_failures
SET failures = failures + 1,
    last_failed_at = now(),
    locked_until = CASE WHEN failures + 1 >= sqlc.arg(most)::integer THEN now() + sqlc.arg(lock_seconds)::float8 * interval '1 second' END
WHERE practice_code = @practice_code
  AND email_key = @email_key
RETURNING locked_until;

-- name: forgetFailures :exec
DELETE FROM sign_in_failures
WHERE practice_code = @practice_code
  AND email_key = @email_key;

-- name: CreateSession :exec
WITH signed_in AS (
    UPDATE users
    SET last_sign_in_at = now()
    WHERE users.id = @user_id
)
INSERT INTO sessions (id, user_id, expires_at, sign_in_again_at)
VALUES (
    @id,
    @user_id,
    now() + sqlc.arg(lasts_seconds)::float8 * interval '1 second',
    now() + sqlc.arg(sign_in_again_seconds)::float8 * interval '1 second'
);

-- name: AddRefreshToken :exec
WITH prolonged AS (
    UPDATE sessions
    SET expires_at = now() + sqlc.arg(lasts_seconds)::float8 * interval '1 second'
    WHERE sessions.id = @session_id
)
INSERT INTO refresh_tokens (token_hash, session_id, expires_at)
VALUES (@token_hash, @session_id, now() + sqlc.arg(lasts_seconds)::float8 * interval '1 second');

-- name: UseRefreshToken :one
-- Uses up a token. Of several requests at the same moment one gets the row: the others wait for it, and then
-- find the token used.
UPDATE refresh_tokens t
SET used_at = now()
FROM sessions s
JOIN users u ON u.id = s.user_id
WHERE t.token_hash = @token_hash
  AND t.used_at IS NULL
  AND t.expires_at > now()
  AND s.id = t.session_id
  AND s.ended_at IS NULL
  AND s.sign_in_again_at > now()
  AND u.practice_code = @practice_code
  AND u.disabled_at IS NULL
RETURNING t.session_id, u.id AS user_id, u.role;

-- name: FindUsedRefreshToken :one
SELECT s.id AS session_id, s.user_id, s.ended_at
FROM refresh_tokens t
JOIN sessions s ON s.id = t.session_id
JOIN users u ON u.id = s.user_id
WHERE t.token_hash = @token_hash
  AND t.used_at IS NOT NULL
  AND u.practice_code = @practice_code;

-- name: CheckSession :one
-- Returns no row when the session has ended, or its user may not sign in any more.
SELECT
    u.role,
    (u.password_temporary_until IS NOT NULL)::boolean AS must_change_password
FROM sessions s
JOIN users u ON u.id = s.user_id
WHERE s.id = @session_id
  AND s.ended_at IS NULL
  AND s.sign_in_again_at > now()
  AND u.id = @user_id
  AND u.practice_code = @practice_code
  AND u.disabled_at IS NULL;

-- name: EndSession :execrows
UPDATE sessions
SET ended_at = now(),
    end_reason = @reason
WHERE id = @id
  AND ended_at IS NULL;

-- name: EndSessionsOf :exec
-- Ends all sessions of a user but one, which may be null.
UPDATE sessions
SET ended_at = now(),
    end_reason = @reason
WHERE user_id = @user_id
  AND ended_at IS NULL
  AND id IS DISTINCT FROM sqlc.narg(but)::uuid;

-- name: AddAccountEvent :exec
INSERT INTO account_events (practice_code, user_id, action, actor, address, detail, reason)
VALUES (@practice_code, @user_id, @action, @actor, @address, @detail, @reason);

-- name: ListAccountEvents :many
SELECT *
FROM account_events
WHERE practice_code = @practice_code
ORDER BY id DESC
LIMIT @most
OFFSET @skip;

-- name: CountAccountEvents :one
SELECT count(*)
FROM account_events
WHERE practice_code = @practice_code;
