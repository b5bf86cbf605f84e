-- What the operator does by `sealcast admin`: suspended and removed accounts, invitations, and a list of what brokers that
-- serve have yet to notice.

ALTER TABLE users ADD COLUMN suspended_at timestamptz;

-- Accounts that the operator ended: their chains have no deletion at their end, for nobody signed one.
CREATE TABLE removed_users (
    user_id    uuid PRIMARY KEY,
    removed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What is there has passed a narrower check, so nothing is scanned while the table is locked.
ALTER TABLE chat_events DROP CONSTRAINT chat_events_kind_check;
ALTER TABLE chat_events ADD CONSTRAINT chat_events_kind_check CHECK (kind IN ('membership', 'session_in',
    'session_out', 'account_deleted', 'account_removed', 'user_key', 'generation', 'generation_refused')) NOT VALID;

-- The code itself is shown once and not kept. One that is used up or run out stays until it is revoked, or long enough.
CREATE TABLE invitations (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    code_hash  bytea NOT NULL UNIQUE CHECK (octet_length(code_hash) = 32),
    uses_left  integer NOT NULL CHECK (uses_left >= 0),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Written under an advisory lock, so that no smaller id is committed after a larger one. Each broker reads what is
-- newer than what it has read; rows go after a day.
CREATE TABLE operator_actions (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('suspend', 'remove', 'disconnect')),
    user_id    uuid NOT NULL,
    -- Of a disconnect: the one session, or null for all of the user's.
    session_id uuid,
    -- Of a removal: the chats whose logs say so, or that ended.
    chats      uuid[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
