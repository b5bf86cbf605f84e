//! Says why an operation of the client failed, and what its caller may do.

use super::failure::VerificationFailure;
use super::storage::StorageError;
use crate::protocol::binary::Signature;
use crate::protocol::error::{CloseCode, ErrorCode};
use crate::protocol::ids::{Revision, SessionId, UserId};

/// Why a message was not sent. It is not in the log and will not be, except after [`SendError::OutcomeUnknown`] and
/// [`SendError::Closed`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The server refuses it for good.
    #[error("the server refuses the message: {code}")]
    Refused {
        /// Why.
        code: ErrorCode,
    },
    /// The message was changed by another session first: look at what it says now, and change that.
    #[error("the message was changed meanwhile: revision {revision} is next")]
    EditConflict {
        /// The revision that a change has next.
        revision: Revision,
    },
    /// The message is not among those that this device remembers, or is deleted, or not this user's to change.
    #[error("no such message, or not this user's to change")]
    UnknownMessage,
    /// The user is not a member of the chat, as far as the log says.
    #[error("not a member of this chat")]
    NotMember,
    /// The message was on its way when this user ceased to be a member, or the chat to be. Whether it was taken before
    /// that, and others have read it, this session can no longer find out.
    #[error("no longer a member of this chat; whether the message was taken before is not known")]
    OutcomeUnknown,
    /// This session is no recipient of the chat, as far as the log says.
    #[error("this session is not a recipient of this chat")]
    NotRecipient,
    /// The body is too large.
    #[error("a message of {size} bytes is above the limit of {size_max}")]
    TooLarge {
        /// Bytes of the body.
        size: usize,
        /// Bytes that a body may have.
        size_max: usize,
    },
    /// The server asks to encrypt to a session that the log does not know: somebody may be listening.
    #[error("the server names session {session_id} as a recipient, the log does not")]
    GhostRecipient {
        /// The session.
        session_id: SessionId,
    },
    /// The server refused it again and again, each time for a reason that was mended.
    #[error("refused too many times, at last for {code}")]
    GaveUp {
        /// The last reason.
        code: ErrorCode,
    },
    /// The cipher refused the body.
    #[error("the message could not be sealed")]
    Sealing,
    /// The sealed frame could not be kept, so it was not sent.
    #[error("the message could not be kept")]
    Storage(#[source] std::sync::Arc<StorageError>),
    /// The client has closed; a frame that was on its way stays in the profile and goes out the next time.
    #[error("the client is closed: {0}")]
    Closed(CloseReason),
}

/// Why a client does not connect any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// Its user closed it.
    #[error("closed by its user")]
    ByUser,
    /// The server closed the connection with a code that says not to come back.
    #[error("the server says {}", .0.as_str())]
    Code(CloseCode),
    /// The server refused the login.
    #[error("the server refuses the login: {0}")]
    Login(ErrorCode),
    /// Something about the account or the server did not verify.
    #[error("{0}")]
    Verification(VerificationFailure),
    /// The session waits for approval.
    #[error("the session is not approved")]
    Pending,
    /// The account has ended, by this device's will.
    #[error("the account was deleted")]
    AccountDeleted,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server refuses.
    #[error("the server refuses: {code}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The server's words for a developer.
        message: String,
    },
    /// Something does not verify.
    #[error(transparent)]
    Verification(#[from] VerificationFailure),
    /// The client has closed.
    #[error("the client is closed: {0}")]
    Closed(CloseReason),
    /// The chat is not one of this user's.
    #[error("no such chat")]
    UnknownChat,
    /// The user is a member already.
    #[error("the user is a member already")]
    AlreadyMember,
    /// The user is not a member.
    #[error("the user is not a member")]
    NotMember,
    /// The chat is so already.
    #[error("nothing would change")]
    Unchanged,
    /// The profile's account has ended.
    #[error("the account of this profile was deleted")]
    AccountDeleted,
    /// Others changed the same thing again and again.
    #[error("others changed the same at the same time, too many times")]
    Conflict,
    /// No pending session was made with this code.
    #[error("no session that waits for approval has this link code")]
    NoSuchPending,
    /// This device does not hold the identity key.
    #[error("this device does not hold the identity key")]
    NoIdentityKey,
    /// The profile holds no account, or one that is not ready.
    #[error("the profile has no account that is ready")]
    NotReady,
    /// The profile holds an account.
    #[error("the profile has an account already")]
    ProfileTaken,
    /// The name, the password or the recovery code is wrong: nobody says which.
    #[error("the name, the password or the recovery code is wrong")]
    LoginFailed,
    /// The user has as many live sessions as the server allows: one must end first.
    #[error("there are as many live sessions as the server allows; {oldest} was not seen for the longest")]
    TooManySessions {
        /// The one that was not seen for the longest.
        oldest: SessionId,
    },
    /// What the password protects does not open, or was not made by this user.
    #[error("what the password protects is not as its user left it")]
    Strongbox,
    /// Recovery by friends does not go on.
    #[error(transparent)]
    Friends(#[from] super::friends::FriendsError),
    /// There is no current group key that this user can open: no member has a password, or this user has none.
    #[error("there is no group key that this user can open")]
    NoGroupKey,
    /// No such group secret.
    #[error("no such group secret")]
    UnknownSecret,
    /// A group secret is sealed under a generation that this user cannot open. Once one of these members opens their
    /// secrets it is sealed again, and opens.
    #[error("the group secret waits for a member who can open it")]
    SecretWaits {
        /// Some of those members.
        openers: Vec<UserId>,
    },
    /// A group secret is sealed under a generation that no member can open any more. Nobody can bring it back.
    #[error("the group secret is lost: no member can open it any more")]
    SecretLost,
    /// Not a username.
    #[error("not a username: {0}")]
    Username(#[from] crate::protocol::username::UsernameInvalid),
    /// This device knows no user of that id: it shares no chat with them, and has not looked them up.
    #[error("no user of that id is known here")]
    UnknownUser,
    /// No chat is shared with this user, so nothing of their profile can be read.
    #[error("there is no chat that you are in together")]
    NoSharedChat,
    /// The profile is there, and its key has not come: it waits for a device of its user.
    #[error("the profile cannot be read yet: its key waits for a device of its user")]
    ProfileKeyAwaited,
    /// Above a limit of the protocol.
    #[error("above the limit of {limit} bytes")]
    TooLarge {
        /// Bytes, at most.
        limit: usize,
    },
    /// The hand-over does not open under this code, or is not of this user.
    #[error("the hand-over does not open")]
    Handover,
    /// The answer is not one to this request.
    #[error("the server's answer is not one to the request")]
    UnexpectedAnswer,
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] crate::crypto::SealError),
    /// The network, or what is not an answer of this protocol.
    #[error(transparent)]
    Network(#[from] super::net::NetworkError),
    /// The profile.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The profile's content is not of the form.
    #[error("the profile cannot be read: its content is of another version or damaged")]
    Profile(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A signature that is not made yet.
pub(crate) const UNSIGNED: Signature = Signature([0; Signature::LENGTH]);
