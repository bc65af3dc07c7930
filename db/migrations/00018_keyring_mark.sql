-- By this one row a process recognises that its keyring is not the one of this database.

-- +goose Up
CREATE TABLE keyring_mark (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- A text that is sealed with the keyset columns.
    sealed bytea   NOT NULL,
    -- The keyed hash of a text under the keyset indexes.
    digest bytea   NOT NULL
);
