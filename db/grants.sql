-- What the roles of this database may do: `vantrexia migrate` runs this after each migration, as the owner of the tables.
-- All of it is set anew each time, so a new table is covered, and what somebody has granted by hand is taken back.
--
--   vantrexia_runtime    API and workers: rows of every table. Of what proves who did what, only to add and to read.
--   vantrexia_readonly   people who look: what is listed below, nothing secret, and nothing that is in clear for a while
--
-- A role that does not exist is left out: a database may have one account for everything, as `make run` has. There are no
-- default privileges on purpose: a partition of the audit trail must not have any.
DO $$
DECLARE
    runtime  CONSTANT text := 'vantrexia_runtime';
    readonly CONSTANT text := 'vantrexia_readonly';
    home     CONSTANT text := current_schema();
    roles    text[] := ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname IN ('vantrexia_runtime', 'vantrexia_readonly'));
    owner    oid := (SELECT relowner FROM pg_class WHERE oid = 'goose_db_version'::regclass);
    named    text;
    rights   text;
    it       record;
BEGIN
    IF roles = '{}' THEN
        RETURN;
    END IF;
    -- Who owns nothing would get warnings only.
    IF NOT pg_has_role(owner, 'USAGE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s does not own the tables', current_user);
    END IF;
    FOREACH named IN ARRAY roles LOOP
        IF pg_has_role(named, owner, 'MEMBER') THEN
            RAISE EXCEPTION '% owns the tables, or may become who does, or is a superuser', named
                USING HINT = 'give the tables to another account, see "Database roles" in docs/operations.md';
        END IF;
    END LOOP;

    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', home);
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    FOREACH named IN ARRAY roles LOOP
        EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', home, named);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', home, named);
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM PUBLIC, %I', home, named);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM PUBLIC, %I', home, named);
    END LOOP;

    IF runtime = ANY (roles) THEN
        EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO %I', home, runtime);
    END IF;

    FOR it IN
        SELECT oid::regclass AS name, relname, relkind, relispartition, relname = 'account_events' OR relname LIKE 'audit\_%' AS is_proof
        FROM pg_class
        WHERE relnamespace = home::regnamespace
          AND relkind IN ('r', 'p', 'v')
    LOOP
        CONTINUE WHEN it.relispartition; -- reached through its table

        rights := CASE
            WHEN it.is_proof THEN 'SELECT, INSERT'
            WHEN it.relkind = 'v' OR it.relname = 'goose_db_version' THEN 'SELECT'
            ELSE 'SELECT, INSERT, UPDATE, DELETE'
        END;
        IF runtime = ANY (roles) THEN
            EXECUTE format('GRANT %s ON %s TO %I', rights, it.name, runtime);
        END IF;
        IF readonly = ANY (roles) AND it.is_proof THEN
            EXECUTE format('GRANT SELECT ON %s TO %I', it.name, readonly);
        END IF;
    END LOOP;

    IF readonly <> ALL (roles) THEN
        RETURN;
    END IF;
    GRANT SELECT ON goose_db_version, patients, patient_charts, patient_imports, patient_import_items, transmissions,
        transmission_attempts, ecw_gates, ecw_places, sessions, denied_tokens
    TO vantrexia_readonly;
    GRANT SELECT (
        id, practice_code, patient_id, observation_type, effective_at, posted_by, created_at, transformed_at, resource_version,
        reading, resource
    ) ON observations TO vantrexia_readonly;
    GRANT SELECT (
        id, practice_code, role, profile, password_temporary_until, totp_enabled, last_sign_in_at, disabled_at, created_at, updated_at
    ) ON users TO vantrexia_readonly;
    GRANT SELECT (
        id, practice_code, name, role, prefix, devices, created_at, created_by, reason, expires_at, last_used_at, revoked_at,
        revoked_by, revoke_reason
    ) ON api_keys TO vantrexia_readonly;
    GRANT SELECT (practice_code, failures, locked_until, last_failed_at) ON sign_in_failures TO vantrexia_readonly;
END
$$;
