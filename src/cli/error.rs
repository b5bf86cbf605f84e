//! Why a command failed, and what to do next, in one line.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::messages::MessageRef;
use super::words;
use crate::client::{ClientError, CloseReason, FriendsError, NetworkError, SendError, StorageError};
use crate::crypto::friends::RequestCodeInvalid;
use crate::crypto::link_code::LinkCodeInvalid;
use crate::crypto::opaque::PasswordInvalid;
use crate::crypto::recovery_code::RecoveryCodeInvalid;
use crate::protocol::error::{CloseCode, ErrorCode};
use crate::protocol::ids::MessageId;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Send(#[from] SendError),
    #[error("{0}")]
    Closed(#[from] CloseReason),
    #[error("{0}")]
    Storage(#[from] StorageError),
    #[error("{0}")]
    Network(#[from] NetworkError),
    #[error("{0}")]
    Code(#[from] LinkCodeInvalid),
    #[error("this code is for a session of {of}")]
    CodeOfOther { of: String },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("{}: {source}", .path.display())]
    Passphrase { path: PathBuf, source: io::Error },
    #[error("not done within {} s{}", .limit.as_secs(), because(.failure))]
    Timeout { limit: Duration, failure: Option<String> },
    #[error("not sent within {} s{}", .limit.as_secs(), because(.failure))]
    NotSent { limit: Duration, failure: Option<String> },
    #[error(
        "no answer within {} s{}: message {message_id} may have been sent, is kept, and goes again with the next command",
        .limit.as_secs(), because(.failure)
    )]
    Unknown { limit: Duration, failure: Option<String>, message_id: MessageId },
    #[error("{count} entries of the chat do not verify and are not shown; the first: entry {seq}: {failure}")]
    Unverified { count: usize, seq: u64, failure: String },
    #[error("the chat has ended, or you are not in it any more")]
    Gone,
    #[error("{count} of the things typed failed")]
    SomeFailed { count: usize },
    #[error("{count} messages have no answer{}; they are kept, and go out with the next command", because(.failure))]
    Kept { count: usize, failure: Option<String> },
    #[error("that is you")]
    SafetyOfSelf,
    #[error("there is no message {which} that you can see in this chat")]
    NoMessage { which: MessageRef },
    #[error("no message that this can be about is here")]
    NoNewest,
    #[error("that is not the username; nothing was deleted")]
    Unconfirmed,
    #[error("{0}")]
    Password(#[from] PasswordInvalid),
    #[error("{0}")]
    Recovery(#[from] RecoveryCodeInvalid),
    #[error("this account has no password, so a recovery code has nothing to open")]
    NoPassword,
    #[error("{0}")]
    RequestCode(#[from] RequestCodeInvalid),
    #[error("this account has no password, so it has no key that opens secrets")]
    NoPasswordForSecrets,
    #[error("the two are not the same")]
    NotTheSame,
    #[error("a password is needed, and there is no terminal to ask for it")]
    NobodyToAsk,
}

fn because(failure: &Option<String>) -> String {
    failure.as_ref().map(|failure| format!(" ({failure})")).unwrap_or_default()
}

impl CliError {
    /// What happened, in words.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Client(ClientError::Refused {
                code: code @ (ErrorCode::TooLarge | ErrorCode::LimitReached),
                message,
            }) => {
                format!("{} ({message})", words::of_code(*code))
            }
            Self::Client(ClientError::Refused { code, .. }) | Self::Send(SendError::Refused { code }) => {
                words::of_code(*code).to_owned()
            }
            Self::Send(SendError::GaveUp { code }) => format!("given up: {}", words::of_code(*code)),
            Self::Closed(reason)
            | Self::Client(ClientError::Closed(reason))
            | Self::Send(SendError::Closed(reason)) => match reason {
                CloseReason::Code(code) => words::of_close(*code).to_owned(),
                CloseReason::Login(code) => words::of_code(*code).to_owned(),
                reason => reason.to_string(),
            },
            other => other.to_string(),
        }
    }

    /// What happened and what to do next, on one line.
    pub(super) fn line(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{}; {advice}", self.what()),
            None => self.what(),
        }
    }

    /// What its user may do.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Client(error) => advice_client(error),
            Self::Send(SendError::Refused { code }) => advice_code(*code),
            Self::Send(SendError::GaveUp { .. }) => Some("try again"),
            Self::Send(SendError::NotMember) => Some("see `chat list`; a manager of the chat can add you"),
            Self::Send(SendError::OutcomeUnknown) => Some("ask the members whether they have it"),
            Self::Send(SendError::NotRecipient) => Some("link this device again with another profile"),
            Self::Send(SendError::TooLarge { .. }) => Some("send it in parts"),
            Self::Send(SendError::Storage(error)) => advice_storage(error),
            Self::Send(SendError::Closed(reason)) | Self::Closed(reason) => advice_closed(*reason),
            Self::Send(SendError::GhostRecipient { .. }) => Some("do not trust this server until it is explained"),
            Self::Storage(error) => advice_storage(error),
            Self::Network(error) => advice_network(error),
            Self::Code(_) => Some("type it as `session link` printed it"),
            Self::CodeOfOther { .. } => Some("link a session of your own, or use the profile of that user"),
            Self::Timeout { .. } | Self::NotSent { .. } => {
                Some("check the server and try again, or give a longer --timeout")
            }
            Self::Unknown { .. } => Some("or repeat the command with --id of that message"),
            Self::Unverified { .. } => Some("ask the members whether they see the same"),
            Self::Gone => Some("see `chat list`"),
            Self::SomeFailed { .. } => Some("see the lines above"),
            Self::Kept { .. } => Some("check the server, and connect again with any command"),
            Self::NoNewest => Some("name one by its place, like #12"),
            Self::NoMessage { .. } => Some("`read` shows the places of messages in its first column"),
            Self::Password(_) => Some("choose another one"),
            Self::Recovery(_) => Some("type it as `recovery-code` printed it"),
            Self::RequestCode(_) => Some("type it as `friends recover` printed it"),
            Self::NoPassword | Self::NoPasswordForSecrets => Some("give it one with `password change`"),
            Self::NotTheSame => Some("try again"),
            Self::NobodyToAsk => Some("give it as a line of input with --password-stdin"),
            Self::Unconfirmed => Some("type it exactly, or give --yes"),
            Self::Send(SendError::UnknownMessage) => Some("you can change your own messages, and none that is deleted"),
            Self::Send(SendError::EditConflict { .. }) => Some("look at what it says now with `read`, and try again"),
            Self::SafetyOfSelf => Some("name the person you talk with"),
            Self::Passphrase { .. } => Some("check --passphrase-file"),
            Self::Send(_) | Self::Output(_) => None,
        }
    }
}

