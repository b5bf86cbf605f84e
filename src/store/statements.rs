//! The statements of a commit, prepared once for each connection of the writer.
//!
//! Each is set-based: its parameters are columns, so its cost is not per message in round trips.

use tokio_postgres::{Client, Statement};

use super::error::StoreError;

/// Has statements planned once for each connection, by their keys and indexes: [`Plans::Kept`](super::pool::Plans::Kept).
pub(super) const PLANS: &str = "SET plan_cache_mode = force_generic_plan; SET jit = off; \
     SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";

/// Judges and writes messages that use stored keys, all or none: each chat is where its first message was judged, and each
/// key may be used by its session, at the next counter, with copies for exactly the recipients.
///
/// The rows are judged as they are under their locks, and what somebody else holds counts as otherwise.
const PLAIN: &str = "WITH moves AS (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], \
         $6::bigint[], $7::bytea[]) AS n (id, previous, previous_hash, epoch, roster_version, last_seq, log_hash)), \
     uses AS (SELECT * FROM unnest($8::uuid[], $9::uuid[], $10::uuid[], $11::bigint[], $12::bigint[], $13::bigint[], \
         $14::bigint[], $15::bigint[], $16::bigint[]) \
         AS n (chat_id, key_id, session_id, epoch, roster_version, previous, counter, messages, first_seq)), \
     chats_as_judged AS (SELECT c.id FROM moves n JOIN chats c ON c.id = n.id \
         WHERE c.last_seq = n.previous AND c.log_hash = n.previous_hash AND c.epoch = n.epoch \
         AND c.roster_version = n.roster_version AND NOT coalesce(c.next_expiry <= clock_timestamp(), false) \
         FOR NO KEY UPDATE OF c SKIP LOCKED), \
     keys_as_judged AS (SELECT k.key_id FROM uses n JOIN sender_keys k ON k.chat_id = n.chat_id AND k.key_id = n.key_id \
         WHERE k.sender_session_id = n.session_id AND k.epoch = n.epoch AND k.covered_version = n.roster_version \
         AND k.last_counter = n.previous FOR NO KEY UPDATE OF k SKIP LOCKED), \
     judged AS MATERIALIZED (SELECT (SELECT count(*) FROM chats_as_judged) = cardinality($1::uuid[]) \
         AND (SELECT count(*) FROM keys_as_judged) = cardinality($8::uuid[]) AS is_as_judged), \
     moved AS (UPDATE chats c SET last_seq = n.last_seq, log_hash = n.log_hash FROM moves n \
         WHERE c.id = n.id AND (SELECT is_as_judged FROM judged)), \
     used AS (UPDATE sender_keys k SET last_counter = n.counter, \
             messages_with_data = k.messages_with_data + n.messages, first_seq = coalesce(k.first_seq, n.first_seq) \
         FROM uses n WHERE k.chat_id = n.chat_id AND k.key_id = n.key_id AND (SELECT is_as_judged FROM judged)), \
     written AS (INSERT INTO chat_messages (chat_id, seq, id, revision, kind, sender_id, sender_session_id, key_id, \
             counter, created_at, roster_hash, seen_seq, seen_log_hash, data, data_hash, signature, log_hash) \
         SELECT * FROM unnest($17::uuid[], $18::bigint[], $19::uuid[], $20::bigint[], $21::text[], $22::uuid[], \
             $23::uuid[], $24::uuid[], $25::bigint[], $26::timestamptz[], $27::bytea[], $28::bigint[], $29::bytea[], \
             $30::bytea[], $31::bytea[], $32::bytea[], $33::bytea[]) WHERE (SELECT is_as_judged FROM judged)) \
     SELECT is_as_judged FROM judged";

/// Locks what can be locked at once; a row that somebody else holds is left out.
const LOCK: &str = "SELECT id, last_seq, log_hash, epoch, roster_version, \
     coalesce(next_expiry <= clock_timestamp(), false) AS expiry_due \
     FROM chats WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";

const KEYS: &str = "SELECT k.chat_id, k.key_id, k.sender_session_id, k.epoch, k.last_counter, k.covered_version \
     FROM unnest($1::uuid[], $2::uuid[]) AS wanted (chat_id, key_id) \
     JOIN sender_keys k ON k.chat_id = wanted.chat_id AND k.key_id = wanted.key_id";

