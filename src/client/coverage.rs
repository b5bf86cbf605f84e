//! Says which part of a chat this session can open, and why not the rest.

use super::engine::coverage;
use super::error::ClientError;
use super::handle::Client;
use crate::protocol::ids::{ChatId, KeyId, Seq, SessionId, Timestamp, UserId};

/// Whether what stands at a place of a log can be opened here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Openness {
    /// It can; so it is with every entry that is no message.
    Open,
    /// It is from before this user may read.
    BeforeJoin,
    /// Its key is with somebody, or in an archive that this user's password opens, and has not come here.
    NoCopyYet,
    /// No session of a member has its key, nor is there an archive of it that this user has a key to.
    KeyLost,
    /// Its data was purged by an edit or a deletion.
    Purged,
    /// It does not verify, or the copy of its key was bad.
    Refused,
}

impl Openness {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::BeforeJoin => "before_join",
            Self::NoCopyYet => "no_copy_yet",
            Self::KeyLost => "key_lost",
            Self::Purged => "purged",
            Self::Refused => "refused",
        }
    }
}

/// A range of a log of which the same can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoverageRange {
    /// The first entry.
    pub from: Seq,
    /// The last one.
    pub to: Seq,
    /// What can be said of it.
    pub openness: Openness,
}

/// What this session can open of a chat: every entry from the first to the newest is in one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// In order, without gaps.
    pub ranges: Vec<CoverageRange>,
    /// Messages whose keys are in archives that this user's password may open: see [`Client::recover_history`].
    pub recoverable: u64,
}

/// A message that this session may read and cannot open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedMessage {
    /// Its place in the log.
    pub seq: Seq,
    /// When the server took it, by the database's clock.
    pub created_at: Timestamp,
    /// Who sent it.
    pub sender_id: UserId,
    /// With which session.
    pub sender_session_id: SessionId,
    /// Under which key.
    pub key_id: KeyId,
    /// Why: [`Openness::NoCopyYet`] or [`Openness::KeyLost`].
    pub why: Openness,
}

impl Client {
    /// Reads all of a chat that this user may read, and says which part of it this session can open and why not the
    /// rest. Keys that are with somebody are asked for on the way.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`], a log that does not verify, the server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn coverage(&self, chat_id: ChatId) -> Result<Coverage, ClientError> {
        coverage::coverage(self.shared(), chat_id).await
    }
}
