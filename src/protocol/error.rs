//! Error and close codes: closed lists, each with its meaning and what a client does.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::binary::Hash;
use super::envelope::Seen;
use super::frame::SendOk;
use super::ids::{ChangeNo, Counter, Epoch, GenerationNo, Place, Revision, Seq, SessionId, UserId, UserKeyId};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $retryable:literal;)*) => {
        /// Why a request is refused. Nothing was stored or changed unless the code says so.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire and in metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whether the same request may succeed later, or after the client has mended its state by itself.
            #[must_use]
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }
        }
    };
}

error_codes! {
    /// The operator has suspended the account: no login and no message until that is taken back. What it is in goes on.
    AccountSuspended = "account_suspended", false;
    /// Nobody can register here now.
    RegistrationClosed = "registration_closed", false;
    /// Registering takes the code of an invitation.
    InvitationNeeded = "invitation_needed", false;
    /// The invitation's code is unknown, used up or run out: the same answer.
    InvitationInvalid = "invitation_invalid", false;
    /// Not logged in, or the proof of the login is wrong.
    Unauthenticated = "unauthenticated", false;
    /// The session's time ran out.
    SessionExpired = "session_expired", false;
    /// The session was revoked.
    SessionRevoked = "session_revoked", false;
    /// The session waits for approval and may do nothing else.
    SessionPending = "session_pending", false;
    /// The frame is not of its encoding, or lacks a field, or a field has another form.
    Malformed = "malformed", false;
    /// No such request.
    UnknownFrame = "unknown_frame", false;
    /// A version this server does not speak.
    UnsupportedVersion = "unsupported_version", false;
    /// Above a limit of size; `limit` names it.
    TooLarge = "too_large", false;
    /// Too often; wait `retry_after_ms`.
    RateLimited = "rate_limited", true;
    /// A limit of number; `limit` names it.
    LimitReached = "limit_reached", false;
    /// The database cannot be reached or does not answer: the request may have happened or not. Send it again
    /// with the same bytes.
    StorageUnavailable = "storage_unavailable", true;
    /// A signature does not verify.
    BadSignature = "bad_signature", false;
    /// A certificate does not verify, or its keys or times are not allowed.
    BadCertificate = "bad_certificate", false;
    /// The username belongs to somebody.
    UsernameTaken = "username_taken", false;
    /// The username breaks a rule.
    UsernameInvalid = "username_invalid", false;
    /// No user of that name or id.
    UnknownUser = "unknown_user", false;
    /// No such session of one's own.
    UnknownSession = "unknown_session", false;
    /// No such chat, or not one's own: the same answer.
    UnknownChat = "unknown_chat", false;
    /// The sender key is not stored, or not this session's.
    UnknownKey = "unknown_key", true;
    /// No such message.
    UnknownMessage = "unknown_message", false;
    /// No such group secret, or no longer.
    UnknownSecret = "unknown_secret", false;
    /// May not send messages here.
    CannotWrite = "cannot_write", false;
    /// May not change the members here.
    CannotManage = "cannot_manage", false;
    /// Only the owner may do this, and nobody to the owner.
    NotOwner = "not_owner", false;
    /// The owner leaves only after a transfer.
    OwnerMustTransfer = "owner_must_transfer", false;
    /// The user does not want to be added by this one; who may add them is their setting.
    NotAllowedToAdd = "not_allowed_to_add", false;
    /// This session holds no copy of the key, so it may hand none on.
    NotKeyHolder = "not_key_holder", false;
    /// The key is what a live session receives with: only one that it has replaced is handed on.
    KeyInUse = "key_in_use", false;
    /// The recipient may not read what the key was used for.
    HistoryNotAllowed = "history_not_allowed", false;
    /// The user is a member.
    AlreadyMember = "already_member", false;
    /// The user is not a member.
    NotMember = "not_member", false;
    /// A recipient has no copy of the key: `missing`, as of `seq`. A new key of the current epoch without extra
    /// copies is stored, and only the missing ones follow.
    CopiesMissing = "copies_missing", true;
    /// A copy for somebody who is no recipient: `extra`, as of `seq`. Nothing is stored.
    RecipientsChanged = "recipients_changed", true;
    /// The roster hash is not the current one, as of `seq`: sign again, with the same counter.
    RosterChanged = "roster_changed", true;
    /// The key is of an older epoch than `epoch`: make a new one.
    KeyStale = "key_stale", true;
    /// The key has been used too long or too often: make a new one.
    KeySpent = "key_spent", true;
    /// The group key of generation `generation` must be made first, for the members and user keys as of `seq`.
    GroupKeyDue = "group_key_due", true;
    /// Another generation came first, or none is due: fold the log to `seq`.
    GroupKeyExists = "group_key_exists", true;
    /// The session that is to be revoked had been given the sealed halves: the revocation must withdraw the active user
    /// key, `user_key_id`, with it.
    WithdrawalMissing = "withdrawal_missing", true;
    /// A key of that id exists with other bytes.
    KeyExists = "key_exists", false;
    /// Somebody who could open the info key has lost access since it was made, in `seq`: save under a new one.
    InfoKeyStale = "info_key_stale", true;
    /// The counter is not the next, which is `counter`.
    CounterGap = "counter_gap", true;
    /// The id was used with other content; to the same session `stored` has the first result.
    IdReused = "id_reused", false;
    /// The revision is not the next, which is `revision`.
    EditConflict = "edit_conflict", true;
    /// Another change came first: `n` and `hash`, or `place` and `hash`, are the newest.
    EventConflict = "event_conflict", true;
    /// The name, the password or the recovery code is wrong, or the login is none that waits: the same answer.
    LoginFailed = "login_failed", false;
    /// The password or what it protects has changed: `version` is the newest. Log in anew and make it again.
    StrongboxChanged = "strongbox_changed", false;
    /// A user key that something is wrapped to is not the active one of its user, who is `user_id`: ask for it anew.
    UserKeyStale = "user_key_stale", true;
    /// No share of that user's recovery code is this user's.
    NoShare = "no_share", false;
    /// No such request for recovery, or it has ended, or it is none of one's concern: the same answer.
    UnknownRecoveryRequest = "unknown_recovery_request", false;
    /// A session alone has cancelled a request before: this one takes the identity key.
    IdentityNeeded = "identity_needed", false;
    /// The client has seen more than the server has.
    AheadOfLog = "ahead_of_log", false;
    /// A fault of the server.
    Internal = "internal", true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why copies are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingReason {
    /// A session became a recipient.
    NewSession,
    /// A member joined who may read what was before.
    NewMember,
    /// A recipient refused the copy that was there.
    Refused,
    /// The key is not archived to the recovery key.
    Recovery,
}

/// What a client needs to mend its state; which fields are there depends on the code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetails {
    /// The newest seq that the answer takes into account: fold the log to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The chat's epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Recipients without a copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<SessionId>,
    /// Why they are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<MissingReason>,
    /// Sessions that are no recipients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<SessionId>,
    /// The next counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<Counter>,
    /// The next revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// The number of the newest membership change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<ChangeNo>,
    /// The place of the newest entry of the user's chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The hash of the newest change or entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// The newest entry of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Seen>,
    /// The limit that was passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Milliseconds to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The first result of an id that was used again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<SendOk>,
    /// The user whom it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The generation that is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationNo>,
    /// The user key that must be withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_key_id: Option<UserKeyId>,
    /// The live sessions of the user who asks, of whom there may be no more; first the one that was not seen for the longest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<SessionId>,
    /// The newest version of what the password protects; 0 without a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// A refusal: code, words for a developer, and what a client needs to go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Why.
    pub code: ErrorCode,
    /// For a developer's eyes; carries nothing that a peer sent.
    pub message: &'static str,
    /// What a client needs; boxed, for most refusals carry nothing.
    pub details: Option<Box<ErrorDetails>>,
}

