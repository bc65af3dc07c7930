-- The transmission log: each transmission into eCW, its deliveries, and when the next one comes.

-- +goose Up
CREATE SEQUENCE transmission_numbers;

-- +goose StatementBegin
CREATE FUNCTION next_transmission_number() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    number text := nextval('transmission_numbers')::text;
BEGIN
    -- lpad alone would cut the number when it outgrows five digits.
    RETURN 'TXN-' || to_char(now() AT TIME ZONE 'UTC', 'YYYY') || '-' || lpad(number, greatest(5, length(number)), '0');
END $$;
-- +goose StatementEnd

CREATE TABLE transmissions (
    -- A UUIDv7 of our own making. A sequence that was restored from a backup gives its numbers out again; a
    -- UUID is never given out twice.
    id                 uuid        PRIMARY KEY,
    -- The number by which people and the API name it.
    number             text        NOT NULL UNIQUE DEFAULT next_transmission_number(),
    practice_code      text        NOT NULL CHECK (practice_code <> ''),
    observation_id     uuid        NOT NULL REFERENCES observations,
    status             text        NOT NULL DEFAULT 'pending',
    attempt_count      integer     NOT NULL DEFAULT 0,
    max_attempts       integer     NOT NULL CHECK (max_attempts > 0),
    first_attempted_at timestamptz,
    last_attempted_at  timestamptz,
    -- "Not before": the workflow's timer fires at this moment or a little later.
    next_retry_at      timestamptz,
    -- Since this moment it waits in the queue, for a free place or for the circuit to close. It then has no
    -- next_retry_at, because nobody knows when its turn comes.
    held_at            timestamptz,
    -- A person asked for it, so it goes ahead of the others in the queue.
    asked              boolean     NOT NULL DEFAULT false,
    -- It failed in an outage that is over, so it is in the queue and need not wait for its retry.
    brought_forward    boolean     NOT NULL DEFAULT false,
    error_class        text        NOT NULL DEFAULT '',
    error_message      text        NOT NULL DEFAULT '',
    http_status        integer,
    ecw_observation_id text,
    -- The Patient's id in eCW in whose chart it stands. The attempt says so too, but attempts are pruned.
    ecw_patient_id     text,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT transmissions_status CHECK (status IN ('pending', 'processing', 'transmitted', 'failed')),
    CONSTRAINT transmissions_attempts CHECK (attempt_count BETWEEN 0 AND max_attempts),
    CONSTRAINT transmissions_retry_waits CHECK (next_retry_at IS NULL OR status IN ('pending', 'failed')),
    CONSTRAINT transmissions_held CHECK (held_at IS NULL OR (status = 'pending' AND next_retry_at IS NULL)),
    CONSTRAINT transmissions_brought_forward CHECK (NOT brought_forward OR next_retry_at IS NOT NULL),
    CONSTRAINT transmissions_delivered CHECK ((status = 'transmitted') = (ecw_observation_id IS NOT NULL)),
    CONSTRAINT transmissions_failure_explained CHECK (status <> 'failed' OR error_class <> '')
);
-- An observation has one transmission at a time, and no other after it was delivered. One that failed for
-- good (failed, without a next retry) makes room for the next.
CREATE UNIQUE INDEX transmissions_one_live ON transmissions (observation_id)
    WHERE status <> 'failed' OR next_retry_at IS NOT NULL;
CREATE INDEX transmissions_by_observation ON transmissions (observation_id, created_at);
-- The queue, in the order in which it is called.
CREATE INDEX transmissions_queue ON transmissions (practice_code, asked DESC, created_at, id) WHERE held_at IS NOT NULL OR brought_forward;

CREATE TABLE transmission_attempts (
    transmission_id    uuid        NOT NULL REFERENCES transmissions ON DELETE CASCADE,
    -- Counts every delivery that began. number counts the attempts, of which there are max_attempts: a
    -- throttled delivery uses up none, and keeps its number for the next.
    delivery           integer     NOT NULL CHECK (delivery > 0),
    number             integer     NOT NULL CHECK (number > 0),
    started_at         timestamptz NOT NULL,
    -- The moment just before the create left for eCW. Null: nothing was sent.
    sent_at            timestamptz,
    -- The Patient's id in eCW: the chart that it was sent to, or in which an earlier delivery was found.
    ecw_patient_id     text,
    finished_at        timestamptz CHECK (finished_at >= started_at),
    http_status        integer,
    ecw_observation_id text,
    error_class        text        NOT NULL DEFAULT '',
    error_code         text        NOT NULL DEFAULT '',
    error_message      text        NOT NULL DEFAULT '',
    PRIMARY KEY (transmission_id, delivery),
    CONSTRAINT transmission_attempts_chart CHECK (sent_at IS NULL OR ecw_patient_id IS NOT NULL)
);
-- The oldest attempts, which are pruned first.
CREATE INDEX transmission_attempts_oldest ON transmission_attempts (started_at, transmission_id, delivery);

-- Every chart that a patient's readings were sent to. It shows which patients may have readings in a former
-- chart, without a read of all attempts.
CREATE TABLE patient_charts (
    patient_id     uuid NOT NULL REFERENCES patients,
    ecw_patient_id text NOT NULL,
    PRIMARY KEY (patient_id, ecw_patient_id)
);
