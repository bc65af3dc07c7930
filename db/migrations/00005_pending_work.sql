-- What the sweep and the status page look for, found without reading what is delivered.

-- +goose Up
CREATE INDEX observations_not_transformed ON observations (created_at) WHERE transformed_at IS NULL;
CREATE INDEX transmissions_unfinished ON transmissions (updated_at)
    WHERE status IN ('pending', 'processing') OR (status = 'failed' AND next_retry_at IS NOT NULL);
CREATE INDEX transmissions_newest ON transmissions (practice_code, created_at DESC, id DESC);
CREATE INDEX transmissions_finished ON transmissions (practice_code, updated_at) WHERE status IN ('transmitted', 'failed');
