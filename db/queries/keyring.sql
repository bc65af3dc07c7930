-- name: getKeyringMark :one
SELECT sealed, digest
FROM keyring_mark;

-- name: addKeyringMark :exec
INSERT INTO keyring_mark (sealed, digest)
VALUES (@sealed, @digest)
ON CONFLICT DO NOTHING;

-- name: setKeyringDigest :exec
UPDATE keyring_mark
SET digest = @digest;
