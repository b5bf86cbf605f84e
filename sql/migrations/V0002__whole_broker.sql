-- What a chat needs beyond the first line: rights and history that change, accounts that end, who may add whom,
-- copies that are asked for and refused, and the purge of what was deleted.

ALTER TABLE users ADD COLUMN add_policy text NOT NULL DEFAULT 'everyone'
    CHECK (add_policy IN ('everyone', 'shared_chat', 'nobody'));

CREATE TABLE user_blocks (
    user_id         uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    blocked_user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, blocked_user_id),
    CHECK (user_id <> blocked_user_id)
);
CREATE INDEX user_blocks_by_blocked ON user_blocks (blocked_user_id);

ALTER TABLE user_events DROP CONSTRAINT user_events_kind_check;
ALTER TABLE user_events ADD CONSTRAINT user_events_kind_check CHECK (kind IN ('certificate', 'revocation', 'deletion'));
ALTER TABLE user_events ALTER COLUMN session_id DROP NOT NULL;

-- The seq from which on a member may read: that of their joining, or under a shared history where that began.
ALTER TABLE user_in_chat ADD COLUMN readable_from bigint CHECK (readable_from > 0 AND readable_from <= joined_seq);
UPDATE user_in_chat SET readable_from = joined_seq;
ALTER TABLE user_in_chat ALTER COLUMN readable_from SET NOT NULL;

-- Where a shared history began; null while newcomers read from their joining on.
ALTER TABLE chats ADD COLUMN shared_since bigint CHECK (shared_since > 0);
ALTER TABLE chats ADD CHECK ((history_policy = 'shared') = (shared_since IS NOT NULL));

ALTER TABLE chat_events DROP CONSTRAINT chat_events_kind_check;
ALTER TABLE chat_events ADD CONSTRAINT chat_events_kind_check
    CHECK (kind IN ('membership', 'session_in', 'session_out', 'account_deleted', 'user_key', 'generation'));
-- Of a membership change: what changed. The rare ones are counted against their limits.
ALTER TABLE chat_events ADD COLUMN change text CHECK (change IS NULL OR kind = 'membership');
CREATE INDEX chat_events_limited ON chat_events (chat_id, change, created_at) WHERE change IN ('rekey', 'set_history');

-- Messages of a key whose data is still there: at 0 the copies of a key that is no longer used go (P13).
ALTER TABLE sender_keys ADD COLUMN messages_with_data bigint NOT NULL DEFAULT 0 CHECK (messages_with_data >= 0);
UPDATE sender_keys k SET messages_with_data = (SELECT count(*) FROM chat_messages m
    WHERE m.chat_id = k.chat_id AND m.key_id = k.key_id AND m.data IS NOT NULL);

-- The seq of the first message of a key: who may not read it gets the key from nobody but its sender.
ALTER TABLE sender_keys ADD COLUMN first_seq bigint CHECK (first_seq > 0);
UPDATE sender_keys k SET first_seq = (SELECT min(seq) FROM chat_messages m
    WHERE m.chat_id = k.chat_id AND m.key_id = k.key_id);

-- What recipients said of bad copies. The first refusal of the sender's own copy voids it; the second is final.
CREATE TABLE refused_copies (
    chat_id                uuid NOT NULL,
    sender_key_id          uuid NOT NULL,
    session_id             uuid NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    uploaded_by_session_id uuid NOT NULL,
    copy_hash              bytea NOT NULL CHECK (octet_length(copy_hash) = 32),
    reason                 text NOT NULL,
    signature              bytea NOT NULL CHECK (octet_length(signature) = 64),
    -- The copy stays and counts as present: this was the second refusal.
    is_final               boolean NOT NULL,
    -- It voided the copy or is final; beyond the limit of an hour a refusal is noted and changes nothing.
    has_effect             boolean NOT NULL,
    created_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, sender_key_id, session_id, copy_hash),
    FOREIGN KEY (chat_id, sender_key_id) REFERENCES sender_keys (chat_id, key_id) ON DELETE CASCADE
);
CREATE INDEX refused_copies_by_session ON refused_copies (session_id, created_at);

-- Copies that sessions asked for and nobody has handed on yet.
CREATE TABLE key_requests (
    chat_id       uuid NOT NULL,
    sender_key_id uuid NOT NULL,
    session_id    uuid NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, sender_key_id, session_id),
    FOREIGN KEY (chat_id, sender_key_id) REFERENCES sender_keys (chat_id, key_id) ON DELETE CASCADE
);
CREATE INDEX key_requests_by_session ON key_requests (session_id);

-- A session's keys of one epoch in order: which one is its current one, and whether a later one has replaced another.
-- Without the session in it the sweep would compare each key of an epoch with all others.
CREATE INDEX sender_keys_by_session ON sender_keys (chat_id, epoch, sender_session_id, created_at);
DROP INDEX sender_keys_by_epoch;
