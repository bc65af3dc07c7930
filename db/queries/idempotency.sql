-- name: RememberRequest :execrows
-- Adds no row when the key is known already. When another request is adding the key, it waits for that one to
-- end.
INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id)
VALUES (@practice_code, @key, @request_hash, @observation_id)
ON CONFLICT (practice_code, key) DO NOTHING;

-- name: FindRequest :one
SELECT *
FROM idempotency_keys
WHERE practice_code = @practice_code
  AND key = @key;
