//! Names what may fail to verify. Each is an alarm: somebody is wrong, or lies.

use crate::protocol::fold::FoldError;
use crate::protocol::ids::{Counter, Epoch, GenerationNo, Revision, SecretId, Seq, SessionId, UserId, UserKeyId};

/// What did not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerificationFailure {
    /// Entries are missing in between: the chat is asked for again.
    #[error("entry {found} came where {expected} is next")]
    Gap {
        /// The next seq.
        expected: Seq,
        /// The seq that came.
        found: Seq,
    },
    /// The log's hash is not the hash of what was shown: the chat is asked for again.
    #[error("the hash of the log is not the hash of its entries")]
    LogHash,
    /// Two members, or one at two times, were shown different logs.
    #[error("somebody was shown another log up to entry {seq}")]
    Fork {
        /// The place at which the logs differ.
        seq: Seq,
    },
    /// The server's log ends before what it has shown.
    #[error("the server's log ends at entry {seq}, before what it has shown")]
    Rollback {
        /// The newest entry that the server has.
        seq: Seq,
    },
    /// An entry that is not a message does not verify; it changes nothing.
    #[error("the entry does not verify: {0}")]
    Fold(FoldError),
    /// The log of a chat does not begin with what makes this user a member.
    #[error("the log does not begin with this user's joining")]
    NotJoined,
    /// A message of a session that is no recipient of the chat.
    #[error("the sending session is not in the chat")]
    GhostSender,
    /// A user key that the user's identity key did not sign.
    #[error("a user key of user {0} is not signed by their identity key")]
    UserKey(UserId),
    /// A message of a member who may not write.
    #[error("the sender may not write")]
    CannotWrite,
    /// A message whose signature is not its session's.
    #[error("the signature of the message does not verify")]
    Signature,
    /// A message that was encrypted for other recipients than the log's.
    #[error("the message was encrypted for other recipients than the log's")]
    RosterHash,
    /// A message, edit or deletion that is not of the form of one.
    #[error("the revision, key or data is not of the form of a message, edit or deletion")]
    Shape,
    /// A revision that is not the one after the newest.
    #[error("revision {found} of the message came where {expected} is next")]
    Revision {
        /// The next revision.
        expected: Revision,
        /// The revision that came.
        found: Revision,
    },
    /// An edit or deletion of a message by somebody who may not change it.
    #[error("the message is another user's")]
    NotTheirs,
    /// An edit or deletion of a message that was deleted.
    #[error("the message was deleted before")]
    AfterDeletion,
    /// A message without its data, though nothing in the log says why.
    #[error("the data of the message is withheld: no later revision says why it is gone")]
    Withheld,
    /// The announcement of the message's key does not verify, or is another session's.
    #[error("the announcement of the sender key does not verify")]
    Announcement,
    /// The message's key is of another epoch than the chat.
    #[error("the sender key is of epoch {key}, the chat of epoch {chat}")]
    KeyEpoch {
        /// Of the key.
        key: Epoch,
        /// Of the chat.
        chat: Epoch,
    },
    /// A message of this key is missing, or came twice.
    #[error("message {found} of the sender key came where {expected} is next")]
    Counter {
        /// The next counter.
        expected: Counter,
        /// The counter that came.
        found: Counter,
    },
    /// There is no copy of the key for this session, which is a recipient.
    #[error("there is no copy of the sender key for this session")]
    NoCopy,
    /// The copy does not open, or is not the key that was announced.
    #[error("the copy of the sender key is not the announced key")]
    BadCopy,
    /// The message does not open under its key.
    #[error("the message does not open")]
    Undecryptable,
    /// The server asks to encrypt to a session that the log does not know.
    #[error("the server names session {0} as a recipient, the log does not")]
    GhostRecipient(SessionId),
    /// A user shows another identity key, or a name another user, than before.
    #[error("the identity of user {0} is not the one known before")]
    IdentityChanged(UserId),
    /// A session of this user that the user's identity key did not certify.
    #[error("session {0} is not certified by its user")]
    Certificate(SessionId),
    /// The server has another name than the one this profile knows.
    #[error("the server has another name than before")]
    ServerName,
    /// The user's list of sessions is shorter or other than before.
    #[error("the list of this user's sessions is shorter or other than before")]
    UserChain,
    /// The server shows less of a user's chain than before, or another one: it hides a certificate or a revocation.
    #[error("the chain of user {0} is shorter or other than before")]
    ChainRewritten(UserId),
    /// An entry of a user's chain does not verify.
    #[error("the chain of user {0} does not verify")]
    ChainInvalid(UserId),
    /// A session is in a chat by a certificate that its user's chain does not have.
    #[error("session {0} is in a chat, and not in its user's chain")]
    NotInChain(SessionId),
    /// A session was revoked, and is in a chat still: keys go on being wrapped to it.
    #[error("session {0} was revoked, and the chat's log does not say so")]
    WithheldRevocation(SessionId),
    /// A live session of this user is not in a chat that this user is in.
    #[error("the user's own session {0} is missing in a chat")]
    OwnSessionMissing(SessionId),
    /// A wrap of a chat's info key is not signed by a session of the chat, or does not open.
    #[error("the info key that session {0} is said to have wrapped does not verify")]
    InfoKey(SessionId),
    /// A chat's info key that was sealed to a recovery key is not signed by a session of the chat, does not open, or is not
    /// the key of what was saved.
    #[error("the info key that session {0} is said to have sealed to the group key is not the one")]
    InfoKeySeal(SessionId),
    /// The name or description of a chat is not signed by a session of the chat, or does not open, or is another one
    /// of the same revision.
    #[error("what the chat is called does not verify")]
    Info,
    /// A wrap of a group key does not open with the user key that it was made for.
    #[error("the wrap of group key {0} does not open")]
    GroupKeyWrap(GenerationNo),
    /// A group key gives another recovery key than its maker signed: what is archived to that is lost.
    #[error("group key {0} is not that of the recovery key in the log")]
    RecoveryKey(GenerationNo),
    /// What links a generation of the group key to the one before is not signed by a session of the chat, does not open, or
    /// is not the group key of the recovery key in the log.
    #[error("the link of group key {0} to the one before is not that of the log")]
    GenerationLink(GenerationNo),
    /// The server shows no wrap of a group key for a user key for which the log says that it was made.
    #[error("group key {0} is withheld")]
    GroupKeyWithheld(GenerationNo),
    /// An archive of a sender key does not open, or is not the key that was announced.
    #[error("the archive of the sender key is not the announced key")]
    BadArchive,
    /// A chat names a user key as this user's own that is none, or none any more.
    #[error("user key {0} is not this user's, or not any more")]
    OwnUserKey(UserKeyId),
    /// The key of an older session of this user that was handed over is not signed by one of the user's sessions, does
    /// not open, or is not the key that was certified.
    #[error("the handed-over key of session {0} does not verify")]
    Backup(SessionId),
    /// A wrap of a user's info key is not signed by a session of that user, or does not open.
    #[error("the info key that session {0} is said to have wrapped for its user's profile does not verify")]
    ProfileKey(SessionId),
    /// A user's profile is not signed by a session of that user, or does not open, or is another one of the same revision.
    #[error("the profile of user {0} does not verify")]
    Profile(UserId),
    /// The server shows an older profile than before.
    #[error("the profile of user {0} is older than the one shown before")]
    ProfileRollback(UserId),
    /// A profile by a session that was revoked, which was not seen before that: it may have been made afterwards.
    #[error("the profile was saved by session {0}, which was revoked")]
    ProfileOfRevoked(SessionId),
    /// A group secret is not signed by a session that is or was in the chat.
    #[error("group secret {0} is not signed by a session of the chat")]
    SecretSignature(SecretId),
    /// A group secret does not open under its group key: it was altered, or is another one's.
    #[error("group secret {0} does not open, or is not what was signed")]
    SecretContent(SecretId),
    /// A group secret is older or other than it was shown before, or is not shown any more.
    #[error("group secret {0} is older or other than before, or withheld")]
    SecretRollback(SecretId),
    /// Whoever sealed a group secret again has changed what it says. What it said before is read.
    #[error("group secret {0} was changed by the session that sealed it again")]
    SecretDiffers(SecretId),
    /// The server said that its operator had ended a user's account, and the account goes on.
    #[error("the account of user {0} was said to have been ended by the server's operator, and it goes on")]
    RemovedYetThere(UserId),
    /// What the approving session said of a chat is not what the server shows.
    #[error("the chat is not as the approving session knew it")]
    Anchor,
}

impl VerificationFailure {
    /// Whether the chat can only go on after its log was shown again.
    #[must_use]
    pub const fn breaks_chain(&self) -> bool {
        matches!(self, Self::Gap { .. } | Self::LogHash)
    }
}
