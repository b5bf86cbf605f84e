//! Frames about users: found by name, who may add whom, accounts that end.

use serde::{Deserialize, Serialize};

use super::chat::MemberName;
use crate::protocol::binary::IdentityKey;
use crate::protocol::certificate::{SignedCertificate, SignedDeletion};
use crate::protocol::ids::UserId;
use crate::protocol::username::Username;

/// A lookup by exact name; there is no other way to find a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupUser {
    /// The name.
    pub username: Username,
}

/// A user as another sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// The user.
    pub user_id: UserId,
    /// The name in its normal form.
    pub username: Username,
    /// The identity key, which clients pin.
    pub identity_key: IdentityKey,
    /// Certificates of the live sessions.
    pub sessions: Vec<SignedCertificate>,
}

/// Who may add a user to a chat. Enforced by the server; managers who may not are told `not_allowed_to_add`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddPolicy {
    /// Whoever is not blocked.
    #[default]
    Everyone,
    /// Members of a chat that the user is in.
    SharedChat,
    /// Nobody.
    Nobody,
}

impl AddPolicy {
    /// The word on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::SharedChat => "shared_chat",
            Self::Nobody => "nobody",
        }
    }
}

/// Says who may add this user to chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAddPolicy {
    /// Who.
    pub policy: AddPolicy,
}

/// Blocks a user, or no longer: who is blocked cannot add this user to a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBlock {
    /// Whom.
    pub user_id: UserId,
    /// Whether they are blocked from now on.
    pub blocked: bool,
}

/// What a user has set for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Who may add them to chats.
    pub add_policy: AddPolicy,
    /// Whom they have blocked, in order of their ids.
    pub blocked: Vec<MemberName>,
}

/// The end of one's own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteAccount {
    /// Signed by the identity key.
    pub deletion: SignedDeletion,
}
