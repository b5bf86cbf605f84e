//! Up to where each session lacks nothing.

use super::Store;
use super::error::Failure;
use super::members::{Requester, unknown_chat};
use super::rows::{bigint, get};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::ids::{ChatId, Seq};

impl Store {
    /// Moves a session's cursor forward; it never goes back.
    ///
    /// # Errors
    /// `unknown_chat`, `ahead_of_log`, or [`super::StoreError`].
    pub async fn advance_cursor(&self, who: Requester, chat_id: ChatId, seq: Seq) -> Result<(), Failure> {
        self.write("advance_cursor", async |tx| {
            let statement = "SELECT c.last_seq FROM user_in_chat m JOIN chats c ON c.id = m.chat_id \
                 WHERE m.chat_id = $1 AND m.user_id = $2";
            let Some(row) = tx.query_opt(statement, &[&chat_id.0, &who.user_id.0]).await? else {
                return Err(unknown_chat().into());
            };
            let last_seq: i64 = get(&row, "last_seq")?;
            if bigint(seq) > last_seq {
                let details =
                    ErrorDetails { seq: Some(Seq::saturating(last_seq.unsigned_abs())), ..ErrorDetails::default() };
                return Err(Refusal::with(ErrorCode::AheadOfLog, "the log is not that long", details).into());
            }
            let statement = "INSERT INTO session_cursors (chat_id, session_id, seq) VALUES ($1, $2, $3) \
                 ON CONFLICT (chat_id, session_id) DO UPDATE SET seq = greatest(session_cursors.seq, excluded.seq)";
            tx.execute(statement, &[&chat_id.0, &who.session_id.0, &bigint(seq)]).await?;
            Ok(())
        })
        .await
    }
}
