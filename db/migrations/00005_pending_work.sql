-- What the sweep, the circuit, the status page and the lists look for, found without reading what is delivered.

-- +goose Up
CREATE INDEX observations_not_transformed ON observations (created_at) WHERE transformed_at IS NULL;
CREATE INDEX transmissions_unfinished ON transmissions (practice_code, updated_at, id)
    WHERE status IN ('pending', 'processing') OR (status = 'failed' AND next_retry_at IS NOT NULL);
CREATE INDEX transmissions_finished ON transmissions (practice_code, status, updated_at) WHERE status IN ('transmitted', 'failed');

-- The transmission log in each of its orders, and for the filters that few rows may pass. What lacks the time of an order
-- comes after the others, in the order of its creation; of the rows without a next retry these are nearly all.
CREATE INDEX transmissions_newest ON transmissions (practice_code, created_at DESC, id DESC);
CREATE INDEX transmissions_by_status ON transmissions (practice_code, status, created_at DESC, id DESC);
CREATE INDEX transmissions_attempted ON transmissions (practice_code, last_attempted_at DESC, id DESC) WHERE last_attempted_at IS NOT NULL;
CREATE INDEX transmissions_unattempted ON transmissions (practice_code, created_at DESC, id DESC) WHERE last_attempted_at IS NULL;
CREATE INDEX transmissions_retried ON transmissions (practice_code, next_retry_at DESC, id DESC) WHERE next_retry_at IS NOT NULL;
CREATE INDEX observations_by_type ON observations (practice_code, observation_type);
