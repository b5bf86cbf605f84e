//! The chats of a user, as its sessions list and resume them.

use tokio_postgres::Row;

use super::Store;
use super::error::{Failure, StoreError};
use super::info::parts_of;
use super::members::{Requester, unknown_chat};
use super::rows::{bigint, get, id, number};
use super::sessions::require_live;
use crate::protocol::frame::{ChatInfo, MemberName};
use crate::protocol::ids::{ChatId, Seq, SessionId, UserId};
use crate::protocol::limits::{UNREAD_MAX, UNREAD_SCANNED_MAX};
use crate::protocol::username::Username;

/// Where a chat of a user stands.
#[derive(Debug, Clone, Copy)]
pub struct ChatPosition {
    /// The chat.
    pub chat_id: ChatId,
    /// The seq of the entry that made the user a member.
    pub joined_seq: Seq,
    /// The newest entry.
    pub last_seq: Seq,
}

impl Store {
    /// Lists a user's chats with the name's key for one session.
    ///
    /// # Errors
    /// A requester that is not live, or [`StoreError`].
    pub async fn list_chats(&self, who: Requester) -> Result<Vec<ChatInfo>, Failure> {
        self.read("list_chats", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            let statement = "SELECT c.id, m.joined_seq, m.readable_from, c.last_seq, coalesce(k.seq, 0) AS cursor, c.name, c.info_key_id, \
                 c.description, c.info_revision, c.info_session_id, c.info_key_seq, c.info_signature, v.key, v.wrapped_by_session_id, v.signature, \
                 (SELECT count(*) FROM (SELECT 1 FROM (SELECT u.kind, u.sender_id FROM chat_messages u \
                     WHERE u.chat_id = c.id AND u.seq > greatest(coalesce(k.seq, 0), m.readable_from - 1) \
                     ORDER BY u.seq LIMIT $4) scanned \
                     WHERE scanned.kind = 'message' AND scanned.sender_id <> $1 LIMIT $3) counted) AS unread \
                 FROM user_in_chat m JOIN chats c ON c.id = m.chat_id \
                 LEFT JOIN session_cursors k ON k.chat_id = c.id AND k.session_id = $2 \
                 LEFT JOIN vault_chat_info_keys v ON v.chat_id = c.id AND v.key_id = c.info_key_id AND v.session_id = $2 \
                 WHERE m.user_id = $1 ORDER BY c.id";
            let (counted, scanned) = (bigint(UNREAD_MAX), bigint(UNREAD_SCANNED_MAX));
            let found = tx.query(statement, &[&who.user_id.0, &who.session_id.0, &counted, &scanned]).await?;
            Ok(found.iter().map(|row| info_of(row, who.session_id)).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The names of a chat's members.
    ///
    /// # Errors
    /// `unknown_chat`, or [`StoreError`].
    pub async fn member_names(&self, who: Requester, chat_id: ChatId) -> Result<Vec<MemberName>, Failure> {
        self.read("member_names", async |tx| {
            let statement = "SELECT u.id, u.username FROM user_in_chat m JOIN users u ON u.id = m.user_id \
                 WHERE m.chat_id = $1 AND EXISTS (SELECT 1 FROM user_in_chat me \
                     JOIN user_sessions s ON s.id = $3 AND s.user_id = me.user_id AND s.state = 'live' \
                     WHERE me.chat_id = $1 AND me.user_id = $2) \
                 ORDER BY u.id";
            let mut names = Vec::new();
            for row in tx.query(statement, &[&chat_id.0, &who.user_id.0, &who.session_id.0]).await? {
                let username = Username::parse(get(&row, "username")?);
                let username = username.map_err(|_| StoreError::Corrupt { what: "username" })?;
                names.push(MemberName { user_id: id(&row, "id", UserId)?, username });
            }
            // A chat has its owner at least.
            if names.is_empty() { Err(unknown_chat().into()) } else { Ok(names) }
        })
        .await
    }

    /// Where each chat of a user stands.
    ///
    /// # Errors
    /// A requester that is not live, or [`StoreError`].
    pub async fn positions(&self, who: Requester) -> Result<Vec<ChatPosition>, Failure> {
        self.read("positions", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            let statement = "SELECT c.id, m.joined_seq, c.last_seq FROM user_in_chat m JOIN chats c ON c.id = m.chat_id \
                 WHERE m.user_id = $1 ORDER BY c.id";
            let mut positions = Vec::new();
            for row in tx.query(statement, &[&who.user_id.0]).await? {
                positions.push(ChatPosition {
                    chat_id: id(&row, "id", ChatId)?,
                    joined_seq: number(&row, "joined_seq")?,
                    last_seq: number(&row, "last_seq")?,
                });
            }
            Ok(positions)
        })
        .await
    }
}

fn info_of(row: &Row, session_id: SessionId) -> Result<ChatInfo, StoreError> {
    let (name, info, info_key) = parts_of(row, session_id)?;
    Ok(ChatInfo {
        chat_id: id(row, "id", ChatId)?,
        joined_seq: number(row, "joined_seq")?,
        readable_from: number(row, "readable_from")?,
        last_seq: number(row, "last_seq")?,
        cursor: number(row, "cursor")?,
        unread: number(row, "unread")?,
        name,
        info,
        info_key,
    })
}
