-- name: rememberRequest :execrows
-- Adds no row when the key is known already. When another request is adding the key, it waits for that one to
-- end.
INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id)
VALUES (@practice_code, @key, @request_hash, @observation_id)
ON CONFLICT (practice_code, key) DO NOTHING;

-- name: rememberRequests :execrows
-- Adds many keys in their order, for the reason that CreateObservations gives, and leaves out those that are
-- known already.
INSERT INTO idempotency_keys (practice_code, key, request_hash, observation_id)
SELECT
    @practice_code,
    unnest(@keys::bytea[]) AS key,
    unnest(@request_hashes::bytea[]),
    unnest(@observation_ids::uuid[])
ORDER BY key
ON CONFLICT (practice_code, key) DO NOTHING;

-- name: findRequest :one
-- Finds a request by its key, which is given under each key of the keyring.
SELECT
    idempotency_keys.request_hash,
    sqlc.embed(observations)
FROM idempotency_keys
JOIN observations ON observations.id = idempotency_keys.observation_id
WHERE idempotency_keys.practice_code = @practice_code
  AND idempotency_keys.key = ANY(@keys::bytea[])
ORDER BY idempotency_keys.created_at
LIMIT 1;

-- name: findRequests :many
-- Returns those of the keys that are known. With the LIMIT each is looked up in the index: given all keys at
-- once, the planner may read all those of the practice.
SELECT known.key, known.request_hash, known.observation_id
FROM unnest(@keys::bytea[]) AS sent (key)
CROSS JOIN LATERAL (
    SELECT i.key, i.request_hash, i.observation_id
    FROM idempotency_keys i
    WHERE i.practice_code = @practice_code
      AND i.key = sent.key
    LIMIT 1
) known;
