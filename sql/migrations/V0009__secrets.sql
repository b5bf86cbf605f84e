-- Group secrets as they are signed. The tables of before were never written to.
DROP TABLE group_secret_audit;
DROP TABLE group_secrets;

CREATE TABLE group_secrets (
    chat_id         uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    id              uuid NOT NULL,
    revision        bigint NOT NULL CHECK (revision > 0),
    -- By which the next revision names this one.
    hash            bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- The newest revision as its session signed it, with the sealed name; of a deleted secret its signed deletion.
    signed          bytea NOT NULL,
    -- Of a deleted secret these are gone.
    generation      bigint CHECK (generation > 0),
    value           bytea,
    changed_seq     bigint,
    -- Who set it last, and when; who made the newest revision.
    writer_id       uuid,
    changed_at      timestamptz,
    sealed_by       uuid,
    -- What a re-encryption was made of, kept until a second member has opened both.
    kept_signed     bytea,
    kept_value      bytea,
    kept_hash       bytea CHECK (octet_length(kept_hash) = 32),
    kept_generation bigint,
    deleted_at      timestamptz,
    PRIMARY KEY (chat_id, id),
    CHECK ((deleted_at IS NULL) = (generation IS NOT NULL) AND (generation IS NULL) = (value IS NULL)
        AND (generation IS NULL) = (changed_seq IS NULL) AND (generation IS NULL) = (writer_id IS NULL)
        AND (generation IS NULL) = (changed_at IS NULL) AND (generation IS NULL) = (sealed_by IS NULL)),
    CHECK ((kept_signed IS NULL) = (kept_value IS NULL) AND (kept_signed IS NULL) = (kept_hash IS NULL)
        AND (kept_signed IS NULL) = (kept_generation IS NULL) AND (kept_signed IS NULL OR deleted_at IS NULL))
);

CREATE TABLE group_secret_audit (
    chat_id    uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    secret_id  uuid NOT NULL,
    user_id    uuid NOT NULL,
    session_id uuid NOT NULL,
    action     text NOT NULL CHECK (action IN ('create', 'change', 'read', 'delete', 'reencrypt', 'confirm')),
    revision   bigint NOT NULL CHECK (revision > 0),
    -- Of what was signed: who repeats a request whose answer was lost is told that it is done.
    signature  bytea CHECK (octet_length(signature) = 64),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, id)
);
