-- Sign-in with the practice's own identity provider (OpenID Connect).

-- +goose Up

-- Who an account is at the identity provider. Only issuer and subject together name a person there: e-mails
-- change hands.
CREATE TABLE oidc_identities (
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    issuer        text        NOT NULL CHECK (issuer <> ''),
    subject       text        NOT NULL CHECK (subject <> ''),
    user_id       uuid        NOT NULL REFERENCES users,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (practice_code, issuer, subject),
    CONSTRAINT oidc_identities_one_a_user UNIQUE (user_id, issuer)
);

-- Sign-ins under way: their browsers are at the identity provider. It is a table, and not a cookie alone, so
-- that each is used once, whichever process the browser comes back to. Rows live for ten minutes.
CREATE TABLE oidc_sign_ins (
    -- SHA-256 of the parameter state, which the provider sends back.
    state_hash    bytea       PRIMARY KEY,
    -- SHA-256 of the cookie of the browser that began.
    browser_hash  bytea       NOT NULL,
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    nonce         text        NOT NULL CHECK (nonce <> ''),
    -- The secret half of PKCE (RFC 7636).
    code_verifier text        NOT NULL CHECK (code_verifier <> ''),
    return_to     text        NOT NULL,
    expires_at    timestamptz NOT NULL
);
-- The oldest sign-ins, which are deleted first.
CREATE INDEX oidc_sign_ins_oldest ON oidc_sign_ins (expires_at);

-- When a session ends, however often it is refreshed. Somebody who has left the practice cannot sign in at its
-- provider again, and so is out by then. A session from before this column has none, and is over.
ALTER TABLE sessions ADD COLUMN sign_in_again_at timestamptz;
