-- name: getKeyringMark :one
SELECT sealed, digest
FROM keyring_mark;

-- name: setKeyringDigest :exec
UPDATE keyring_mark
SET digest = @digest;
