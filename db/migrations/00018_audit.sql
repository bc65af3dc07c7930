-- The audit trail: who has done what to whose data. Rows are only ever added; package audit says how that is proved.

-- +goose Up
CREATE TABLE audit_events (
    -- The clock of the process that wrote it. AddAuditEvent refuses one that is minutes off.
    recorded_at   timestamptz NOT NULL,
    -- A writer is one connection to the database, which writes one row after the other: no row waits for another's
    -- lock, and a gap in a writer's sequence is a row that was removed.
    writer        uuid        NOT NULL,
    sequence      bigint      NOT NULL CHECK (sequence > 0),
    practice_code text        NOT NULL,
    -- The id of an account or of an API key, local for the command line, vantrexia for what happens by itself, or empty for
    -- somebody who has not signed in.
    subject       text        NOT NULL,
    role          text        NOT NULL,
    token_id      text        NOT NULL,
    address       text        NOT NULL,
    -- As audit.Action.
    action        text        NOT NULL CHECK (action <> ''),
    -- What it was done to: a FHIR type or another noun, and the ids. Never a value.
    resource_type text        NOT NULL,
    resource_ids  text[]      NOT NULL,
    -- The patients whose data was seen or changed.
    patient_ids   uuid[]      NOT NULL,
    outcome       text        NOT NULL CHECK (outcome IN ('success', 'refused', 'failure')),
    -- A code, or what a person gave as the reason.
    reason        text        NOT NULL,
    -- The MAC of the writer's row before; empty in its first one. With it each row can be checked alone, whatever became of
    -- the others.
    code_before   bytea       NOT NULL,
    -- The MAC of all that is above, and the id of its key.
    code          bytea       NOT NULL CHECK (length(code) = 32),
    key_id        text        NOT NULL,
    PRIMARY KEY (writer, sequence, recorded_at),
    CONSTRAINT audit_events_chained CHECK (length(code_before) = CASE WHEN sequence = 1 THEN 0 ELSE 32 END)
) PARTITION BY RANGE (recorded_at);

-- The newest first, by everybody, by one person, of one action, and of one patient. What did not succeed is rare.
CREATE INDEX audit_events_newest ON audit_events (recorded_at, writer, sequence);
CREATE INDEX audit_events_of_subject ON audit_events (subject, recorded_at);
CREATE INDEX audit_events_of_action ON audit_events (action, recorded_at);
CREATE INDEX audit_events_failed ON audit_events (outcome, recorded_at) WHERE outcome <> 'success';
CREATE INDEX audit_events_of_patient ON audit_events USING gin (patient_ids);

-- The leaves of the Merkle log, in their order: each seals some rows of one writer.
CREATE TABLE audit_seals (
    leaf           bigint      PRIMARY KEY CHECK (leaf >= 0),
    writer         uuid        NOT NULL,
    first_sequence bigint      NOT NULL,
    last_sequence  bigint      NOT NULL,
    recorded_from  timestamptz NOT NULL,
    recorded_to    timestamptz NOT NULL,
    -- The SHA-256 of each row, one after the other.
    digests        bytea       NOT NULL,
    sealed_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT audit_seals_writer_key UNIQUE (writer, last_sequence),
    CONSTRAINT audit_seals_whole CHECK (length(digests) = 32 * (last_sequence - first_sequence + 1))
);
CREATE INDEX audit_seals_of_time ON audit_seals (recorded_to);

-- The hashes of the log, where golang.org/x/mod/sumdb/tlog puts them.
CREATE TABLE audit_hashes (
    position bigint PRIMARY KEY CHECK (position >= 0),
    hash     bytea  NOT NULL CHECK (length(hash) = 32)
);

-- The signed checkpoints, which go to a place outside of the database as well.
CREATE TABLE audit_checkpoints (
    size       bigint      PRIMARY KEY CHECK (size > 0),
    note       text        NOT NULL,
    key_id     text        NOT NULL, -- of the audit key that the signature's key follows from
    created_at timestamptz NOT NULL DEFAULT now()
);

-- +goose StatementBegin
DO $$
DECLARE
    protected text;
BEGIN
    FOREACH protected IN ARRAY ARRAY['audit_events', 'audit_seals', 'audit_hashes', 'audit_checkpoints'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
            protected || '_append_only', protected);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
            protected || '_never_emptied', protected);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- Makes the partitions of this month and of those that follow. Processes, which must not create tables themselves, run it
-- as the schema's owner. A partition is made as a table and then attached, for which no reader and no writer has to wait.
-- +goose StatementBegin
CREATE FUNCTION audit_add_months(ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    made  text;
    added integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('vantrexia audit months'));
    FOR i IN 0 .. least(ahead, 120) LOOP
        made := 'audit_events_' || to_char(month, 'YYYY_MM');
        IF to_regclass(made) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING CONSTRAINTS)', made);
            EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                made,
                to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00',
                to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00');
            -- The table's trigger for rows is every partition's, the one for TRUNCATE is not.
            EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                made || '_never_emptied', made);
            added := added + 1;
        END IF;
        month := month + interval '1 month';
    END LOOP;
    RETURN added;
END
$$;
-- +goose StatementEnd

-- Drops the oldest month when all of it is older than the given days and sealed, and returns its first day; null when there
-- is none. It never drops what is younger than six years (45 CFR 164.316(b)(2)(i)), whoever asks. A reader of the whole
-- trail is in its way: it gives up soon, because meanwhile every writer waits behind it.
-- +goose StatementBegin
CREATE FUNCTION audit_drop_month(keep_days integer) RETURNS date
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '1s' AS $$
DECLARE
    oldest text;
    month  date;
    open   boolean;
BEGIN
    SELECT min(c.relname) INTO oldest
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'audit_events'::regclass;

    month := to_date(right(oldest, 7), 'YYYY_MM');
    IF month IS NULL
        OR (month + interval '1 month') AT TIME ZONE 'UTC' > now() - make_interval(days => greatest(keep_days, 2192)) THEN
        RETURN NULL;
    END IF;

    -- A writer's rows are sealed in their order.
    EXECUTE format('SELECT EXISTS (
        SELECT FROM (SELECT writer, max(sequence) AS newest FROM %I GROUP BY writer) w
        WHERE newest > coalesce((SELECT max(last_sequence) FROM audit_seals s WHERE s.writer = w.writer), 0))', oldest) INTO open;
    IF open THEN
        RETURN NULL;
    END IF;

    EXECUTE format('DROP TABLE %I', oldest);
    RETURN month;
END
$$;
-- +goose StatementEnd

-- Both run as the owner, so they must not find a table that their caller has made: temporary tables come last.
-- +goose StatementBegin
DO $$
DECLARE
    as_owner regprocedure;
BEGIN
    FOREACH as_owner IN ARRAY ARRAY['audit_add_months(integer)', 'audit_drop_month(integer)']::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', as_owner, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', as_owner);
    END LOOP;
END
$$;
-- +goose StatementEnd

SELECT audit_add_months(24);
