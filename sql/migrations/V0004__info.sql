-- Names and descriptions that change: which revision, by whose signature, under a key made when; where a recipient
-- was lost last, and who lacks a key that others may hand on.

ALTER TABLE chats ADD COLUMN info_revision bigint NOT NULL DEFAULT 0 CHECK (info_revision >= 0);
ALTER TABLE chats ADD COLUMN info_session_id uuid;
ALTER TABLE chats ADD COLUMN info_signature bytea CHECK (octet_length(info_signature) = 64);
-- Signatures of the newest saves, the newest first: who repeats one whose answer was lost is told that it is done.
ALTER TABLE chats ADD COLUMN info_recent bytea[] NOT NULL DEFAULT '{}';
ALTER TABLE chats ADD CHECK ((info_revision = 0) = (info_signature IS NULL) AND (info_revision = 0) = (info_session_id IS NULL));

-- A key is stale if a recipient was lost after the entry that its maker had seen last. Of the time before this line it
-- is not known: the next save brings a new key.
ALTER TABLE chats ADD COLUMN info_key_seq bigint NOT NULL DEFAULT 0 CHECK (info_key_seq >= 0);
ALTER TABLE chats ADD COLUMN info_lost_seq bigint NOT NULL DEFAULT 0 CHECK (info_lost_seq >= 0);
UPDATE chats SET info_lost_seq = last_seq;

-- Sessions without a wrap of their chat's info key, found when they came in or came online.
CREATE TABLE info_key_requests (
    chat_id    uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    session_id uuid NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, session_id)
);
CREATE INDEX info_key_requests_by_session ON info_key_requests (session_id);
