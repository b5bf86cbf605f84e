//! Messages that are edited and deleted: how far each has come, and the keys that no data needs any more (P13).
//!
//! The purge of data itself is a statement of the commit that makes it superfluous.

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
}
