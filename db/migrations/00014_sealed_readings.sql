-- Readings, their resources, and the devices of API keys are sealed. What stands here in clear is sealed in the
-- background (db/reencrypt.go): there may be millions of readings, and nobody should wait for them.

-- +goose Up
ALTER TABLE observations RENAME COLUMN resource TO plain_resource;
ALTER TABLE observations
    -- JSON: the device's name, empty when it is not known, and what was measured. Every number is kept as it was sent.
    ADD COLUMN reading  bytea,
    ADD COLUMN resource bytea,
    -- In clear, of readings that are not sealed yet.
    ALTER COLUMN device DROP NOT NULL,
    ALTER COLUMN measured DROP NOT NULL,
    -- Nobody can compress a ciphertext, so PostgreSQL need not try. The id of its key is read without the rest.
    ALTER COLUMN reading SET STORAGE EXTERNAL,
    ALTER COLUMN resource SET STORAGE EXTERNAL,
    DROP CONSTRAINT observations_transformed,
    ADD CONSTRAINT observations_one_form CHECK (
        (reading IS NULL) = (device IS NOT NULL)
        AND (reading IS NULL) = (measured IS NOT NULL)
        AND (resource IS NULL OR plain_resource IS NULL)
    ),
    ADD CONSTRAINT observations_transformed CHECK (
        (resource IS NULL AND plain_resource IS NULL) = (transformed_at IS NULL)
        AND (resource IS NULL AND plain_resource IS NULL) = (resource_version = 0)
    ),
    -- The id is made from all of this (fhir.ReadingID), so the primary key says it already.
    DROP CONSTRAINT observations_reading_key;
CREATE INDEX observations_of_patient ON observations (patient_id, observation_type);
-- What the background has still to seal.
CREATE INDEX observations_in_clear ON observations (id) WHERE reading IS NULL OR plain_resource IS NOT NULL;

ALTER TABLE api_keys RENAME COLUMN devices TO plain_devices;
ALTER TABLE api_keys
    -- JSON: a list of names.
    ADD COLUMN devices bytea,
    ALTER COLUMN id DROP DEFAULT, -- Go makes it: what is sealed is bound to it
    ALTER COLUMN plain_devices DROP NOT NULL,
    ALTER COLUMN plain_devices DROP DEFAULT,
    ADD CONSTRAINT api_keys_devices CHECK ((devices IS NULL) = (plain_devices IS NOT NULL));

-- A plain hash of a small reading can be guessed. The keys so far go: a reading that is sent again is recognised without.
DELETE FROM idempotency_keys;
ALTER TABLE idempotency_keys
    DROP CONSTRAINT idempotency_keys_key_check,
    -- Keyed hashes: of the sender's subject, the header, and for an item of a batch its number, with U+001F between them;
    -- and of the request's body. The same key with another body is a mistake of the client.
    ALTER COLUMN key TYPE bytea USING NULL::bytea;
