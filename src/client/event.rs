//! What a client tells its user.

use super::body::Body;
use super::error::{CloseReason, SendError};
use super::failure::VerificationFailure;
use super::signal::Signal;
use crate::protocol::ids::{
    ChatId, GenerationNo, KeyId, MessageId, RecoveryRequestId, Revision, SecretId, Seq, SessionId, Timestamp, UserId,
};
use crate::protocol::keys::RefusalReason;
use crate::protocol::membership::Change;
use crate::protocol::username::Username;

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
    /// Which revision of it this is: 0 unless it was edited.
    pub revision: Revision,
    /// Who sent it.
    pub sender_id: UserId,
    /// With which session.
    pub sender_session_id: SessionId,
    /// What it says.
    pub body: Body,
}

/// A message was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// The chat.
    pub chat_id: ChatId,
    /// The place of the deletion in the log.
    pub seq: Seq,
    /// When the server took it, by the database's clock.
    pub created_at: Timestamp,
    /// The message.
    pub message_id: MessageId,
    /// Which revision of it the deletion is; none follows.
    pub revision: Revision,
    /// Who deleted it.
    pub user_id: UserId,
    /// With which session.
    pub session_id: SessionId,
    /// Whether that user could delete what others wrote.
    pub by_manager: bool,
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
    /// A message, one's own too. One whose key came late comes when it opens, so out of the log's order.
    Message(Message),
    /// A message was edited: it says this from now on. Seq, time and session are the edit's.
    Edited {
        /// The new revision.
        message: Message,
        /// The place of the message itself. None if it is older than the messages that this device remembers:
        /// then who shows the edit compares its sender with the message's.
        first: Option<Seq>,
    },
    /// A message was deleted.
    Deleted {
        /// By whom.
        deletion: Deletion,
        /// The place of the message itself. None if it is older than the messages that this device remembers:
        /// then who acts on it compares the user with the message's sender, unless it was done by a manager.
        first: Option<Seq>,
    },
    /// Somebody has read a chat up to a place: this user on some device, or another who wants it known.
    Read {
        /// The chat.
        chat_id: ChatId,
        /// The place of the receipt in the log; none for what was read on this device.
        seq: Option<Seq>,
        /// The receipt; none for what was read on this device.
        message_id: Option<MessageId>,
        /// Who.
        user_id: UserId,
        /// The newest entry that was read.
        read_seq: Seq,
    },
    /// A message that verified and says nothing to this user: its data is gone since, and a later entry says why; or
    /// it is what another user keeps for their own devices. With it, every entry since this
    /// session is a recipient has an event.
    Silent {
        /// The chat.
        chat_id: ChatId,
        /// Its place in the log.
        seq: Seq,
        /// The message.
        message_id: MessageId,
        /// Which revision of it: 0 unless it was edited.
        revision: Revision,
    },
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
    /// A session that is a recipient of a chat has another certificate: it lives longer, or receives with another key.
    SessionRenewed {
        /// The chat.
        chat_id: ChatId,
        /// The entry.
        seq: Seq,
        /// Whose session.
        user_id: UserId,
        /// Which.
        session_id: SessionId,
    },
    /// A member has a user key, another one, or none any more: with one their history survives all their devices.
    UserKeyChanged {
        /// The chat.
        chat_id: ChatId,
        /// The entry.
        seq: Seq,
        /// Whose.
        user_id: UserId,
        /// Whether there is one now.
        is_there: bool,
    },
    /// A session made a group key of the chat, or found the newest one bad.
    GroupKeyChanged {
        /// The chat.
        chat_id: ChatId,
        /// The entry.
        seq: Seq,
        /// Which.
        generation: GenerationNo,
        /// The session that made or refused it.
        session_id: SessionId,
        /// Whether it was refused: then the next one is made before the next message.
        is_refused: bool,
    },
    /// A group secret of a chat was set, sealed again or deleted, by the server's word.
    SecretChanged {
        /// The chat.
        chat_id: ChatId,
        /// The secret.
        secret_id: SecretId,
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
    /// The server says that its operator ended the account of a member: forced by the server, and signed by nobody. What
    /// they owned has passed on by rule.
    AccountRemoved {
        /// The chat.
        chat_id: ChatId,
        /// The entry.
        seq: Seq,
        /// Whose.
        user_id: UserId,
        /// Who owns the chat from now on, if it was theirs.
        heir: Option<UserId>,
    },
    /// A chat is called something else, or its name can be read now.
    InfoChanged {
        /// The chat.
        chat_id: ChatId,
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
        /// Which revision of it: 0 for the message itself.
        revision: Revision,
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
    /// A recipient refused its copy of a key, and says that it is bad. Either that session lies or who uploaded the
    /// copy does; the refusal's signature was checked, the copy cannot be.
    CopyRefused {
        /// The chat.
        chat_id: ChatId,
        /// The key.
        key_id: KeyId,
        /// Who refused.
        refused_by: SessionId,
        /// Whose key it is.
        sender_session_id: SessionId,
        /// Who had uploaded the copy.
        uploaded_by: SessionId,
        /// What is said to be wrong with it.
        reason: RefusalReason,
    },
    /// A message of this session is in the log, but these recipients refused their copies of its key for good.
    Unreadable {
        /// The chat.
        chat_id: ChatId,
        /// The message.
        message_id: MessageId,
        /// The recipients.
        sessions: Vec<SessionId>,
    },
    /// A message of this session is in the log, but these members have neither a live session nor a user key: until they
    /// come back, nobody can say that they will read it.
    OutOfReach {
        /// The chat.
        chat_id: ChatId,
        /// The message.
        message_id: MessageId,
        /// The members.
        users: Vec<UserId>,
    },
    /// A key that was asked for has come, or was recovered: messages that were live when they came follow as events, those of pages
    /// open when their page is read again.
    KeyCame {
        /// The chat.
        chat_id: ChatId,
        /// The key.
        key_id: KeyId,
    },
    /// This session was handed the keys of older ones of its user: what was made for these opens now, so history that was
    /// locked is worth reading again.
    HistoryOpened {
        /// Those sessions.
        sessions: Vec<SessionId>,
    },
    /// A user's profile was saved, or its key has come: it can be read.
    ProfileChanged {
        /// Whose.
        user_id: UserId,
    },
    /// A new session of this user waits for approval.
    SessionPending {
        /// The session.
        session_id: SessionId,
    },
    /// This session runs out, or has, and this device does not hold the identity key: the password renews it. While it
    /// is live that is [`Client::unlock`](super::Client::unlock), and after it [`Client::log_in`](super::Client::log_in)
    /// with the same profile.
    PasswordNeeded {
        /// When its certificate ends.
        expired_at: Timestamp,
    },
    /// Somebody asks friends to help them recover an account: this user's own, or that of a friend whose share this user
    /// holds. Told once by each process. If it is the own account and this user does not know of it, it is to be cancelled.
    RecoveryRequested {
        /// The request.
        request_id: RecoveryRequestId,
        /// Whose account.
        user_id: UserId,
        /// Its name.
        username: Username,
        /// Whether it is this user's own.
        is_own: bool,
    },
    /// Such a request was cancelled, by the server's word.
    RecoveryCancelled {
        /// The request.
        request_id: RecoveryRequestId,
        /// Whose account.
        user_id: UserId,
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

impl Event {
    /// An alarm about no chat and no session.
    pub(crate) const fn alarm(failure: VerificationFailure) -> Self {
        Self::Alarm(Alarm { chat_id: None, seq: None, session_id: None, failure })
    }

    /// An alarm about a chat, of no one session.
    pub(crate) const fn alarm_in(chat_id: ChatId, seq: Option<Seq>, failure: VerificationFailure) -> Self {
        Self::Alarm(Alarm { chat_id: Some(chat_id), seq, session_id: None, failure })
    }
}
