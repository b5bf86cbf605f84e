-- The whole data model. Ciphertext, wrapped keys, public keys and signatures are bytea; the server holds no
-- plaintext and no secret key. Every per-chat table leads its primary key with the chat, so that it can be
-- hash-partitioned by chat. What others need to verify a log (certificates, announcements) has weak references:
-- it goes with the chat, not with the user.

CREATE TABLE users (
    id                  uuid PRIMARY KEY,
    username            text NOT NULL UNIQUE CHECK (username ~ '^[a-z0-9][a-z0-9._-]{1,30}[a-z0-9]$'),
    email               bytea,
    name                bytea,
    description         bytea,
    identity_public_key bytea NOT NULL CHECK (octet_length(identity_public_key) = 32),
    info_key_id         uuid,
    opaque_record       bytea,
    -- The head of the user's chain of certificates and revocations.
    chain_place         bigint NOT NULL DEFAULT 0 CHECK (chain_place >= 0),
    chain_hash          bytea NOT NULL CHECK (octet_length(chain_hash) = 32),
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A username is never given out again.
CREATE TABLE retired_usernames (
    username   text PRIMARY KEY,
    retired_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE user_sessions (
    id                 uuid PRIMARY KEY,
    user_id            uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- For a pending session the end of its wait, else the end in its certificate.
    expired_at         timestamptz NOT NULL,
    public_key         bytea NOT NULL CHECK (octet_length(public_key) = 32),
    signing_public_key bytea NOT NULL CHECK (octet_length(signing_public_key) = 32),
    certificate        bytea,
    state              text NOT NULL CHECK (state IN ('pending', 'live', 'expired', 'revoked')),
    label              bytea,
    last_seen_at       timestamptz,
    -- Of a linked session: the proof of its code, and what the approving session handed over, sealed to it.
    link_proof         bytea CHECK (octet_length(link_proof) = 32),
    handover           bytea,
    CHECK (state = 'pending' OR certificate IS NOT NULL)
);
CREATE INDEX user_sessions_by_user ON user_sessions (user_id);
CREATE INDEX user_sessions_due ON user_sessions (expired_at) WHERE state IN ('live', 'pending');

-- The user's signed chain. Weak: it outlives the user where chats still show it.
CREATE TABLE user_events (
    user_id    uuid NOT NULL,
    place      bigint NOT NULL CHECK (place > 0),
    kind       text NOT NULL CHECK (kind IN ('certificate', 'revocation')),
    session_id uuid NOT NULL,
    body       bytea NOT NULL,
    hash       bytea NOT NULL CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, place)
);

CREATE TABLE chats (
    id                   uuid PRIMARY KEY,
    owner_id             uuid NOT NULL REFERENCES users (id),
    name                 bytea,
    description          bytea,
    info_key_id          uuid,
    last_seq             bigint NOT NULL CHECK (last_seq >= 0),
    log_hash             bytea NOT NULL CHECK (octet_length(log_hash) = 32),
    epoch                bigint NOT NULL CHECK (epoch > 0),
    roster_version       bigint NOT NULL,
    roster_hash          bytea NOT NULL CHECK (octet_length(roster_hash) = 32),
    group_key_generation bigint NOT NULL DEFAULT 0,
    history_policy       text NOT NULL DEFAULT 'from_join' CHECK (history_policy IN ('from_join', 'shared')),
    -- The head of the chain of membership changes.
    change_no            bigint NOT NULL CHECK (change_no > 0),
    change_hash          bytea NOT NULL CHECK (octet_length(change_hash) = 32),
    -- The earliest expiry among the recipients: judged in every commit, on the database's clock.
    next_expiry          timestamptz,
    created_at           timestamptz NOT NULL
);
CREATE INDEX chats_by_owner ON chats (owner_id);

CREATE TABLE user_in_chat (
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    chat_id    uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    can_write  boolean NOT NULL,
    can_manage boolean NOT NULL,
    joined_seq bigint NOT NULL CHECK (joined_seq > 0),
    PRIMARY KEY (chat_id, user_id)
);
CREATE INDEX user_in_chat_by_user ON user_in_chat (user_id, chat_id);

-- One row for each revision. A superseded or deleted one keeps its row, signature and hashes; its data goes.
CREATE TABLE chat_messages (
    chat_id           uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    seq               bigint NOT NULL CHECK (seq > 0),
    id                uuid NOT NULL,
    revision          bigint NOT NULL CHECK (revision >= 0),
    kind              text NOT NULL CHECK (kind IN ('message', 'edit', 'delete')),
    sender_id         uuid NOT NULL,
    sender_session_id uuid NOT NULL,
    key_id            uuid,
    counter           bigint NOT NULL,
    created_at        timestamptz NOT NULL,
    roster_hash       bytea NOT NULL CHECK (octet_length(roster_hash) = 32),
    seen_seq          bigint NOT NULL,
    seen_log_hash     bytea NOT NULL CHECK (octet_length(seen_log_hash) = 32),
    attachment_ids    uuid[] NOT NULL DEFAULT '{}',
    data              bytea,
    data_hash         bytea NOT NULL CHECK (octet_length(data_hash) = 32),
    signature         bytea NOT NULL CHECK (octet_length(signature) = 64),
    log_hash          bytea NOT NULL CHECK (octet_length(log_hash) = 32),
    PRIMARY KEY (chat_id, seq),
    UNIQUE (chat_id, id, revision),
    CHECK ((kind = 'delete') = (key_id IS NULL))
);

-- Everything else in the log, in the same sequence.
CREATE TABLE chat_events (
    chat_id    uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    seq        bigint NOT NULL CHECK (seq > 0),
    kind       text NOT NULL CHECK (kind IN ('membership', 'session_in', 'session_out', 'user_key', 'generation')),
    -- Of a membership change: its number.
    change_no  bigint,
    created_at timestamptz NOT NULL,
    body       bytea NOT NULL,
    log_hash   bytea NOT NULL CHECK (octet_length(log_hash) = 32),
    PRIMARY KEY (chat_id, seq),
    UNIQUE (chat_id, change_no),
    CHECK ((kind = 'membership') = (change_no IS NOT NULL))
);

CREATE TABLE sender_keys (
    chat_id           uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    key_id            uuid NOT NULL,
    sender_session_id uuid NOT NULL,
    epoch             bigint NOT NULL,
    commitment        bytea NOT NULL CHECK (octet_length(commitment) = 32),
    announcement      bytea NOT NULL,
    archives          bytea[] NOT NULL DEFAULT '{}',
    last_counter      bigint NOT NULL DEFAULT 0,
    -- The roster version at which its copies were the chat's recipients, none missing and none too many.
    covered_version   bigint,
    created_at        timestamptz NOT NULL,
    PRIMARY KEY (chat_id, key_id)
);
CREATE INDEX sender_keys_by_epoch ON sender_keys (chat_id, epoch);

CREATE TABLE vault_chat_sender_keys (
    id                     uuid NOT NULL DEFAULT gen_random_uuid(),
    chat_id                uuid NOT NULL,
    sender_key_id          uuid NOT NULL,
    session_id             uuid NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    sender_session_id      uuid NOT NULL,
    key                    bytea NOT NULL CHECK (octet_length(key) = 80),
    uploaded_by_session_id uuid NOT NULL,
    PRIMARY KEY (chat_id, sender_key_id, session_id),
    FOREIGN KEY (chat_id, sender_key_id) REFERENCES sender_keys (chat_id, key_id) ON DELETE CASCADE
);
CREATE INDEX vault_chat_sender_keys_by_session ON vault_chat_sender_keys (session_id);

CREATE TABLE vault_chat_info_keys (
    id                    uuid NOT NULL DEFAULT gen_random_uuid(),
    chat_id               uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    key_id                uuid NOT NULL,
    session_id            uuid NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    key                   bytea NOT NULL CHECK (octet_length(key) = 80),
    wrapped_by_session_id uuid NOT NULL,
    signature             bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (chat_id, key_id, session_id)
);
CREATE INDEX vault_chat_info_keys_by_session ON vault_chat_info_keys (session_id);

CREATE TABLE vault_user_info_keys (
    id                    uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id               uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key_id                uuid NOT NULL,
    session_id            uuid NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    key                   bytea NOT NULL CHECK (octet_length(key) = 80),
    wrapped_by_session_id uuid NOT NULL,
    signature             bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (user_id, key_id, session_id)
);
CREATE INDEX vault_user_info_keys_by_session ON vault_user_info_keys (session_id);

CREATE TABLE user_keys (
    user_id               uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key_id                uuid NOT NULL,
    public_key            bytea NOT NULL CHECK (octet_length(public_key) = 32),
    encrypted_private_key bytea NOT NULL,
    algorithm             text NOT NULL,
    is_active             boolean NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    signature             bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (user_id, key_id)
);
CREATE UNIQUE INDEX user_keys_active ON user_keys (user_id) WHERE is_active;

-- Without its key a row is a tombstone: the server still knows who had received the backup.
CREATE TABLE vault_backup_session_keys (
    id                    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind                  text NOT NULL CHECK (kind IN ('full', 'share')),
    session_id            uuid REFERENCES user_sessions (id) ON DELETE CASCADE,
    backed_up_session_id  uuid NOT NULL,
    backed_up_user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    holder_user_id        uuid REFERENCES users (id) ON DELETE CASCADE,
    holder_key_id         uuid,
    key                   bytea,
    wrapped_by_session_id uuid NOT NULL,
    signature             bytea NOT NULL CHECK (octet_length(signature) = 64),
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((kind = 'share') = (session_id IS NULL)),
    CHECK ((kind = 'share') = (holder_user_id IS NOT NULL AND holder_key_id IS NOT NULL)),
    FOREIGN KEY (holder_user_id, holder_key_id) REFERENCES user_keys (user_id, key_id) ON DELETE CASCADE
);
CREATE INDEX vault_backup_session_keys_by_session ON vault_backup_session_keys (session_id);
CREATE INDEX vault_backup_session_keys_by_user ON vault_backup_session_keys (backed_up_user_id);
CREATE INDEX vault_backup_session_keys_by_holder ON vault_backup_session_keys (holder_user_id, holder_key_id);

CREATE TABLE group_keys (
    group_id              uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    user_id               uuid NOT NULL,
    key_id                uuid NOT NULL,
    generation            bigint NOT NULL CHECK (generation > 0),
    encrypted_key         bytea NOT NULL,
    wrapped_by_session_id uuid NOT NULL,
    signature             bytea NOT NULL CHECK (octet_length(signature) = 64),
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (group_id, user_id, key_id, generation),
    FOREIGN KEY (user_id, key_id) REFERENCES user_keys (user_id, key_id) ON DELETE CASCADE
);
CREATE INDEX group_keys_by_user ON group_keys (user_id, key_id);

CREATE TABLE session_cursors (
    chat_id    uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    session_id uuid NOT NULL REFERENCES user_sessions (id) ON DELETE CASCADE,
    seq        bigint NOT NULL CHECK (seq >= 0),
    PRIMARY KEY (chat_id, session_id)
);
CREATE INDEX session_cursors_by_session ON session_cursors (session_id);

CREATE TABLE group_secrets (
    chat_id               uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    id                    uuid NOT NULL,
    generation            bigint NOT NULL,
    name                  bytea NOT NULL,
    value                 bytea NOT NULL,
    -- The ciphertext before a re-encryption, kept until a second member has opened both.
    previous_value        bytea,
    written_by_session_id uuid NOT NULL,
    signature             bytea NOT NULL CHECK (octet_length(signature) = 64),
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, id)
);

CREATE TABLE group_secret_audit (
    chat_id    uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    secret_id  uuid NOT NULL,
    user_id    uuid NOT NULL,
    session_id uuid NOT NULL,
    action     text NOT NULL CHECK (action IN ('create', 'change', 'read', 'delete', 'reencrypt')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, id)
);

CREATE TABLE attachments (
    chat_id             uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    id                  uuid NOT NULL,
    message_id          uuid,
    uploaded_by_user_id uuid NOT NULL,
    size_bytes          bigint NOT NULL CHECK (size_bytes >= 0),
    content_hash        bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, id)
);
CREATE INDEX attachments_by_message ON attachments (chat_id, message_id);
