-- Passwords: what OPAQUE needs, what a password and a recovery code protect, logins under way, and counted guesses.

-- Secrets of the server itself, made once for all nodes on this database.
CREATE TABLE server_secrets (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- Beside opaque_record: 0 is an account without a password. The strongbox is signed by its user and sealed; its user
-- keys are rows of user_keys.
ALTER TABLE users ADD COLUMN strongbox_version bigint NOT NULL DEFAULT 0 CHECK (strongbox_version >= 0);
ALTER TABLE users ADD COLUMN strongbox bytea;
ALTER TABLE users ADD CONSTRAINT users_strongbox_whole
    CHECK ((strongbox_version = 0) = (strongbox IS NULL) AND (strongbox IS NULL) = (opaque_record IS NULL));

ALTER TABLE user_keys ADD COLUMN recovery_sealed_key bytea CHECK (octet_length(recovery_sealed_key) = 80);

-- A session that a login by password or recovery code made: it may certify itself, and was given the sealed halves.
ALTER TABLE user_sessions ADD COLUMN logged_in_at timestamptz;

-- Neither lasts: a crash of the database ends logins under way and forgets counted guesses, and nothing of them is in
-- Postgres' log.
CREATE UNLOGGED TABLE password_logins (
    id            uuid PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('password', 'recovery')),
    username      text NOT NULL,
    user_id       uuid,
    strongbox_version bigint NOT NULL,
    pair          bytea NOT NULL,
    state         bytea NOT NULL,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX password_logins_by_expiry ON password_logins (expires_at);

CREATE UNLOGGED TABLE password_tries (
    bucket   bytea PRIMARY KEY,
    empty_at timestamptz NOT NULL
);
CREATE INDEX password_tries_by_end ON password_tries (empty_at);
