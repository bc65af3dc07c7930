-- The people who sign in, their sessions, and what was done to their accounts.

-- +goose Up
CREATE TABLE users (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    -- In the form of account.NormaliseEmail, so that two spellings of one address are one account.
    email         text        NOT NULL CHECK (email <> ''),
    -- SHA-256 of the address in that form. sign_in_failures has it too, also for addresses without an account.
    email_key     bytea       NOT NULL,
    first_name    text        NOT NULL CHECK (first_name <> ''),
    last_name     text        NOT NULL CHECK (last_name <> ''),
    -- account/roles.go lists them. A machine has an API key instead.
    role          text        NOT NULL CHECK (role NOT IN ('', 'service')),
    -- Argon2id as a PHC string. Null: the person has no password here.
    password_hash text        CHECK (password_hash <> ''),
    -- An administrator knows the password, which is good until this moment and only for choosing another.
    -- Null: the person chose it.
    password_temporary_until timestamptz,
    -- In base 32. Columns that are encrypted come with the encryption of the demographic fields.
    totp_secret   text        CHECK (totp_secret <> ''),
    -- False while the secret waits for its first code.
    totp_enabled  boolean     NOT NULL DEFAULT false CHECK (NOT totp_enabled OR totp_secret IS NOT NULL),
    -- The newest step (30 s since 1970, RFC 6238) whose code was used. It and those before are refused.
    totp_step     bigint      NOT NULL DEFAULT 0,
    last_sign_in_at timestamptz,
    disabled_at   timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_email_key UNIQUE (practice_code, email),
    CONSTRAINT users_email_key_key UNIQUE (practice_code, email_key)
);

-- Failed sign-ins in a row, of every e-mail that was tried. An address without an account is counted and
-- locked as others are, so that a lock tells nothing about who has one.
CREATE TABLE sign_in_failures (
    practice_code  text        NOT NULL,
    email_key      bytea       NOT NULL,
    failures       integer     NOT NULL DEFAULT 0,
    locked_until   timestamptz,
    last_failed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (practice_code, email_key)
);
-- The oldest failures, which are pruned first.
CREATE INDEX sign_in_failures_oldest ON sign_in_failures (practice_code, last_failed_at);

-- A session begins with a sign-in. Its id is the family of all refresh tokens that follow from that.
CREATE TABLE sessions (
    id          uuid        PRIMARY KEY,
    user_id     uuid        NOT NULL REFERENCES users,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- When its newest refresh token expires.
    expires_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    -- Why it has ended, as account.EndReason.
    end_reason  text        CHECK (end_reason <> ''),
    CONSTRAINT sessions_ended CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX sessions_of_user ON sessions (user_id);
-- The oldest sessions, which are pruned first.
CREATE INDEX sessions_oldest ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token, which is random: nobody finds it from the hash.
    token_hash bytea       PRIMARY KEY,
    session_id uuid        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    -- A used one that comes again was stolen, before or after its use.
    used_at    timestamptz
);
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);

-- What was done to accounts: by administrators, by the command line, by their owners, and lockouts. Rows are
-- only ever added.
CREATE TABLE account_events (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    practice_code text        NOT NULL,
    user_id       uuid        NOT NULL REFERENCES users,
    -- As account.Action.
    action        text        NOT NULL CHECK (action <> ''),
    -- The subject who did it; local for the command line; empty for somebody who has not signed in.
    actor         text        NOT NULL,
    address       text        NOT NULL,
    -- What has changed, such as "nurse to admin". No names and no addresses.
    detail        text        NOT NULL,
    -- What the command line was given as --reason.
    reason        text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX account_events_newest ON account_events (practice_code, id);

-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER account_events_append_only BEFORE UPDATE OR DELETE ON account_events
FOR EACH ROW EXECUTE FUNCTION refuse_change();
