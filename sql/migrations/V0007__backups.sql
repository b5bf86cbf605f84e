-- Which key of a session a backup has: a session may have replaced its own several times. Of kind 'full' alone.
ALTER TABLE vault_backup_session_keys ADD COLUMN backed_up_public_key bytea
    CHECK (octet_length(backed_up_public_key) = 32);
ALTER TABLE vault_backup_session_keys ADD CHECK ((kind = 'full') = (backed_up_public_key IS NOT NULL));
ALTER TABLE vault_backup_session_keys ADD CHECK (kind <> 'full' OR key IS NULL OR octet_length(key) = 80);

-- The backed-up session first: what was made for it is kept for as long as somebody can open it.
CREATE UNIQUE INDEX vault_backup_session_keys_full
    ON vault_backup_session_keys (backed_up_session_id, session_id, backed_up_public_key) WHERE kind = 'full';
