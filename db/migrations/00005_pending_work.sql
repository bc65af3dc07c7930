-- Indexes for the sweep, the circuit, the status page and the lists, so that none of them reads what is
-- delivered.

-- +goose Up
CREATE INDEX observations_not_transformed ON observations (created_at) WHERE transformed_at IS NULL;
CREATE INDEX observations_untouched_of_patient ON observations (patient_id) WHERE transformed_at IS NULL;
CREATE INDEX transmissions_unfinished ON transmissions (practice_code, updated_at, id)
    WHERE status IN ('pending', 'processing') OR (status = 'failed' AND next_retry_at IS NOT NULL);
CREATE INDEX transmissions_finished ON transmissions (practice_code, status, updated_at) WHERE status IN ('transmitted', 'failed');

-- The transmission log in each of its orders, and for the filters that few rows may pass. Rows without the
-- time of an order come after the others, in the order of their creation. Nearly all rows have no next retry,
-- so that order needs no index of its own for them.
CREATE INDEX transmissions_newest ON transmissions (practice_code, created_at DESC, id DESC);
CREATE INDEX transmissions_by_status ON transmissions (practice_code, status, created_at DESC, id DESC);
CREATE INDEX transmissions_attempted ON transmissions (practice_code, last_attempted_at DESC, id DESC) WHERE last_attempted_at IS NOT NULL;
CREATE INDEX transmissions_unattempted ON transmissions (practice_code, created_at DESC, id DESC) WHERE last_attempted_at IS NULL;
CREATE INDEX transmissions_retried ON transmissions (practice_code, next_retry_at DESC, id DESC) WHERE next_retry_at IS NOT NULL;
CREATE INDEX observations_by_type ON observations (practice_code, observation_type);
