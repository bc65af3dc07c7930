-- Readings as devices reported them, and the FHIR resource made from each.

-- +goose Up
CREATE TABLE observations (
    -- Made from what the reading is (fhir.ReadingID), so the same reading has the same id in every database
    -- and in every chart.
    id               uuid        PRIMARY KEY,
    practice_code    text        NOT NULL CHECK (practice_code <> ''),
    patient_id       uuid        NOT NULL REFERENCES patients,
    observation_type text        NOT NULL CHECK (observation_type <> ''),
    effective_at     timestamptz NOT NULL,
    device           text        NOT NULL, -- its name; empty when it is not known
    -- jsonb keeps a decimal's trailing zeros, so a reading keeps the precision of its device.
    measured         jsonb       NOT NULL CHECK (jsonb_typeof(measured) = 'object'),
    created_at       timestamptz NOT NULL DEFAULT now(),
    -- The caller who sent it first (account.Caller.Subject). A machine reads only what it posted.
    posted_by        text        NOT NULL DEFAULT '',
    -- json, not jsonb, which would change the order of the elements.
    resource         json,
    resource_version integer     NOT NULL DEFAULT 0,
    transformed_at   timestamptz,
    -- A reading that a gateway sends twice is one reading.
    CONSTRAINT observations_reading_key UNIQUE (patient_id, observation_type, effective_at, device),
    CONSTRAINT observations_transformed CHECK ((resource IS NULL) = (transformed_at IS NULL)
                                           AND (resource IS NULL) = (resource_version = 0))
);