const MESSAGES_PRESENT: &str = "SELECT m.chat_id, m.id, m.revision \
     FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS wanted (chat_id, id, revision) \
     JOIN chat_messages m ON m.chat_id = wanted.chat_id AND m.id = wanted.id AND m.revision = wanted.revision";

/// The newest revision of messages that are edited or deleted.
const NEWEST: &str = "SELECT wanted.chat_id, wanted.id, newest.revision, newest.kind = 'delete' AS is_deleted \
     FROM unnest($1::uuid[], $2::uuid[]) AS wanted (chat_id, id) CROSS JOIN LATERAL (SELECT m.revision, m.kind \
         FROM chat_messages m WHERE m.chat_id = wanted.chat_id AND m.id = wanted.id ORDER BY m.revision DESC LIMIT 1) newest";

const INSERT_MESSAGES: &str = "INSERT INTO chat_messages (chat_id, seq, id, revision, kind, sender_id, sender_session_id, \
     key_id, counter, created_at, roster_hash, seen_seq, seen_log_hash, data, data_hash, signature, log_hash) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[], $6::uuid[], $7::uuid[], \
     $8::uuid[], $9::bigint[], $10::timestamptz[], $11::bytea[], $12::bigint[], $13::bytea[], $14::bytea[], \
     $15::bytea[], $16::bytea[], $17::bytea[])";

const INSERT_KEYS: &str = "INSERT INTO sender_keys (chat_id, key_id, sender_session_id, epoch, commitment, announcement, created_at) \
     SELECT n.chat_id, n.key_id, n.sender_session_id, n.epoch, n.commitment, n.announcement, clock_timestamp() \
     FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bytea[], $6::bytea[]) \
     AS n (chat_id, key_id, sender_session_id, epoch, commitment, announcement)";

/// The first copy stays: nobody overwrites a wrapped key.
const INSERT_COPIES: &str = "INSERT INTO vault_chat_sender_keys \
     (chat_id, sender_key_id, session_id, sender_session_id, key, uploaded_by_session_id) \
     SELECT n.chat_id, n.key_id, n.session_id, n.uploaded_by, n.key, n.uploaded_by \
     FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[], $5::uuid[]) \
     AS n (chat_id, key_id, session_id, key, uploaded_by) ON CONFLICT DO NOTHING";

/// One archive by a key's sender for each generation; the first stays.
const INSERT_ARCHIVES: &str = "INSERT INTO sender_key_archives (chat_id, sender_key_id, generation, archived_by_session_id, key) \
     SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::bytea[]) ON CONFLICT DO NOTHING";

/// Marks the keys whose copies are exactly the recipients: coverage by the database's own count.
pub(super) const COVER_KEYS: &str = "UPDATE sender_keys k SET covered_version = c.roster_version \
     FROM unnest($1::uuid[], $2::uuid[]) AS wanted (chat_id, key_id) JOIN chats c ON c.id = wanted.chat_id \
     WHERE k.chat_id = wanted.chat_id AND k.key_id = wanted.key_id \
     AND NOT EXISTS (SELECT 1 FROM user_in_chat m JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
         WHERE m.chat_id = wanted.chat_id AND NOT EXISTS (SELECT 1 FROM vault_chat_sender_keys v \
             WHERE v.chat_id = wanted.chat_id AND v.sender_key_id = wanted.key_id AND v.session_id = s.id)) \
     AND NOT EXISTS (SELECT 1 FROM vault_chat_sender_keys v WHERE v.chat_id = wanted.chat_id \
         AND v.sender_key_id = wanted.key_id AND NOT EXISTS (SELECT 1 FROM user_sessions s \
             JOIN user_in_chat m ON m.user_id = s.user_id AND m.chat_id = wanted.chat_id \
             WHERE s.id = v.session_id AND s.state = 'live')) \
     AND (c.group_key_generation = 0 OR c.generation_outdated OR EXISTS (SELECT 1 FROM sender_key_archives a \
         WHERE a.chat_id = wanted.chat_id AND a.sender_key_id = wanted.key_id \
         AND a.generation = c.group_key_generation AND a.archived_by_session_id = k.sender_session_id)) \
     RETURNING k.chat_id, k.key_id";

