-- Recovery by friends: who holds shares of whose recovery code, requests for them, and what friends gave.

-- One set of a user at a time, as its user signed it. It goes with the recovery code that it is of.
CREATE TABLE share_sets (
    user_id      uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    set_id       uuid NOT NULL,
    recovery_key bytea NOT NULL CHECK (octet_length(recovery_key) = 32),
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The shares themselves are backups of kind share: of a user and not of a session.
ALTER TABLE vault_backup_session_keys ALTER COLUMN backed_up_session_id DROP NOT NULL;
ALTER TABLE vault_backup_session_keys ADD COLUMN share_number integer CHECK (share_number BETWEEN 1 AND 16);
ALTER TABLE vault_backup_session_keys ADD CONSTRAINT vault_backup_session_keys_share
    CHECK ((kind = 'share') = (share_number IS NOT NULL) AND (kind = 'share') = (backed_up_session_id IS NULL)
        AND (kind <> 'share' OR (key IS NOT NULL AND octet_length(key) = 80)));
CREATE UNIQUE INDEX vault_backup_session_keys_one_share
    ON vault_backup_session_keys (backed_up_user_id, holder_user_id) WHERE kind = 'share';

CREATE TABLE recovery_requests (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    public_key   bytea NOT NULL CHECK (octet_length(public_key) = 32),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    cancelled_at timestamptz
);
CREATE INDEX recovery_requests_by_user ON recovery_requests (user_id);
CREATE INDEX recovery_requests_by_expiry ON recovery_requests (expires_at);

CREATE TABLE recovery_releases (
    request_id uuid NOT NULL REFERENCES recovery_requests (id) ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    set_id     uuid NOT NULL,
    session_id uuid NOT NULL,
    sealed     bytea NOT NULL,
    signature  bytea NOT NULL CHECK (octet_length(signature) = 64),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (request_id, user_id)
);
CREATE INDEX recovery_releases_by_user ON recovery_releases (user_id);

-- When a session alone last cancelled a request: whoever stole one must not be able to go on doing so.
ALTER TABLE users ADD COLUMN recovery_cancelled_at timestamptz;
