-- The state that all processes share before a request leaves for a practice's eCW: how much of the request
-- limit is used, how much is under way, and whether the circuit is closed.

-- +goose Up
CREATE TABLE ecw_gates (
    practice_code   text             PRIMARY KEY CHECK (practice_code <> ''),
    -- The token bucket of the request limit: the moment when it is full again, if nothing more leaves.
    bucket_full_at  timestamptz      NOT NULL DEFAULT 'epoch',
    -- The same of the part that people may use, for what they ask of eCW themselves.
    asked_full_at   timestamptz      NOT NULL DEFAULT 'epoch',
    -- eCW answered 429, so nothing leaves before this moment.
    blocked_until   timestamptz      NOT NULL DEFAULT 'epoch',
    -- How many requests may be under way, rounded down. It is one at first, grows while eCW answers in good
    -- time, and is halved when eCW does not. A request that began before reduced_at does not halve it again.
    parallel        double precision NOT NULL DEFAULT 1 CHECK (parallel >= 1),
    reduced_at      timestamptz      NOT NULL DEFAULT 'epoch',
    -- When eCW last answered a delivery, exact to a second.
    answered_at     timestamptz      NOT NULL DEFAULT 'epoch',
    -- Until this moment a request that belongs to no delivery (of an import, of a person) waits for a place.
    reserved_until  timestamptz      NOT NULL DEFAULT 'epoch',
    -- The circuit breaker. half_open: one transmission, the trial, is let through. Where none waits it is an
    -- item of an import.
    circuit         text             NOT NULL DEFAULT 'closed',
    reason          text             NOT NULL DEFAULT '',
    message         text             NOT NULL DEFAULT '',
    -- The transmissions and items of imports that found eCW unavailable, or were forbidden, since it last
    -- answered.
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

-- The places that are taken. A place is a lease: if its process dies, the place is free when the lease
-- expires.
CREATE TABLE ecw_places (
    -- The id of the transmission that is delivered, or an id made for a single request.
    id            uuid        PRIMARY KEY,
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    kind          text        NOT NULL CHECK (kind IN ('delivery', 'import', 'other')),
    taken_at      timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX ecw_places_of_practice ON ecw_places (practice_code, expires_at);

-- The transmissions that wait and may be called. Those that were called already have a place and are left
-- out, and so are those of a patient who is archived, or under whose id eCW shows another person.
CREATE VIEW ecw_queue AS
SELECT t.id, t.practice_code, t.observation_id, t.asked, t.created_at, t.updated_at
FROM transmissions t
WHERE (t.held_at IS NOT NULL OR t.brought_forward)
  AND NOT EXISTS (SELECT FROM ecw_places p WHERE p.id = t.id AND p.expires_at > clock_timestamp())
  AND NOT EXISTS (SELECT FROM observations o JOIN patients p ON p.id = o.patient_id
                  WHERE o.id = t.observation_id AND (p.archived_at IS NOT NULL OR p.mismatch_since IS NOT NULL));
