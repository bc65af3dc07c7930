-- +goose Up
ALTER TABLE users
    DROP COLUMN email,
    DROP COLUMN email_key,
    DROP COLUMN first_name,
    DROP COLUMN last_name,
    DROP COLUMN plain_totp_secret,
    ALTER COLUMN profile SET NOT NULL,
    ADD CONSTRAINT users_email_index_a_key UNIQUE (practice_code, email_index_a),
    ADD CONSTRAINT users_email_index_b_key UNIQUE (practice_code, email_index_b),
    ADD CONSTRAINT users_email_index CHECK (email_index_a IS NOT NULL OR email_index_b IS NOT NULL),
    -- False while the secret waits for its first code.
    ADD CONSTRAINT users_totp CHECK (NOT totp_enabled OR totp_secret IS NOT NULL);
