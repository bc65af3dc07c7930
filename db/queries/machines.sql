-- name: createAPIKey :one
INSERT INTO api_keys (
    id,
    practice_code,
    name,
    role,
    devices,
    prefix,
    key_hash,
    created_by,
    reason,
    expires_at
)
VALUES (
    @id,
    @practice_code,
    @name,
    @role,
    @devices,
    @prefix,
    @key_hash,
    @created_by,
    @reason,
    @expires_at
)
RETURNING *;

-- name: getAPIKey :one
SELECT *
FROM api_keys
WHERE practice_code = @practice_code
  AND id = @id;

-- name: listAPIKeys :many
-- Lists all of them, the newest first: a practice has a few.
SELECT *
FROM api_keys
WHERE practice_code = @practice_code
ORDER BY created_at DESC, id;

-- name: findAPIKey :one
-- Finds a key that may be used now.
SELECT id, role, devices, plain_devices, expires_at
FROM api_keys
WHERE practice_code = @practice_code
  AND key_hash = @key_hash
  AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > now());

-- name: WhoseAPIKey :one
-- Finds a key that may not be used any more.
SELECT id, role
FROM api_keys
WHERE practice_code = @practice_code
  AND key_hash = @key_hash;

-- name: TouchAPIKey :exec
UPDATE api_keys
SET last_used_at = now()
WHERE id = @id
  AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute');

-- name: revokeAPIKey :one
-- The first revocation counts.
UPDATE api_keys
SET
    revoked_at = coalesce(revoked_at, now()),
    revoked_by = coalesce(revoked_by, @revoked_by),
    revoke_reason = CASE WHEN revoked_at IS NULL THEN @revoke_reason ELSE revoke_reason END
WHERE practice_code = @practice_code
  AND id = @id
RETURNING *;

-- name: DenyToken :exec
-- The first denial counts. Denials whose tokens have expired are deleted on the way.
WITH expired AS (
    DELETE FROM denied_tokens
    WHERE expires_at < now() - interval '1 hour'
)
INSERT INTO denied_tokens (practice_code, token_id, expires_at, denied_by, reason)
VALUES (@practice_code, @token_id, @expires_at, @denied_by, @reason)
ON CONFLICT (practice_code, token_id) DO NOTHING;

-- name: IsTokenDenied :one
SELECT EXISTS (
    SELECT
    FROM denied_tokens
    WHERE practice_code = @practice_code
      AND token_id = @token_id
);