const USE_KEYS: &str = "UPDATE sender_keys k SET last_counter = n.counter, \
         messages_with_data = k.messages_with_data + n.messages, first_seq = coalesce(k.first_seq, n.first_seq) \
     FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[]) \
         AS n (chat_id, key_id, counter, messages, first_seq) \
     WHERE k.chat_id = n.chat_id AND k.key_id = n.key_id";

/// Takes the data of all revisions before these, counts it off their keys, and takes the copies of keys that
/// are stale and have no data left (P13).
///
/// Copies that somebody else is just deleting are left to them, or every chat of the lane would wait for the end of an
/// account; what stays, should they give up, the sweep over all keys takes.
const PURGE: &str = "WITH gone AS (UPDATE chat_messages m SET data = NULL \
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS n (chat_id, id, revision) \
         WHERE m.chat_id = n.chat_id AND m.id = n.id AND m.revision < n.revision AND m.data IS NOT NULL \
         RETURNING m.chat_id, m.key_id), \
     counted AS (SELECT chat_id, key_id, count(*) AS messages FROM gone GROUP BY chat_id, key_id), \
     left_over AS (UPDATE sender_keys k SET messages_with_data = k.messages_with_data - counted.messages \
         FROM counted WHERE k.chat_id = counted.chat_id AND k.key_id = counted.key_id \
         RETURNING k.chat_id, k.key_id, k.epoch, k.messages_with_data), \
     archives AS (DELETE FROM sender_key_archives a USING left_over k JOIN chats c ON c.id = k.chat_id \
         WHERE a.chat_id = k.chat_id AND a.sender_key_id = k.key_id AND k.messages_with_data = 0 AND k.epoch < c.epoch), \
     over AS (SELECT v.chat_id, v.sender_key_id, v.session_id FROM left_over k JOIN chats c ON c.id = k.chat_id \
         JOIN vault_chat_sender_keys v ON v.chat_id = k.chat_id AND v.sender_key_id = k.key_id \
         WHERE k.messages_with_data = 0 AND k.epoch < c.epoch FOR UPDATE OF v SKIP LOCKED) \
     DELETE FROM vault_chat_sender_keys v USING over \
     WHERE v.chat_id = over.chat_id AND v.sender_key_id = over.sender_key_id AND v.session_id = over.session_id";

const MOVE_HEADS: &str = "UPDATE chats c SET last_seq = n.last_seq, log_hash = n.log_hash \
     FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS n (id, last_seq, log_hash) WHERE c.id = n.id";

#[derive(Debug)]
pub(super) struct Statements {
    pub(super) plain: Statement,
    pub(super) lock: Statement,
    pub(super) keys: Statement,
    pub(super) messages_present: Statement,
    pub(super) newest: Statement,
    pub(super) insert_messages: Statement,
    pub(super) insert_keys: Statement,
    pub(super) insert_copies: Statement,
    pub(super) insert_archives: Statement,
    pub(super) cover_keys: Statement,
    pub(super) use_keys: Statement,
    pub(super) purge: Statement,
    pub(super) move_heads: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, StoreError> {
        Ok(Self {
            plain: client.prepare(PLAIN).await?,
            lock: client.prepare(LOCK).await?,
            keys: client.prepare(KEYS).await?,
            messages_present: client.prepare(MESSAGES_PRESENT).await?,
            newest: client.prepare(NEWEST).await?,
            insert_messages: client.prepare(INSERT_MESSAGES).await?,
            insert_keys: client.prepare(INSERT_KEYS).await?,
            insert_copies: client.prepare(INSERT_COPIES).await?,
            insert_archives: client.prepare(INSERT_ARCHIVES).await?,
            cover_keys: client.prepare(COVER_KEYS).await?,
            use_keys: client.prepare(USE_KEYS).await?,
            purge: client.prepare(PURGE).await?,
            move_heads: client.prepare(MOVE_HEADS).await?,
        })
    }
}
