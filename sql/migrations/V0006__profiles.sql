-- What users say of themselves: which revision, by whose signature, under a key that nobody holds who may not read.

ALTER TABLE users ADD COLUMN info_revision bigint NOT NULL DEFAULT 0 CHECK (info_revision >= 0);
ALTER TABLE users ADD COLUMN info_session_id uuid;
ALTER TABLE users ADD COLUMN info_signature bytea CHECK (octet_length(info_signature) = 64);
-- Signatures of the newest saves, the newest first: who repeats one whose answer was lost is told that it is done.
ALTER TABLE users ADD COLUMN info_recent bytea[] NOT NULL DEFAULT '{}';
-- Sessions that were ever given the current info key. Wraps may go, with their sessions or accounts; this number stays,
-- so a key that somebody holds who may not read any more is known by fewer readers than were given it.
ALTER TABLE users ADD COLUMN info_given bigint NOT NULL DEFAULT 0 CHECK (info_given >= 0);
-- The info key sealed to the user's own user key.
ALTER TABLE users ADD COLUMN info_user_key_id uuid;
ALTER TABLE users ADD COLUMN info_user_key bytea CHECK (octet_length(info_user_key) = 80);
ALTER TABLE users ADD COLUMN info_user_key_by uuid;
ALTER TABLE users ADD COLUMN info_user_key_signature bytea CHECK (octet_length(info_user_key_signature) = 64);
ALTER TABLE users ADD CONSTRAINT users_info_whole CHECK (
    (info_revision = 0) = (info_signature IS NULL) AND (info_revision = 0) = (info_session_id IS NULL)
    AND (info_revision = 0) = (info_key_id IS NULL)
    AND (info_user_key_id IS NULL) = (info_user_key IS NULL)
    AND (info_user_key_id IS NULL) = (info_user_key_by IS NULL)
    AND (info_user_key_id IS NULL) = (info_user_key_signature IS NULL));
CREATE INDEX users_with_profile ON users (id) WHERE info_key_id IS NOT NULL;

-- A session may hold the key without a wrap that is of use to it: it says that the one it has is bad, or it was given
-- the key at its login. Its row counts, and another wrap takes its place.
ALTER TABLE vault_user_info_keys ADD COLUMN is_usable boolean NOT NULL DEFAULT true;
