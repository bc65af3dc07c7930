-- What all processes must know of a practice's eCW before a request leaves: how much of its request limit is used, how much
-- is under way, and whether the circuit is closed.

-- +goose Up
CREATE TABLE ecw_gates (
    practice_code   text             PRIMARY KEY CHECK (practice_code <> ''),
    -- The request limit, a token bucket: when it is full again, if nothing more leaves.
    bucket_full_at  timestamptz      NOT NULL DEFAULT 'epoch',
    -- eCW answered 429: nothing leaves before this moment.
    blocked_until   timestamptz      NOT NULL DEFAULT 'epoch',
    -- How many requests may be under way, rounded down: one at first, then it grows while eCW answers in good time, and is
    -- halved when it does not. What began before reduced_at has had its say.
    parallel        double precision NOT NULL DEFAULT 1 CHECK (parallel >= 1),
    reduced_at      timestamptz      NOT NULL DEFAULT 'epoch',
    -- When eCW last answered a delivery, within a second.
    answered_at     timestamptz      NOT NULL DEFAULT 'epoch',
    -- A request that belongs to no delivery (an import, a person) waits for a place until then.
    reserved_until  timestamptz      NOT NULL DEFAULT 'epoch',
    -- The circuit breaker. half_open: one transmission, the trial, is let through, or one item of an import where none waits.
    circuit         text             NOT NULL DEFAULT 'closed',
    reason          text             NOT NULL DEFAULT '',
    message         text             NOT NULL DEFAULT '',
    -- The transmissions, and items of imports, that found eCW unavailable, one after the other, since it last answered.
    failing         uuid[]           NOT NULL DEFAULT '{}',
    failing_since   timestamptz,
    opened_at       timestamptz,
    next_trial_at   timestamptz,
    trial           uuid,
    CONSTRAINT ecw_gates_circuit CHECK (circuit IN ('closed', 'open', 'half_open')),
    CONSTRAINT ecw_gates_reason CHECK ((circuit = 'closed') = (reason = '') AND reason IN ('', 'unavailable', 'credentials')),
    CONSTRAINT ecw_gates_opened CHECK ((circuit = 'closed') = (opened_at IS NULL) AND (circuit = 'closed' OR failing_since IS NOT NULL)),
    CONSTRAINT ecw_gates_trial CHECK (trial IS NULL OR circuit = 'half_open')
);

-- The places of what is under way. A place is a lease: one whose process has died is free when it expires.
CREATE TABLE ecw_places (
    -- The transmission that is delivered, else an id of the single request.
    id            uuid        PRIMARY KEY,
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    kind          text        NOT NULL CHECK (kind IN ('delivery', 'import', 'other')),
    taken_at      timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX ecw_places_of_practice ON ecw_places (practice_code, expires_at);

-- Who waits before eCW and may be called: neither called already, nor held because eCW shows somebody else under the
-- patient's id.
CREATE VIEW ecw_queue AS
SELECT t.id, t.practice_code, t.observation_id, t.asked, t.created_at, t.updated_at
FROM transmissions t
WHERE (t.held_at IS NOT NULL OR t.brought_forward)
  AND NOT EXISTS (SELECT FROM ecw_places p WHERE p.id = t.id AND p.expires_at > clock_timestamp())
  AND NOT EXISTS (SELECT FROM observations o JOIN patients p ON p.id = o.patient_id
                  WHERE o.id = t.observation_id AND p.mismatch_since IS NOT NULL);
