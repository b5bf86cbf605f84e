//! Messages that are edited and deleted: how far each has come, and the keys that no data needs any more (P13).
//!
//! The purge of data itself is a statement of the commit that makes it superfluous.

use uuid::Uuid;

use super::Store;
use super::error::Failure;
use super::rows::{get, id, number};
use crate::protocol::ids::{ChatId, MessageId, Revision, Seq, UserId};

/// A message as a whole, whatever its revisions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageHead {
    /// Who sent it.
    pub sender_id: UserId,
    /// The place of its first revision.
    pub first_seq: Seq,
    /// Its newest revision.
    pub revision: Revision,
    /// Whether that is a deletion.
    pub is_deleted: bool,
}

/// Keys that one step of the sweep looks at.
const SWEEP_KEYS: i64 = 1_000;

/// Copies that one step of the sweep deletes, at most.
const SWEEP_COPIES: i64 = 2_000;

/// How far the sweep over all keys has come: it looks at a bounded number each time, round and round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepPlace(Uuid, Uuid);

impl Store {
    /// Looks up how far a message has come.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub async fn message_head(&self, chat_id: ChatId, message_id: MessageId) -> Result<Option<MessageHead>, Failure> {
        self.read("message_head", async |tx| {
            let statement = "SELECT first.sender_id, first.seq, newest.revision, newest.kind = 'delete' AS is_deleted \
                 FROM chat_messages first CROSS JOIN LATERAL (SELECT m.revision, m.kind FROM chat_messages m \
                     WHERE m.chat_id = $1 AND m.id = $2 ORDER BY m.revision DESC LIMIT 1) newest \
                 WHERE first.chat_id = $1 AND first.id = $2 AND first.revision = 0";
            let Some(row) = tx.query_opt(statement, &[&chat_id.0, &message_id.0]).await? else { return Ok(None) };
            Ok(Some(MessageHead {
                sender_id: id(&row, "sender_id", UserId)?,
                first_seq: number(&row, "seq")?,
                revision: number(&row, "revision")?,
                is_deleted: get(&row, "is_deleted")?,
            }))
        })
        .await
    }

    /// Takes the copies of keys that are stale or replaced and have no data left, and whole keys that are stale
    /// and were never used (P13): one step, which gives where the next begins. None: all keys were looked at.
    ///
    /// What a session said of a key that was used stays, for the log is verified with it.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub async fn sweep_keys(&self, from: SweepPlace) -> Result<Option<SweepPlace>, Failure> {
        self.write("sweep_keys", async |tx| {
            let page = "SELECT k.chat_id, k.key_id, k.messages_with_data = 0 AND (k.epoch < c.epoch OR EXISTS \
                     (SELECT 1 FROM sender_keys n WHERE n.chat_id = k.chat_id AND n.epoch = k.epoch \
                     AND n.sender_session_id = k.sender_session_id AND n.created_at > k.created_at)) AS is_over, \
                     k.last_counter = 0 AND k.epoch < c.epoch AS is_unused \
                 FROM sender_keys k JOIN chats c ON c.id = k.chat_id \
                 WHERE (k.chat_id, k.key_id) > ($1, $2) ORDER BY k.chat_id, k.key_id LIMIT $3";
            let (mut chats, mut keys) = (Vec::new(), Vec::new());
            let (mut unused_chats, mut unused_keys) = (Vec::new(), Vec::new());
            let rows = tx.query(page, &[&from.0, &from.1, &SWEEP_KEYS]).await?;
            for row in &rows {
                let (chat_id, key_id): (Uuid, Uuid) = (get(row, "chat_id")?, get(row, "key_id")?);
                if get(row, "is_over")? {
                    chats.push(chat_id);
                    keys.push(key_id);
                }
                if get(row, "is_unused")? {
                    unused_chats.push(chat_id);
                    unused_keys.push(key_id);
                }
            }
            if !chats.is_empty() {
                // Nobody holds them any more, and they would count against those who asked.
                let requests = "DELETE FROM key_requests r USING unnest($1::uuid[], $2::uuid[]) AS over (chat_id, key_id) \
                     WHERE r.chat_id = over.chat_id AND r.sender_key_id = over.key_id";
                tx.execute(requests, &[&chats, &keys]).await?;
                let archives = "DELETE FROM sender_key_archives a USING unnest($1::uuid[], $2::uuid[]) AS over (chat_id, key_id) \
                     WHERE a.chat_id = over.chat_id AND a.sender_key_id = over.key_id";
                tx.execute(archives, &[&chats, &keys]).await?;
                let copies = "DELETE FROM vault_chat_sender_keys WHERE (chat_id, sender_key_id, session_id) IN \
                     (SELECT v.chat_id, v.sender_key_id, v.session_id FROM unnest($1::uuid[], $2::uuid[]) AS over (chat_id, key_id) \
                     JOIN vault_chat_sender_keys v ON v.chat_id = over.chat_id AND v.sender_key_id = over.key_id LIMIT $3)";
                let deleted = tx.execute(copies, &[&chats, &keys, &SWEEP_COPIES]).await?;
                if i64::try_from(deleted).unwrap_or(i64::MAX) >= SWEEP_COPIES {
                    return Ok(Some(from));
                }
            }
            if !unused_chats.is_empty() {
                let unused = "DELETE FROM sender_keys k USING unnest($1::uuid[], $2::uuid[]) AS unused (chat_id, key_id) \
                     WHERE k.chat_id = unused.chat_id AND k.key_id = unused.key_id";
                tx.execute(unused, &[&unused_chats, &unused_keys]).await?;
            }
            let is_last = i64::try_from(rows.len()).unwrap_or(i64::MAX) < SWEEP_KEYS;
            match rows.last() {
                Some(last) if !is_last => Ok(Some(SweepPlace(get(last, "chat_id")?, get(last, "key_id")?))),
                _ => Ok(None),
            }
        })
        .await
    }
}
