//! Frames about a user's own sessions and chain: listed, approved, ended, named.

use serde::{Deserialize, Serialize};

use super::session::SessionState;
use crate::protocol::backup::SessionKeyBackup;
use crate::protocol::binary::{Blob, ExchangeKey, Hash, Mac, SigningKey};
use crate::protocol::canonical::{Canonical, label};
use crate::protocol::certificate::{SignedCertificate, SignedRevocation, UserEvent};
use crate::protocol::group_key::SignedWithdrawal;
use crate::protocol::ids::{Place, SessionId, Timestamp, UserId};

/// One's own sessions and the head of one's own chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Every session that is not pending.
    pub sessions: Vec<SessionInfo>,
    /// Those that wait for approval.
    pub pending: Vec<PendingSession>,
    /// The place of the newest entry of the chain.
    pub place: Place,
    /// Its hash.
    pub hash: Hash,
}

/// One session of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its certificate.
    pub certificate: SignedCertificate,
    /// Its state.
    pub state: SessionState,
    /// When it was last connected, by the database's clock.
    pub last_seen_at: Option<Timestamp>,
    /// Its name, for its user's eyes: see [`SetLabel::label`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Blob>,
}

/// A session that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSession {
    /// The session.
    pub session_id: SessionId,
    /// Its X25519 key.
    pub public_key: ExchangeKey,
    /// Its Ed25519 key.
    pub signing_public_key: SigningKey,
    /// HMAC-SHA-256 under the link code's secret over [`link_bytes`]: the server cannot make it.
    pub proof: Mac,
    /// When it asked.
    pub created_at: Timestamp,
}

/// What the link code authenticates: user, session, both public keys.
#[must_use]
pub fn link_bytes(
    user_id: UserId,
    session_id: SessionId,
    public_key: &ExchangeKey,
    signing_public_key: &SigningKey,
) -> Vec<u8> {
    Canonical::new(label::LINK)
        .id(user_id.0)
        .id(session_id.0)
        .bytes(public_key.as_ref())
        .bytes(signing_public_key.as_ref())
        .finish()
}

/// The approval of a pending session by a live one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveSession {
    /// The certificate of the pending session.
    pub certificate: SignedCertificate,
    /// Sealed to the pending session: identity key, info keys, anchors.
    pub handover: Blob,
    /// A new certificate of the approving session over another X25519 key, next in the chain: the key that it replaces
    /// may then be handed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<SignedCertificate>,
    /// Keys of older sessions for the pending one, at most [`BACKUPS_MAX`](crate::protocol::limits::BACKUPS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<SessionKeyBackup>,
}

/// What a new session gets from the one that approved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The new session's certificate.
    pub certificate: SignedCertificate,
    /// Sealed to the new session.
    pub handover: Blob,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeSession {
    /// Signed by the identity key or a live session of the same user.
    pub revocation: SignedRevocation,
    /// Withdraws the active user key; needed when the session had been given the sealed halves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawal: Option<SignedWithdrawal>,
}

/// The name of a session of one's own, for its user's eyes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLabel {
    /// The session.
    pub session_id: SessionId,
    /// Nonce (12 bytes), AES-256-GCM ciphertext and tag (16 bytes); associated data [`label_aad`]. None takes the
    /// name away.
    pub label: Option<Blob>,
}

/// Associated data of a session's encrypted name: user, session.
#[must_use]
pub fn label_aad(user_id: UserId, session_id: SessionId) -> Vec<u8> {
    Canonical::new(label::AAD_LABEL).id(user_id.0).id(session_id.0).finish()
}

/// A request for users' chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEvents {
    /// At most [`CHAINS_PER_REQUEST_MAX`](crate::protocol::limits::CHAINS_PER_REQUEST_MAX).
    pub users: Vec<ChainFrom>,
}

/// Whose chain, from where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFrom {
    /// The user.
    pub user_id: UserId,
    /// Entries after this place.
    pub after: Place,
}

/// Users' chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chains {
    /// One for each user asked for of whom there is a chain, in the order asked.
    pub chains: Vec<Chain>,
}

/// A part of a user's chain, without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The user.
    pub user_id: UserId,
    /// From the place after the one that was asked for.
    pub events: Vec<UserEvent>,
    /// Whether there is more.
    pub more: bool,
}