impl Refusal {
    /// A refusal without details.
    #[must_use]
    pub const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, message, details: None }
    }

    /// A refusal with details.
    #[must_use]
    pub fn with(code: ErrorCode, message: &'static str, details: ErrorDetails) -> Self {
        Self { code, message, details: Some(Box::new(details)) }
    }

    /// A refusal of what came too often or is too much at once: it may come again after `wait`.
    #[must_use]
    pub fn later(message: &'static str, wait: Duration) -> Self {
        // Rounded up, so that who waits so long is not early.
        let retry_after_ms = u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
        let details = ErrorDetails { retry_after_ms: Some(retry_after_ms), ..ErrorDetails::default() };
        Self::with(ErrorCode::RateLimited, message, details)
    }

    /// A refusal that names the limit that was passed.
    #[must_use]
    pub fn limit(code: ErrorCode, message: &'static str, limit: u64) -> Self {
        Self::with(code, message, ErrorDetails { limit: Some(limit), ..ErrorDetails::default() })
    }
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal, $reconnect:literal;)*) => {
        /// Why the server closes a connection. 4000 to 4499: reconnect; 4500 to 4999: do not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseCode {
            $($(#[$doc])* $variant,)*
        }

        impl CloseCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number on the wire (RFC 6455 section 7.4).
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The reason on the wire and in metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whether a client reconnects by itself.
            #[must_use]
            pub const fn reconnects(self) -> bool {
                match self { $(Self::$variant => $reconnect,)* }
            }

            /// The code of a number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

close_codes! {
    /// Done.
    Normal = 1000, "normal", true;
    /// A violation of RFC 6455.
    ProtocolError = 1002, "protocol_error", true;
    /// Text on the binary subprotocol, or binary on the text one.
    UnsupportedData = 1003, "unsupported_data", false;
    /// Text that is not UTF-8.
    InvalidData = 1007, "invalid_data", true;
    /// A flood that did not heed `rate_limited`.
    PolicyViolation = 1008, "policy_violation", true;
    /// A message above the limit.
    TooLarge = 1009, "too_large", true;
    /// A fault of the server.
    Internal = 1011, "internal", true;
    /// The server restarts: come back after the time that `bye` named.
    Restart = 1012, "restart", true;
    /// The server is overloaded: come back later.
    Overloaded = 1013, "overloaded", true;
    /// No login in time.
    LoginTimeout = 4000, "login_timeout", true;
    /// No sign of life in time.
    IdleTimeout = 4001, "idle_timeout", true;
    /// The peer took nothing of what waited for it in time.
    Stalled = 4002, "stalled", true;
    /// The operator cut the connection: come back.
    Disconnected = 4003, "disconnected", true;
    /// A newer connection of the same session came.
    Replaced = 4500, "replaced", false;
    /// The session was revoked.
    SessionRevoked = 4501, "session_revoked", false;
    /// The session's time ran out.
    SessionExpired = 4502, "session_expired", false;
    /// The login was refused.
    LoginRefused = 4503, "login_refused", false;
    /// The operator has suspended the account.
    AccountSuspended = 4504, "account_suspended", false;
    /// The operator has ended the account.
    AccountRemoved = 4505, "account_removed", false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_own_ranges_tell_what_to_do() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert!(ErrorCode::ALL[index + 1..].iter().all(|other| other.as_str() != code.as_str()));
        }
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number()), Some(*code));
            match code.number() {
                4000..=4499 => assert!(code.reconnects()),
                4500..=4999 => assert!(!code.reconnects()),
                _ => {}
            }
        }
    }
}
