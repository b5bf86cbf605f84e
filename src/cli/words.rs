//! Says in words what a code of the server means to whoever typed the command.

use crate::client::{Alarm, VerificationFailure};
use crate::protocol::error::{CloseCode, ErrorCode};

/// What happened.
pub(super) const fn of_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthenticated => "the server does not accept this session's proof",
        ErrorCode::AccountSuspended => "the server's operator has suspended this account",
        ErrorCode::RegistrationClosed => "nobody can register on this server now",
        ErrorCode::InvitationNeeded => "this server lets in who has an invitation",
        ErrorCode::InvitationInvalid => "the invitation's code is none, used up or run out",
        ErrorCode::SessionExpired => "this session has expired",
        ErrorCode::SessionRevoked => "this session was revoked",
        ErrorCode::SessionPending => "this session waits for approval",
        ErrorCode::Malformed => "the server cannot read the request",
        ErrorCode::UnknownFrame => "the server does not know this request",
        ErrorCode::UnsupportedVersion => "the server speaks another version of the protocol",
        ErrorCode::TooLarge => "it is larger than the server takes",
        ErrorCode::RateLimited => "too many requests in a short time",
        ErrorCode::LimitReached => "a limit of the server is reached",
        ErrorCode::StorageUnavailable => "the server cannot reach its database",
        ErrorCode::BadSignature => "the server finds a signature that does not verify",
        ErrorCode::BadCertificate => "the server does not accept the session's certificate",
        ErrorCode::UsernameTaken => "the username is taken",
        ErrorCode::UsernameInvalid => "the username breaks a rule",
        ErrorCode::UnknownUser => "there is no user of that name",
        ErrorCode::UnknownSession => "there is no such session of yours",
        ErrorCode::UnknownChat => "there is no such chat, or you are not in it",
        ErrorCode::UnknownKey => "the server does not have the key of this message",
        ErrorCode::UnknownSecret => "there is no such secret",
        ErrorCode::UnknownMessage => "there is no such message",
        ErrorCode::CannotWrite => "you may not write in this chat",
        ErrorCode::CannotManage => "you may not manage this chat",
        ErrorCode::NotOwner => "only the owner of the chat may do this, and nobody to the owner",
        ErrorCode::OwnerMustTransfer => "the owner cannot leave the chat",
        ErrorCode::NotAllowedToAdd => "the user does not want to be added by you",
        ErrorCode::NotKeyHolder => "this device does not hold that key",
        ErrorCode::KeyInUse => "that key is in use",
        ErrorCode::HistoryNotAllowed => "they may not read what was before",
        ErrorCode::AlreadyMember => "the user is a member already",
        ErrorCode::NotMember => "the user is not a member",
        ErrorCode::CopiesMissing
        | ErrorCode::RecipientsChanged
        | ErrorCode::RosterChanged
        | ErrorCode::KeyStale
        | ErrorCode::KeySpent
        | ErrorCode::GroupKeyDue
        | ErrorCode::GroupKeyExists
        | ErrorCode::KeyExists
        | ErrorCode::InfoKeyStale
        | ErrorCode::CounterGap => "the members or their devices changed at the same time, again and again",
        ErrorCode::IdReused => "that id was used for something else",
        ErrorCode::EditConflict => "the message was changed at the same time",
        ErrorCode::EventConflict => "somebody changed the same at the same time",
        ErrorCode::WithdrawalMissing => "the session has seen what the password protects, so the user key goes with it",
        ErrorCode::LoginFailed => "the name, the password or the recovery code is wrong",
        ErrorCode::StrongboxChanged => "the password was changed at the same time",
        ErrorCode::UserKeyStale => "the password of a friend was changed at the same time",
        ErrorCode::NoShare => "no share of theirs is kept for you",
        ErrorCode::UnknownRecoveryRequest => "there is no such request that is open",
        ErrorCode::IdentityNeeded => "a request was cancelled without the password before",
        ErrorCode::AheadOfLog => "the server has less than it has shown before",
        ErrorCode::Internal => "the server has a fault",
    }
}

/// Why the server ended the connection for good.
pub(super) const fn of_close(code: CloseCode) -> &'static str {
    match code {
        CloseCode::SessionRevoked => "this session was revoked",
        CloseCode::SessionExpired => "this session has expired",
        CloseCode::Replaced => "this session is connected from somewhere else",
        CloseCode::AccountSuspended => of_code(ErrorCode::AccountSuspended),
        CloseCode::AccountRemoved => "the server's operator has ended this account",
        CloseCode::LoginRefused => "the server refuses the login",
        other => other.as_str(),
    }
}

/// What did not verify, and in which chat.
pub(super) fn of_alarm(alarm: &Alarm) -> String {
    let place = alarm.chat_id.map(|chat_id| format!("chat {chat_id}: ")).unwrap_or_default();
    let meaning = match alarm.failure {
        VerificationFailure::Rollback { .. } => {
            ": it was set back to an older backup, or it lies; what this device has is kept, and nothing else is shown \
             of the chat until the server has that again"
        }
        _ => "",
    };
    format!("alarm: {place}{}{meaning}", alarm.failure)
}
