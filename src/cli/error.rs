//! Why a command failed, and what to do next, in one line.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::{ClientError, CloseReason, NetworkError, SendError, StorageError};
use crate::crypto::link_code::LinkCodeInvalid;
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
    #[error("the chat is gone")]
    Gone,
}

fn because(failure: &Option<String>) -> String {
    failure.as_ref().map(|failure| format!(" ({failure})")).unwrap_or_default()
}

impl CliError {
    /// What its user may do.
    pub(super) const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Client(error) => advice_client(error),
            Self::Send(SendError::Refused { code }) => advice_code(*code),
            Self::Send(SendError::Closed(reason)) | Self::Closed(reason) => advice_closed(*reason),
            Self::Send(SendError::GhostRecipient { .. }) => Some("do not trust this server until it is explained"),
            Self::Storage(error) => advice_storage(error),
            Self::Network(error) => advice_network(error),
            Self::Code(_) => Some("type it as `session link` printed it"),
            Self::Timeout { .. } | Self::NotSent { .. } => {
                Some("check the server and try again, or give a longer --timeout")
            }
            Self::Unknown { .. } => Some("or repeat the command with --id of that message"),
            Self::Unverified { .. } => Some("ask the members whether they see the same"),
            Self::Gone => Some("see `chat list`"),
            Self::Send(_) | Self::Output(_) | Self::Passphrase { .. } => None,
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
        ClientError::NoSuchPending => Some("compare the code with what `session link` prints, or link again"),
        ClientError::NotReady => Some("run `register` or `session link` first"),
        ClientError::ProfileTaken => Some("choose another --profile"),
        ClientError::Handover => Some("remove the profile and link again"),
        ClientError::Network(error) => advice_network(error),
        ClientError::Storage(error) => advice_storage(error),
        _ => None,
    }
}

const fn advice_code(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::UsernameTaken => Some("choose another one"),
        ErrorCode::UnknownUser => Some("check the name"),
        ErrorCode::UnknownChat => Some("see `chat list`: you may not be a member any more"),
        ErrorCode::UnknownSession => Some("see `session list`"),
        ErrorCode::CannotWrite | ErrorCode::CannotManage | ErrorCode::NotOwner => Some("see `chat show` for who may"),
        ErrorCode::OwnerMustTransfer => Some("delete the chat instead"),
        ErrorCode::SessionExpired | ErrorCode::SessionRevoked | ErrorCode::Unauthenticated => {
            Some("link a new session with another profile")
        }
        ErrorCode::BadCertificate => Some("try a shorter --session-ttl, and check this machine's clock"),
        ErrorCode::RateLimited | ErrorCode::StorageUnavailable | ErrorCode::Internal => Some("try again later"),
        _ => None,
    }
}

const fn advice_closed(reason: CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::Login(code) => advice_code(code),
        CloseReason::Code(CloseCode::SessionRevoked | CloseCode::SessionExpired | CloseCode::LoginRefused) => {
            Some("link a new session with another profile")
        }
        CloseReason::Code(CloseCode::Replaced) => Some("another program uses a copy of this profile: stop it"),
        CloseReason::Verification(_) => Some("do not go on until it is explained"),
        CloseReason::Pending => Some("run `session link` again and approve its code"),
        _ => None,
    }
}

const fn advice_storage(error: &StorageError) -> Option<&'static str> {
    match error {
        StorageError::Missing(_) => Some("run `register` or `session link` first"),
        StorageError::Locked(_) => Some("wait until it has ended, or give a longer --timeout"),
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
        _ => None,
    }
}
