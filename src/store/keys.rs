//! The vault of sender keys, as a recipient reads it.

use uuid::Uuid;

use super::Store;
use super::backups::add_backed_up;
use super::error::Failure;
use super::members::{Requester, unknown_chat};
use super::rows::{fixed_or_null, get, unpack};
use super::transaction::Transaction;
use crate::protocol::frame::OwnKey;
use crate::protocol::ids::{ChatId, KeyId, SessionId};

impl Store {
    /// Fetches keys of a chat with one session's own copies.
    ///
    /// # Errors
    /// `unknown_chat`, or [`super::StoreError`].
    pub async fn keys(&self, who: Requester, chat_id: ChatId, key_ids: &[KeyId]) -> Result<Vec<OwnKey>, Failure> {
        self.read("keys", async |tx| {
            let member = "SELECT 1 FROM user_in_chat m JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
                 WHERE m.chat_id = $1 AND m.user_id = $2 AND s.id = $3";
            let is_member = tx.query_opt(member, &[&chat_id.0, &who.user_id.0, &who.session_id.0]).await?.is_some();
            if !is_member {
                return Err(unknown_chat().into());
            }
            own_keys(tx, chat_id, who.session_id, key_ids).await
        })
        .await
    }
}

pub(super) async fn own_keys(
    tx: &Transaction<'_>,
    chat_id: ChatId,
    session_id: SessionId,
    key_ids: &[KeyId],
) -> Result<Vec<OwnKey>, Failure> {
    if key_ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = key_ids.iter().map(|key_id| key_id.0).collect();
    let statement = "SELECT k.announcement, v.key FROM sender_keys k LEFT JOIN vault_chat_sender_keys v \
         ON v.chat_id = k.chat_id AND v.sender_key_id = k.key_id AND v.session_id = $3 \
         WHERE k.chat_id = $1 AND k.key_id = ANY($2)";
    let mut keys = Vec::new();
    for row in tx.query(statement, &[&chat_id.0, &ids, &session_id.0]).await? {
        let announcement = unpack(get(&row, "announcement")?, "sender_keys.announcement")?;
        keys.push(OwnKey { announcement, key: fixed_or_null(&row, "key")?, backed_up: Vec::new() });
    }
    add_backed_up(tx, chat_id, session_id, &mut keys).await?;
    Ok(keys)
}
