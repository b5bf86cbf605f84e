-- Group keys: which user key a chat's log shows of each member, whose generation is current, and the archives.

-- Of a user key: a session that had been given the sealed halves was revoked. It serves for reading alone.
ALTER TABLE user_keys ADD COLUMN withdrawn_at timestamptz;

-- The user key that the chat's log shows of a member; none if it shows none.
ALTER TABLE user_in_chat ADD COLUMN user_key_id uuid;

-- The newest generation is in group_key_generation. It is a recipient unless something has outdated it.
ALTER TABLE chats ADD COLUMN recovery_public_key bytea CHECK (octet_length(recovery_public_key) = 32);
ALTER TABLE chats ADD COLUMN generation_session_id uuid;
ALTER TABLE chats ADD COLUMN generation_outdated boolean NOT NULL DEFAULT false;
ALTER TABLE chats ADD CHECK ((group_key_generation = 0) = (recovery_public_key IS NULL)
    AND (group_key_generation = 0) = (generation_session_id IS NULL));

ALTER TABLE chat_events DROP CONSTRAINT chat_events_kind_check;
ALTER TABLE chat_events ADD CONSTRAINT chat_events_kind_check CHECK (kind IN ('membership', 'session_in',
    'session_out', 'account_deleted', 'user_key', 'generation', 'generation_refused'));

-- Archives are rows of their own: one by a key's sender for each generation, and a few by others beside it.
ALTER TABLE sender_keys DROP COLUMN archives;
CREATE TABLE sender_key_archives (
    chat_id                uuid NOT NULL,
    sender_key_id          uuid NOT NULL,
    generation             bigint NOT NULL CHECK (generation > 0),
    archived_by_session_id uuid NOT NULL,
    key                    bytea NOT NULL CHECK (octet_length(key) = 80),
    PRIMARY KEY (chat_id, sender_key_id, generation, archived_by_session_id),
    FOREIGN KEY (chat_id, sender_key_id) REFERENCES sender_keys (chat_id, key_id) ON DELETE CASCADE
);

-- Refusals of generations, counted against their limit.
CREATE TABLE refused_generations (
    chat_id    uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    generation bigint NOT NULL,
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, generation)
);
CREATE INDEX refused_generations_by_user ON refused_generations (user_id, created_at);
