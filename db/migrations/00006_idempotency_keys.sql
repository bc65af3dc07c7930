-- Requests that a client may repeat without a second effect (the header Idempotency-Key).

-- +goose Up
CREATE TABLE idempotency_keys (
    practice_code text        NOT NULL,
    -- The subject of the sender, the header, and for an item of a batch its number, with U+001F between them.
    key           text        NOT NULL CHECK (key <> ''),
    -- SHA-256 of the request's body. The same key with another body is a mistake of the client.
    request_hash  bytea       NOT NULL,
    observation_id uuid       NOT NULL REFERENCES observations,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (practice_code, key)
);
-- The oldest keys, which are pruned first.
CREATE INDEX idempotency_keys_oldest ON idempotency_keys (practice_code, created_at);
-- A reading that is pruned takes its keys along.
CREATE INDEX idempotency_keys_of_observation ON idempotency_keys (observation_id);
