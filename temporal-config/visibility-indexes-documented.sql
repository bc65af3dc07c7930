-- Empties the indexes of Temporal's visibility table that neither the documented queries nor the Web UI's
-- lists need: some 50 of 73, each of which every step of a workflow would write. They stay under their names,
-- with no rows in them, because Temporal's upgrades drop and change indexes by name. Their definitions are kept
-- for visibility-indexes-all.sql. Running it again does nothing.
CREATE TABLE IF NOT EXISTS emptied_visibility_indexes (
    name       text PRIMARY KEY,
    definition text NOT NULL
);

DO $$
DECLARE
    unneeded record;
BEGIN
    FOR unneeded IN
        SELECT indexname, indexdef
        FROM pg_indexes
        WHERE tablename = 'executions_visibility'
          AND indexdef NOT LIKE '%WHERE false'
          AND indexname <> 'executions_visibility_pkey'
          AND indexname NOT IN (
              'default_idx', 'by_workflow_id', 'by_workflow_type', 'by_status', -- the Web UI's lists and filters
              -- Vantrexia's attributes: Temporal gives each a column of its type, whichever of them.
              'by_keyword_01', 'by_keyword_02', 'by_keyword_03', 'by_keyword_04', 'by_keyword_05',
              'by_keyword_06', 'by_keyword_07', 'by_keyword_08', 'by_keyword_09', 'by_keyword_10',
              'by_int_01', 'by_int_02', 'by_int_03',
              'by_datetime_01', 'by_datetime_02', 'by_datetime_03'
          )
    LOOP
        INSERT INTO emptied_visibility_indexes (name, definition)
        VALUES (unneeded.indexname, unneeded.indexdef)
        ON CONFLICT (name) DO UPDATE SET definition = excluded.definition;
        EXECUTE format('DROP INDEX %I', unneeded.indexname);
        EXECUTE format('CREATE INDEX %I ON executions_visibility (namespace_id) WHERE false', unneeded.indexname);
    END LOOP;
END $$;
