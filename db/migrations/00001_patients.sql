-- The patients of each practice, and their link to eClinicalWorks.

-- +goose Up
CREATE TABLE patients (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    practice_code text        NOT NULL CHECK (practice_code <> ''),
    first_name    text        NOT NULL CHECK (first_name <> ''),
    last_name     text        NOT NULL CHECK (last_name <> ''),
    date_of_birth date        NOT NULL,
    -- One of FHIR's administrative genders; null: not known.
    gender        text        CHECK (gender IN ('male', 'female', 'other', 'unknown')),
    mrn           text        NOT NULL CHECK (mrn <> ''),
    -- The id of the Patient resource in eCW; null until the patient is linked.
    external_id   text        CHECK (external_id <> ''),
    phone         text        NOT NULL DEFAULT '',
    email         text        NOT NULL DEFAULT '',
    address_line1 text        NOT NULL DEFAULT '',
    address_line2 text        NOT NULL DEFAULT '',
    city          text        NOT NULL DEFAULT '',
    state         text        NOT NULL DEFAULT '',
    zip           text        NOT NULL DEFAULT '',
    -- Since this moment the patient is archived, and nothing is sent to eCW. Null: the patient is active.
    archived_at   timestamptz,
    -- Since this moment eCW shows another person under external_id, and the patient's readings are held.
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
    CONSTRAINT patients_external_id_key UNIQUE (practice_code, external_id),
    CONSTRAINT patients_mismatch_linked CHECK (external_id IS NOT NULL OR mismatch_since IS NULL AND mismatch_confirmed IS NULL)
);
-- The list of patients in each of its orders: of all, of the active ones, of the archived ones.
CREATE INDEX patients_by_name ON patients (practice_code, last_name, first_name, id);
CREATE INDEX patients_by_creation ON patients (practice_code, created_at, id);
CREATE INDEX patients_active_by_name ON patients (practice_code, last_name, first_name, id) WHERE archived_at IS NULL;
CREATE INDEX patients_active_by_creation ON patients (practice_code, created_at, id) WHERE archived_at IS NULL;
CREATE INDEX patients_archived_by_name ON patients (practice_code, last_name, first_name, id) WHERE archived_at IS NOT NULL;
CREATE INDEX patients_archived_by_creation ON patients (practice_code, created_at, id) WHERE archived_at IS NOT NULL;
CREATE INDEX patients_mismatched ON patients (practice_code, last_name, first_name, id) WHERE mismatch_since IS NOT NULL;
-- The search by the beginning of a name or an MRN. text_pattern_ops compares bytes, as the search does.
CREATE INDEX patients_search_last_name ON patients (practice_code, lower(last_name) text_pattern_ops);
CREATE INDEX patients_search_first_name ON patients (practice_code, lower(first_name) text_pattern_ops);
CREATE INDEX patients_search_mrn ON patients (practice_code, lower(mrn) text_pattern_ops);
