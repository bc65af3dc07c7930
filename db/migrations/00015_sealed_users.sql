-- What is personal about accounts becomes sealed: this file adds the columns, migration 16 (db/migrate_users.go)
-- fills them, and 17 drops those in clear.

-- +goose Up
ALTER TABLE users RENAME COLUMN totp_secret TO plain_totp_secret;
ALTER TABLE users
    -- E-mail and names, as db.profile.
    ADD COLUMN profile       bytea,
    -- What the e-mail is found by, see keyring.Index.
    ADD COLUMN email_index_a bytea,
    ADD COLUMN email_index_b bytea,
    -- In base 32 before it was sealed.
    ADD COLUMN totp_secret   bytea;

-- Failures were counted by plain hashes, which tell an e-mail to whoever guesses it. The counts begin anew, and
-- locks, which last for half an hour, are gone.
DELETE FROM sign_in_failures;

-- These rows live for ten minutes: their people sign in again.
DELETE FROM oidc_sign_ins;
ALTER TABLE oidc_sign_ins
    DROP COLUMN nonce,
    DROP COLUMN code_verifier,
    -- The nonce, and the secret half of PKCE (RFC 7636), as db.oidcSecrets.
    ADD COLUMN secrets bytea NOT NULL;
