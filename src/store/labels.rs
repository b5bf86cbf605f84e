//! The names that users give their sessions: ciphertext here.

use super::Store;
use super::error::Failure;
use super::members::Requester;
use super::sessions::require_live;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::SetLabel;
use crate::protocol::limits::LABEL_BYTES_MAX;

impl Store {
    /// Names a session of one's own that has a certificate, or takes its name away.
    ///
    /// # Errors
    /// `too_large`, `unknown_session`, a requester that is not live, or [`super::StoreError`].
    pub async fn set_label(&self, who: Requester, request: &SetLabel) -> Result<(), Failure> {
        if request.label.as_ref().is_some_and(|label| label.len() > LABEL_BYTES_MAX) {
            let limit = LABEL_BYTES_MAX as u64;
            return Err(Refusal::limit(ErrorCode::TooLarge, "the name is too long", limit).into());
        }
        let label = request.label.as_ref().map(AsRef::as_ref);
        self.write("set_label", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            let statement =
                "UPDATE user_sessions SET label = $3 WHERE id = $1 AND user_id = $2 AND certificate IS NOT NULL";
            let label: Option<&[u8]> = label;
            match tx.execute(statement, &[&request.session_id.0, &who.user_id.0, &label]).await? {
                0 => Err(Refusal::new(ErrorCode::UnknownSession, "no such session").into()),
                _ => Ok(()),
            }
        })
        .await
    }
}
