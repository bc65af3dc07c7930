-- The API keys of machines, and the tokens that are refused before they expire.

-- +goose Up
CREATE TABLE api_keys (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    name          text        NOT NULL CHECK (name <> ''),
    -- account/roles.go lists them.
    role          text        NOT NULL CHECK (role <> ''),
    -- The devices whose readings the key may post: names, or beginnings of names that end in *. Empty: all.
    devices       text[]      NOT NULL DEFAULT '{}',
    -- The first characters of the key, by which people recognise it.
    prefix        text        NOT NULL,
    -- SHA-256 of the key, which is random: nobody finds it from the hash.
    key_hash      bytea       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- The subject of who made it, or local for the command line.
    created_by    text        NOT NULL,
    -- What the command line was given as --reason, when it made the key.
    reason        text        NOT NULL DEFAULT '',
    expires_at    timestamptz,
    -- Right to a minute.
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    revoked_by    text,
    revoke_reason text        NOT NULL DEFAULT '',
    CONSTRAINT api_keys_key UNIQUE (key_hash),
    CONSTRAINT api_keys_revoked CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX api_keys_newest ON api_keys (practice_code, created_at, id);

-- Tokens signed with the shared secret that are refused before they expire. A row is kept until the token
-- would have expired.
CREATE TABLE denied_tokens (
    practice_code text        NOT NULL,
    token_id      text        NOT NULL CHECK (token_id <> ''),
    expires_at    timestamptz NOT NULL,
    denied_at     timestamptz NOT NULL DEFAULT now(),
    denied_by     text        NOT NULL,
    reason        text        NOT NULL,
    PRIMARY KEY (practice_code, token_id)
);
