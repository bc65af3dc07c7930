-- Fills the indexes again that visibility-indexes-documented.sql has emptied. Running it again does nothing.
CREATE TABLE IF NOT EXISTS emptied_visibility_indexes (
    name       text PRIMARY KEY,
    definition text NOT NULL
);

DO $$
DECLARE
    emptied record;
BEGIN
    FOR emptied IN SELECT name, definition FROM emptied_visibility_indexes LOOP
        EXECUTE format('DROP INDEX IF EXISTS %I', emptied.name);
        EXECUTE emptied.definition;
    END LOOP;
    DELETE FROM emptied_visibility_indexes;
END $$;
