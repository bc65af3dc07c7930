-- Drops what 00012 has sealed. Each table is written anew while one of its columns changes its type, so that no
-- dropped value is left in its file.

-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION chart_of(observation uuid, ecw text) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT c.id
    FROM observations o
    JOIN plain_charts c ON c.patient_id = o.patient_id
    WHERE o.id = observation
      AND c.ecw_patient_id = ecw
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION chart_of_attempt(transmission uuid, ecw text) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT chart_of(t.observation_id, ecw)
    FROM transmissions t
    WHERE t.id = transmission
$$;
-- +goose StatementEnd

-- A chart is never deleted. No foreign key says so: each delivery would lock its chart for it, and one from patients
-- would close a circle, in which a dump of the data alone could not be restored.
ALTER TABLE transmission_attempts ALTER COLUMN ecw_patient_id TYPE uuid USING chart_of_attempt(transmission_id, ecw_patient_id);
ALTER TABLE transmission_attempts RENAME COLUMN ecw_patient_id TO chart_id;
ALTER TABLE transmissions ALTER COLUMN ecw_patient_id TYPE uuid USING chart_of(observation_id, ecw_patient_id);
ALTER TABLE transmissions RENAME COLUMN ecw_patient_id TO chart_id;

UPDATE patients p
SET chart_id = c.id
FROM plain_charts c
WHERE c.patient_id = p.id
  AND c.ecw_patient_id = p.external_id;

DROP FUNCTION chart_of_attempt(uuid, text);
DROP FUNCTION chart_of(uuid, text);
DROP TABLE plain_charts;

-- With the columns go their constraints, and the indexes of the orders and of the search: package db sorts and
-- searches decrypted names in memory.
ALTER TABLE patients
    DROP COLUMN first_name,
    DROP COLUMN last_name,
    DROP COLUMN date_of_birth,
    DROP COLUMN gender,
    DROP COLUMN mrn,
    DROP COLUMN external_id,
    DROP COLUMN phone,
    DROP COLUMN email,
    DROP COLUMN address_line1,
    DROP COLUMN address_line2,
    DROP COLUMN city,
    DROP COLUMN state,
    DROP COLUMN zip,
    DROP COLUMN mismatch_confirmed;
ALTER TABLE patients
    ALTER COLUMN demographics TYPE bytea USING demographics || ''::bytea,
    ALTER COLUMN demographics SET NOT NULL,
    ALTER COLUMN id DROP DEFAULT,
    ADD CONSTRAINT patients_mrn_a UNIQUE (practice_code, mrn_index_a),
    ADD CONSTRAINT patients_mrn_b UNIQUE (practice_code, mrn_index_b),
    ADD CONSTRAINT patients_external_id_a UNIQUE (practice_code, external_id_index_a),
    ADD CONSTRAINT patients_external_id_b UNIQUE (practice_code, external_id_index_b),
    ADD CONSTRAINT patients_mrn_indexed CHECK (mrn_index_a IS NOT NULL OR mrn_index_b IS NOT NULL),
    ADD CONSTRAINT patients_linked CHECK ((chart_id IS NULL) = (external_id_index_a IS NULL AND external_id_index_b IS NULL)),
    ADD CONSTRAINT patients_mismatch_linked CHECK (chart_id IS NOT NULL OR mismatch_since IS NULL);
DROP INDEX patients_by_creation;
DROP INDEX patients_active_by_creation;
DROP INDEX patients_archived_by_creation;
-- The few patients whose readings are held: the queue, the circuit and the figures leave these out.
CREATE INDEX patients_archived ON patients (practice_code, id) WHERE archived_at IS NOT NULL;
CREATE INDEX patients_mismatched ON patients (practice_code, id) WHERE mismatch_since IS NOT NULL;
-- The patients who have changed since they were read.
CREATE INDEX patients_changed ON patients (practice_code, updated_at);

ALTER TABLE patient_import_items DROP COLUMN ecw_fhir_id;
ALTER TABLE patient_import_items RENAME COLUMN sealed_ecw_fhir_id TO ecw_fhir_id;
ALTER TABLE patient_import_items
    ALTER COLUMN ecw_fhir_id TYPE bytea USING ecw_fhir_id || ''::bytea,
    ALTER COLUMN ecw_fhir_id SET NOT NULL;
