-- What all processes must know of a practice's eCW before a request leaves: how much of its request limit is used, who
-- waits for a turn, and whether the circuit is closed.

-- +goose Up
CREATE TABLE ecw_gates (
    practice_code text        PRIMARY KEY CHECK (practice_code <> ''),
    -- The requests of one minute, counted as they leave.
    sent_minute   timestamptz NOT NULL DEFAULT 'epoch',
    sent          integer     NOT NULL DEFAULT 0,
    -- eCW answered 429: nothing leaves before this moment.
    blocked_until timestamptz NOT NULL DEFAULT 'epoch',
    -- The queue's clock is behind ours by what eCW has blocked us: a block moves everybody in the queue together.
    queue_delay   interval    NOT NULL DEFAULT '0',
    -- The last minute, on the queue's clock, that turns were handed out in, and how many requests they take.
    queue_minute  timestamptz NOT NULL DEFAULT 'epoch',
    queue_used    integer     NOT NULL DEFAULT 0,
    -- The circuit breaker. half_open: one transmission, the trial, is let through.
    circuit       text        NOT NULL DEFAULT 'closed',
    reason        text        NOT NULL DEFAULT '',
    message       text        NOT NULL DEFAULT '',
    -- The transmissions that found eCW unavailable, one after the other, since it last answered.
    failing       text[]      NOT NULL DEFAULT '{}',
    failing_since timestamptz,
    opened_at     timestamptz,
    next_trial_at timestamptz,
    trial         text        NOT NULL DEFAULT '',
    CONSTRAINT ecw_gates_circuit CHECK (circuit IN ('closed', 'open', 'half_open')),
    CONSTRAINT ecw_gates_reason CHECK ((circuit = 'closed') = (reason = '') AND reason IN ('', 'unavailable', 'credentials')),
    CONSTRAINT ecw_gates_opened CHECK ((circuit = 'closed') = (opened_at IS NULL) AND (circuit = 'closed' OR failing_since IS NOT NULL)),
    CONSTRAINT ecw_gates_trial CHECK (trial = '' OR circuit = 'half_open')
);

-- A transmission that waits for the circuit to close. It has no next_retry_at: nobody knows when that will be.
ALTER TABLE transmissions ADD COLUMN held_at timestamptz,
    ADD CONSTRAINT transmissions_held CHECK (held_at IS NULL OR (status = 'pending' AND next_retry_at IS NULL));
CREATE INDEX transmissions_held ON transmissions (practice_code, created_at) WHERE held_at IS NOT NULL;
