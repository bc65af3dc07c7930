-- Imports of patients from eCW: the ids that were asked for, and the outcome of each.

-- +goose Up
CREATE TABLE patient_imports (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    -- The daily refresh, for which nobody asked.
    refresh       boolean     NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz
);

CREATE TABLE patient_import_items (
    import_id   uuid    NOT NULL REFERENCES patient_imports ON DELETE CASCADE,
    ordinal     integer NOT NULL CHECK (ordinal > 0),
    ecw_fhir_id text    NOT NULL CHECK (ecw_fhir_id <> ''),
    -- Null until the item is done. imported: the patient is new or newly linked. skipped: the patient was
    -- linked already.
    outcome     text    CHECK (outcome IN ('imported', 'skipped', 'error')),
    patient_id  uuid    REFERENCES patients,
    reason      text    NOT NULL DEFAULT '',
    PRIMARY KEY (import_id, ordinal),
    CONSTRAINT patient_import_items_once UNIQUE (import_id, ecw_fhir_id),
    CONSTRAINT patient_import_items_linked CHECK ((outcome IN ('imported', 'skipped')) IS NOT TRUE OR patient_id IS NOT NULL),
    CONSTRAINT patient_import_items_explained CHECK (outcome IS DISTINCT FROM 'error' OR reason <> '')
);
CREATE INDEX patient_import_items_open ON patient_import_items (import_id, ordinal) WHERE outcome IS NULL;
