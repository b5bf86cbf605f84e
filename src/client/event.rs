//! What a client tells its user.

use super::body::Body;
use super::error::{CloseReason, SendError};
use super::failure::VerificationFailure;
use super::signal::Signal;
use crate::protocol::ids::{ChatId, MessageId, Seq, SessionId, Timestamp, UserId};
use crate::protocol::membership::Change;

/// A message that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The chat.
    pub chat_id: ChatId,
    /// Its place in the log.
    pub seq: Seq,
    /// When the server took it, by the database's clock.
    pub created_at: Timestamp,
    /// The message.
    pub message_id: MessageId,
    /// Who sent it.
    pub sender_id: UserId,
    /// With which session.
    pub sender_session_id: SessionId,
    /// What it says.
    pub body: Body,
}

/// Something did not verify. What it was about is not shown as good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// The chat, if it is about one.
    pub chat_id: Option<ChatId>,
    /// The entry, if it is about one.
    pub seq: Option<Seq>,
    /// The session that made the entry, if it is a message.
    pub session_id: Option<SessionId>,
    /// What did not verify.
    pub failure: VerificationFailure,
}

/// What a client tells its user; those of one chat come in the order of its log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A message, one's own too.
    Message(Message),
    /// This user became a member of a chat.
    Joined {
        /// The chat.
        chat_id: ChatId,
    },
    /// The members of a chat changed.
    MembershipChanged {
        /// The chat.
        chat_id: ChatId,
        /// The entry.
        seq: Seq,
        /// Who did it.
        actor: UserId,
        /// To whom.
        target: UserId,
        /// What.
        change: Change,
    },
    /// A session became a recipient of a chat, or is one no longer.
    SessionChanged {
        /// The chat.
        chat_id: ChatId,
        /// The entry.
        seq: Seq,
        /// Whose session.
        user_id: UserId,
        /// Which.
        session_id: SessionId,
        /// Whether it is a recipient now.
        is_in: bool,
    },
    /// The account of a member has ended; what they owned has passed on by rule.
    AccountDeleted {
        /// The chat.
        chat_id: ChatId,
        /// The entry.
        seq: Seq,
        /// Whose.
        user_id: UserId,
        /// Who owns the chat from now on, if it was theirs.
        heir: Option<UserId>,
    },
    /// This user is a member no longer.
    Removed {
        /// The chat.
        chat_id: ChatId,
    },
    /// A chat has ended.
    ChatDeleted {
        /// The chat.
        chat_id: ChatId,
    },
    /// A message that nobody waits for any more will not be sent.
    SendFailed {
        /// The chat.
        chat_id: ChatId,
        /// The message.
        message_id: MessageId,
        /// Why.
        error: SendError,
    },
    /// A session tells something of this moment.
    Signal {
        /// The chat.
        chat_id: ChatId,
        /// Whose session.
        user_id: UserId,
        /// Which.
        session_id: SessionId,
        /// What.
        signal: Signal,
    },
    /// A session has come further, by the server's word: it lacks nothing up to `seq`.
    Delivered {
        /// The chat.
        chat_id: ChatId,
        /// Whose session.
        user_id: UserId,
        /// Which.
        session_id: SessionId,
        /// Up to where.
        seq: Seq,
    },
    /// A new session of this user waits for approval.
    SessionPending {
        /// The session.
        session_id: SessionId,
    },
    /// Everything up to now has come; what comes next is new.
    Live,
    /// The connection was lost; it is being made again.
    Disconnected,
    /// Something did not verify.
    Alarm(Alarm),
    /// The client does not connect any more.
    Closed(CloseReason),
}
