-- The patients' data, their ids in eCW and the ids of imports are sealed by package db (keyring). This adds the
-- sealed columns; the next migration, in Go because it needs the keys, fills them; the one after it drops what
-- was in clear.

-- +goose Up
ALTER TABLE patients
    -- JSON of what is known of the person, and the id of the Patient resource in eCW (db.Demographics).
    ADD COLUMN demographics        bytea,
    -- What a value is found by and kept unique with: a keyed hash. A key with an even id has column a, one with
    -- an odd id column b, and while keys are rotated both columns are filled (keyring.Index).
    ADD COLUMN mrn_index_a         bytea,
    ADD COLUMN mrn_index_b         bytea,
    ADD COLUMN external_id_index_a bytea,
    ADD COLUMN external_id_index_b bytea,
    -- The patient's chart in eCW; null until the patient is linked.
    ADD COLUMN chart_id            uuid;

ALTER TABLE patient_import_items ADD COLUMN sealed_ecw_fhir_id bytea;

-- Former charts get an id each, and so does every chart that a patient is linked to.
ALTER TABLE patient_charts RENAME TO plain_charts;
ALTER INDEX patient_charts_pkey RENAME TO plain_charts_pkey;
ALTER TABLE plain_charts
    ADD COLUMN id      uuid    NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    ADD COLUMN sent_to boolean NOT NULL DEFAULT true;
INSERT INTO plain_charts (patient_id, ecw_patient_id, sent_to)
SELECT id, external_id, false
FROM patients
WHERE external_id IS NOT NULL
ON CONFLICT DO NOTHING;
INSERT INTO plain_charts (patient_id, ecw_patient_id)
SELECT DISTINCT o.patient_id, a.ecw_patient_id
FROM transmission_attempts a
JOIN transmissions t ON t.id = a.transmission_id
JOIN observations o ON o.id = t.observation_id
WHERE a.ecw_patient_id IS NOT NULL
UNION
SELECT DISTINCT o.patient_id, t.ecw_patient_id
FROM transmissions t
JOIN observations o ON o.id = t.observation_id
WHERE t.ecw_patient_id IS NOT NULL
ON CONFLICT DO NOTHING;

-- Every chart in eCW that a patient is or was linked to.
CREATE TABLE patient_charts (
    id                  uuid        PRIMARY KEY,
    practice_code       text        NOT NULL CHECK (practice_code <> ''),
    patient_id          uuid        NOT NULL REFERENCES patients,
    -- The id of the Patient resource, sealed.
    ecw_patient_id      bytea       NOT NULL,
    -- The same hashes as in patients.
    external_id_index_a bytea,
    external_id_index_b bytea,
    -- A reading may have been sent to it. A patient's former charts to which nothing was sent are not searched.
    sent_to             boolean     NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT patient_charts_once_a UNIQUE (patient_id, external_id_index_a),
    CONSTRAINT patient_charts_once_b UNIQUE (patient_id, external_id_index_b),
    CONSTRAINT patient_charts_indexed CHECK (external_id_index_a IS NOT NULL OR external_id_index_b IS NOT NULL)
);

-- By this one row a process recognises that its keyring is not the one of this database. The next migration writes it.
CREATE TABLE keyring_mark (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- A text that is sealed with the keyset columns.
    sealed bytea   NOT NULL,
    -- The keyed hash of a text under the keyset indexes.
    digest bytea   NOT NULL
);
