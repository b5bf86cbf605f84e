-- Links between generations of a group key, for newcomers under a shared history.

-- The place of the generation in the log: none of those that were made before this line, which are never linked.
ALTER TABLE group_keys ADD COLUMN seq bigint CHECK (seq > 0);

-- The group key of the generation before, sealed to the recovery key of this one.
CREATE TABLE generation_links (
    chat_id              uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    generation           bigint NOT NULL CHECK (generation > 1),
    key                  bytea NOT NULL CHECK (octet_length(key) = 80),
    linked_by_session_id uuid NOT NULL,
    signature            bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (chat_id, generation)
);
