//! Up to where each session lacks nothing.

use super::Store;
use super::error::Failure;
use super::members::{Requester, unknown_chat};
use super::rows::{bigint, get, id, number};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::Delivery;
use crate::protocol::ids::{ChatId, Seq, SessionId, UserId};

impl Store {
    /// Moves a session's cursor forward; it never goes back. Says whether it moved.
    ///
    /// # Errors
    /// `unknown_chat`, `ahead_of_log`, or [`super::StoreError`].
    pub async fn advance_cursor(&self, who: Requester, chat_id: ChatId, seq: Seq) -> Result<bool, Failure> {
        self.write("advance_cursor", async |tx| {
            // Who is being removed has no cursor afterwards: their removal waits for this, or this for it.
            let statement = "SELECT c.last_seq FROM user_in_chat m JOIN chats c ON c.id = m.chat_id \
                 JOIN user_sessions s ON s.id = $3 AND s.user_id = m.user_id AND s.state = 'live' \
                 WHERE m.chat_id = $1 AND m.user_id = $2 FOR KEY SHARE OF m";
            let found = tx.query_opt(statement, &[&chat_id.0, &who.user_id.0, &who.session_id.0]).await?;
            let Some(row) = found else {
                return Err(unknown_chat().into());
            };
            let last_seq: i64 = get(&row, "last_seq")?;
            if bigint(seq) > last_seq {
                let details =
                    ErrorDetails { seq: Some(Seq::saturating(last_seq.unsigned_abs())), ..ErrorDetails::default() };
                return Err(Refusal::with(ErrorCode::AheadOfLog, "the log is not that long", details).into());
            }
            let statement = "INSERT INTO session_cursors (chat_id, session_id, seq) VALUES ($1, $2, $3) \
                 ON CONFLICT (chat_id, session_id) DO UPDATE SET seq = excluded.seq WHERE session_cursors.seq < excluded.seq";
            let moved = tx.execute(statement, &[&chat_id.0, &who.session_id.0, &bigint(seq)]).await?;
            Ok(moved > 0)
        })
        .await
    }

    /// How far each recipient of a chat has come, in order of the sessions' ids; 0 for one that has said nothing.
    ///
    /// # Errors
    /// `unknown_chat`, or [`super::StoreError`].
    pub async fn deliveries(&self, who: Requester, chat_id: ChatId) -> Result<Vec<Delivery>, Failure> {
        self.read("deliveries", async |tx| {
            let statement = "SELECT s.id, s.user_id, coalesce(k.seq, 0) AS seq FROM user_in_chat m \
                 JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
                 LEFT JOIN session_cursors k ON k.chat_id = m.chat_id AND k.session_id = s.id \
                 WHERE m.chat_id = $1 AND EXISTS (SELECT 1 FROM user_in_chat me \
                     JOIN user_sessions own ON own.id = $3 AND own.user_id = me.user_id AND own.state = 'live' \
                     WHERE me.chat_id = $1 AND me.user_id = $2) \
                 ORDER BY s.id";
            let mut deliveries = Vec::new();
            for row in tx.query(statement, &[&chat_id.0, &who.user_id.0, &who.session_id.0]).await? {
                deliveries.push(Delivery {
                    session_id: id(&row, "id", SessionId)?,
                    user_id: id(&row, "user_id", UserId)?,
                    seq: number(&row, "seq")?,
                });
            }
            // Who asks is a recipient.
            if deliveries.is_empty() { Err(unknown_chat().into()) } else { Ok(deliveries) }
        })
        .await
    }

    /// Refuses who is no member of a chat, or whose session is not live.
    ///
    /// # Errors
    /// `unknown_chat`, or [`super::StoreError`].
    pub async fn require_member(&self, who: Requester, chat_id: ChatId) -> Result<(), Failure> {
        self.read("require_member", async |tx| {
            let statement = "SELECT 1 FROM user_in_chat m \
                 JOIN user_sessions s ON s.id = $3 AND s.user_id = m.user_id AND s.state = 'live' \
                 WHERE m.chat_id = $1 AND m.user_id = $2";
            match tx.query_opt(statement, &[&chat_id.0, &who.user_id.0, &who.session_id.0]).await? {
                Some(_) => Ok(()),
                None => Err(unknown_chat().into()),
            }
        })
        .await
    }
}
