//! The bodies of the HTTP requests with which accounts and sessions begin. JSON only.

use serde::{Deserialize, Serialize};

use super::binary::{ExchangeKey, IdentityKey, Mac, SigningKey};
use super::certificate::SignedCertificate;
use super::error::{ErrorCode, ErrorDetails};
use super::ids::{SessionId, Timestamp, UserId};
use super::strongbox::StrongboxUpload;
use super::username::Username;

/// Where accounts are made.
pub const ACCOUNTS_PATH: &str = "/v1/accounts";

/// Where a new device asks to be linked.
pub const LINKS_PATH: &str = "/v1/links";

/// Where a user is found by exact name, followed by `/` and the name.
pub const USERS_PATH: &str = "/v1/users";

/// Where a server says who it is.
pub const INFO_PATH: &str = "/v1/info";

/// Where the socket is.
pub const SOCKET_PATH: &str = "/v1/socket";

/// Who a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// What clients pin and sign.
    pub server_name: String,
    /// The server's version.
    pub server_version: String,
    /// The subprotocols it speaks.
    pub subprotocols: Vec<String>,
    /// The database's clock.
    pub time: Timestamp,
}

/// A new account with its first session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The user's id, chosen by the client: the certificate names it.
    pub user_id: UserId,
    /// The name, in any case.
    pub username: String,
    /// The identity key.
    pub identity_key: IdentityKey,
    /// The first session's certificate: place 1 of the user's chain.
    pub certificate: SignedCertificate,
    /// The password and what it protects; absent for an account without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strongbox: Option<StrongboxUpload>,
    /// The code of an invitation, where the server asks for one; else it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<String>,
}

/// The account is there. The same request again gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The user.
    pub user_id: UserId,
    /// The name in its normal form.
    pub username: Username,
}

/// A new device of a user asks to be linked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The user.
    pub user_id: UserId,
    /// The new session.
    pub session_id: SessionId,
    /// Its X25519 key.
    pub public_key: ExchangeKey,
    /// Its Ed25519 key.
    pub signing_public_key: SigningKey,
    /// HMAC-SHA-256 under the link code's secret over [`link_bytes`](super::frame::link_bytes).
    pub proof: Mac,
}

/// The session is pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    /// When it is forgotten unless approved, by the database's clock.
    pub expires_at: Timestamp,
}

/// A user by exact name, for a new device: id alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundUser {
    /// The user.
    pub user_id: UserId,
}

/// The body of every HTTP answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpError {
    /// Why.
    pub code: ErrorCode,
    /// For a developer's eyes.
    pub message: String,
    /// Whether the same may succeed later.
    pub retryable: bool,
    /// What a client needs to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<ErrorDetails>>,
}