const fn advice_client(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Refused { code, .. } => advice_code(*code),
        ClientError::Verification(_) => Some("do not go on until it is explained"),
        ClientError::Closed(reason) => advice_closed(*reason),
        ClientError::UnknownChat => Some("see `chat list`"),
        ClientError::NotMember | ClientError::AlreadyMember => Some("see `chat show`"),
        ClientError::Conflict => Some("try again"),
        ClientError::Unchanged => Some("see `chat show` for how it is"),
        ClientError::AccountDeleted => Some("register another one with another profile"),
        ClientError::Username(_) => Some("3 to 32 of a-z, 0-9, `.`, `_` and `-`"),
        ClientError::TooLarge { .. } => Some("make it shorter"),
        ClientError::NoIdentityKey => Some("give the account's password"),
        ClientError::LoginFailed => Some("check both; an account without a password is joined with `session link`"),
        ClientError::TooManySessions { .. } => {
            Some("end one with `session revoke` on another device, or in its favour here with --replace ID")
        }
        ClientError::Friends(error) => advice_friends(error),
        ClientError::Strongbox => Some("do not trust this server until it is explained"),
        ClientError::UnexpectedAnswer => Some("check that client and server are of the same version"),
        ClientError::NoSuchPending => Some("compare the code with what `session link` prints, or link again"),
        ClientError::NoSharedChat => Some("add them to a chat, or have them add you"),
        ClientError::ProfileKeyAwaited => Some("try again when one of their devices has been online"),
        ClientError::NotReady => Some("run `register` or `session link` first"),
        ClientError::ProfileTaken => Some("choose another --profile"),
        ClientError::NoGroupKey => Some("give an account of its members a password with `password change`"),
        ClientError::UnknownSecret => Some("see `secret list`"),
        ClientError::SecretWaits { .. } => Some("`secret list` says whom to ask"),
        ClientError::SecretLost => Some("delete it, or set it anew"),
        ClientError::Handover => Some("remove the profile and link again"),
        ClientError::Network(error) => advice_network(error),
        ClientError::Storage(error) => advice_storage(error),
        _ => None,
    }
}

const fn advice_friends(error: &FriendsError) -> Option<&'static str> {
    match error {
        FriendsError::NotAFriend(_) => Some("make a chat with them first, and compare your safety numbers"),
        FriendsError::NoUserKey(_) => Some("ask them to give their account one with `password change`"),
        FriendsError::ForeignKey(_) | FriendsError::OtherAccount => {
            Some("do not trust this server until it is explained")
        }
        FriendsError::Numbers { .. } => Some("name each friend once, and say how many of them with --of"),
        FriendsError::NothingShared => Some("see `friends share`"),
        FriendsError::UnknownRequest => Some("see `friends requests`"),
        FriendsError::WrongCode => Some("ask them to read it out again; if it stays so, give nothing and tell them"),
        FriendsError::OtherUser => Some("give nothing, and tell them"),
        FriendsError::TooEarly { .. } => Some("until then its account's own devices can cancel it; then try again"),
        FriendsError::BadShare => Some("ask them to share anew once they are back"),
        FriendsError::Cancelled | FriendsError::Over => Some("begin again with another profile"),
        _ => None,
    }
}

