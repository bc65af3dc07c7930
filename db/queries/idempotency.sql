-- name: RememberRequest :execrows
-- No row is added when the key is known already; one that another request is just adding is waited for.
INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id)
VALUES (@practice_code, @key, @request_hash, @observation_id)
ON CONFLICT (practice_code, key) DO NOTHING;

-- name: FindRequest :one
SELECT * FROM idempotency_keys WHERE practice_code = @practice_code AND key = @key;
