//! The rules of signals: those of a message, as far as something without a place in the log can have them.

use super::{ChatState, Rejection};
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::ids::Timestamp;
use crate::protocol::signal::SignalEnvelope;
use crate::store::members::{Requester, unknown_chat};

impl ChatState {
    /// Judges a signal: by a recipient who may write, under that session's own key, which is of the current epoch, not too
    /// old, and has a copy for each recipient. How many messages the key has carried does not count, for a signal is none.
    ///
    /// # Errors
    /// The refusal that a message would get.
    pub fn judge_signal(&self, now: Timestamp, who: Requester, signal: &SignalEnvelope) -> Result<(), Refusal> {
        let member = self.members.get(&who.user_id).filter(|_| self.is_recipient(who.session_id));
        let Some(member) = member else { return Err(unknown_chat()) };
        if signal.sender_id != who.user_id || signal.sender_session_id != who.session_id {
            return Err(Refusal::new(ErrorCode::BadSignature, "the sender is not the session that is logged in"));
        }
        if !member.can_write {
            return Err(Refusal::new(ErrorCode::CannotWrite, "may not send here"));
        }
        let key = self.judge_old_key(who, signal.key_id, &[])?;
        self.judge_serving_time(now, &key)?;
        if key.missing.is_empty() {
            return Ok(());
        }
        Err(self.copies_missing(key, self.last_seq).into())
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Refused(refusal) | Rejection::CopiesMissing(_, refusal) => refusal,
        }
    }
}
