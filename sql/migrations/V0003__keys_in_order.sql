-- A session's keys of one epoch in order: which one is its current one, and whether a later one has replaced another.
-- Without the session in it the sweep would compare each key of an epoch with all others.

CREATE INDEX sender_keys_by_session ON sender_keys (chat_id, epoch, sender_session_id, created_at);
DROP INDEX sender_keys_by_epoch;
