-- name: beginOIDC :exec
-- Keeps a sign-in that begins, and deletes some of those that nobody has finished: more than come in.
WITH expired AS (
    DELETE FROM oidc_sign_ins
    WHERE oidc_sign_ins.state_hash = ANY (ARRAY(
        SELECT oldest.state_hash
        FROM oidc_sign_ins oldest
        WHERE oldest.expires_at < now()
        ORDER BY oldest.expires_at
        LIMIT 10
        FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO oidc_sign_ins (state_hash, browser_hash, practice_code, secrets, return_to, expires_at)
VALUES (
    @state_hash,
    @browser_hash,
    @practice_code,
    @secrets,
    @return_to,
    now() + sqlc.arg(lasts_seconds)::float8 * interval '1 second'
);

-- name: useOIDC :one
-- Uses a sign-in up. Returns no row when it is unknown, used, too old, or of another browser.
DELETE FROM oidc_sign_ins
WHERE state_hash = @state_hash
  AND browser_hash = @browser_hash
  AND practice_code = @practice_code
  AND expires_at > now()
RETURNING secrets, return_to;

-- name: HoldIdentity :exec
-- Makes other sign-ins of the same person wait until the transaction ends, also while there is no row yet.
SELECT pg_advisory_xact_lock(hashtextextended(sqlc.arg(identity)::text, 0));

-- name: lockUserOfIdentity :one
SELECT users.*
FROM users
JOIN oidc_identities i ON i.user_id = users.id
WHERE i.practice_code = @practice_code
  AND i.issuer = @issuer
  AND i.subject = @subject
FOR UPDATE OF users;

-- name: HasIdentity :one
SELECT EXISTS (
    SELECT
    FROM oidc_identities
    WHERE user_id = @user_id
      AND issuer = @issuer
);

-- name: AddIdentity :exec
INSERT INTO oidc_identities (practice_code, issuer, subject, user_id)
VALUES (@practice_code, @issuer, @subject, @user_id);

-- name: DropPassword :exec
UPDATE users
SET password_hash = NULL,
    password_temporary_until = NULL,
    updated_at = now()
WHERE id = @id;

-- name: SetRole :exec
UPDATE users
SET role = @role,
    updated_at = now()
WHERE id = @id;
