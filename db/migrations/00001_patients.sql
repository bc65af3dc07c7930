-- The patients of each practice, and their link to eClinicalWorks.

-- +goose Up
CREATE TABLE patients (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    first_name    text        NOT NULL CHECK (first_name <> ''),
    last_name     text        NOT NULL CHECK (last_name <> ''),
    birth_date    date        NOT NULL,
    mrn           text        NOT NULL CHECK (mrn <> ''),
    -- The id of the Patient resource in eCW; null until the patient is linked.
    ecw_fhir_id   text        CHECK (ecw_fhir_id <> ''),
    phone         text        NOT NULL DEFAULT '',
    address_line  text        NOT NULL DEFAULT '',
    city          text        NOT NULL DEFAULT '',
    state         text        NOT NULL DEFAULT '',
    postal_code   text        NOT NULL DEFAULT '',
    country       text        NOT NULL DEFAULT '',
    active        boolean     NOT NULL DEFAULT true,
    -- Since this moment eCW shows another person under ecw_fhir_id, and the patient's readings are held.
    -- Null: there is no mismatch.
    mismatch_since     timestamptz,
    -- A fingerprint of the family name and birth date that eCW showed when a person confirmed that this is
    -- the same patient although they differ. Null: nothing was confirmed, or eCW's were taken over since.
    mismatch_confirmed text        CHECK (mismatch_confirmed <> ''),
    -- Readings that were measured up to this moment may have been pruned. One of them that comes again looks
    -- new, so eCW is asked for it before it is sent. Null: none was pruned.
    readings_pruned_to timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT patients_mrn_key UNIQUE (practice_code, mrn),
    CONSTRAINT patients_ecw_fhir_id_key UNIQUE (practice_code, ecw_fhir_id),
    CONSTRAINT patients_mismatch_linked CHECK (ecw_fhir_id IS NOT NULL OR mismatch_since IS NULL AND mismatch_confirmed IS NULL)
);
CREATE INDEX patients_by_name ON patients (practice_code, last_name, first_name, id);
CREATE INDEX patients_mismatched ON patients (practice_code, last_name, first_name, id) WHERE mismatch_since IS NOT NULL;