const fn advice_code(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::UsernameTaken => Some("choose another one"),
        ErrorCode::LoginFailed => Some("check both"),
        ErrorCode::InvitationNeeded => Some("give its code with --invitation"),
        ErrorCode::InvitationInvalid => Some("check it, or ask who invited you for another"),
        ErrorCode::AccountSuspended => Some("ask the server's operator; nothing is lost meanwhile"),
        ErrorCode::StrongboxChanged => Some("try again, with the newest password"),
        ErrorCode::UsernameInvalid => Some("3 to 32 of a-z, 0-9, `.`, `_` and `-`"),
        ErrorCode::UnknownUser => Some("check the name; it must be exactly theirs"),
        ErrorCode::UnknownChat => Some("see `chat list`"),
        ErrorCode::AlreadyMember | ErrorCode::NotMember => Some("see `chat show`"),
        ErrorCode::SessionPending => Some("approve it with `session approve` on another device"),
        ErrorCode::TooLarge => Some("make it smaller"),
        ErrorCode::LimitReached => Some("remove what is not needed any more"),
        ErrorCode::IdReused => Some("leave --id out for a new message"),
        ErrorCode::EventConflict | ErrorCode::EditConflict => Some("try again"),
        ErrorCode::AheadOfLog => Some("do not trust this server until it is explained"),
        ErrorCode::UnknownFrame | ErrorCode::UnsupportedVersion | ErrorCode::Malformed => {
            Some("use the client of the server's version")
        }
        ErrorCode::UnknownSession => Some("see `session list`"),
        ErrorCode::CannotWrite | ErrorCode::CannotManage | ErrorCode::NotOwner => Some("see `chat show` for who may"),
        ErrorCode::OwnerMustTransfer => Some("give it to a member with `chat transfer`, or delete it"),
        ErrorCode::NotAllowedToAdd => Some("ask them: who may add them is their setting"),
        ErrorCode::SessionExpired => Some("`login` with the account's password renews it, and keeps what it can read"),
        ErrorCode::SessionRevoked | ErrorCode::Unauthenticated => Some("link a new session with another profile"),
        ErrorCode::BadCertificate => Some("try a shorter --session-ttl, and check this machine's clock"),
        ErrorCode::RateLimited | ErrorCode::StorageUnavailable | ErrorCode::Internal => Some("try again later"),
        _ => None,
    }
}

const fn advice_closed(reason: CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::Login(code) => advice_code(code),
        CloseReason::Code(CloseCode::SessionExpired) => advice_code(ErrorCode::SessionExpired),
        CloseReason::Code(CloseCode::AccountSuspended) => advice_code(ErrorCode::AccountSuspended),
        CloseReason::Code(CloseCode::SessionRevoked | CloseCode::LoginRefused) => {
            Some("link a new session with another profile")
        }
        CloseReason::Code(CloseCode::Replaced) => Some("another program uses a copy of this profile: stop it"),
        CloseReason::AccountDeleted => Some("register another one with another profile"),
        CloseReason::Verification(_) => Some("do not go on until it is explained"),
        CloseReason::Pending => Some("run `session link` again and approve its code"),
        _ => None,
    }
}

const fn advice_storage(error: &StorageError) -> Option<&'static str> {
    match error {
        StorageError::Missing(_) => Some("run `register` or `session link` first"),
        StorageError::Locked(_) => {
            Some("end it (a `talk` or `read --follow` keeps its profile) or wait with --timeout")
        }
        StorageError::Version => Some("use the program that made it, or link a new profile"),
        StorageError::Io { .. } => Some("check that the folder is yours and the disk not full"),
        StorageError::PassphraseNeeded => Some("set SEALCAST_PASSPHRASE or give --passphrase-file"),
        StorageError::NotSealed => Some("unset SEALCAST_PASSPHRASE and leave --passphrase-file out"),
        StorageError::DoesNotOpen => Some("check the passphrase"),
        _ => None,
    }
}

const fn advice_network(error: &NetworkError) -> Option<&'static str> {
    match error {
        NetworkError::Address => Some("give --server as https://host"),
        NetworkError::Connect(_) | NetworkError::Timeout => Some("check the address and whether the server runs"),
        NetworkError::Tls(_) => Some("give the server's certificate authority with --ca"),
        NetworkError::Authorities => Some("check --ca: a PEM file with certificates"),
        NetworkError::Version => Some("use the client of the server's version"),
        NetworkError::NotSealcast { .. } => Some("check the address"),
        _ => None,
    }
}
