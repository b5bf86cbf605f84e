//! Frames of a connection: greeting, login, where a session stands, farewell.

use serde::{Deserialize, Serialize};

use crate::protocol::binary::{Nonce, Signature};
use crate::protocol::canonical::{Canonical, label};
use crate::protocol::ids::{ChatId, Seq, SessionId, Timestamp, UserId};

/// What a server says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// For one login, on this connection.
    pub nonce: Nonce,
    /// What clients pin and sign.
    pub server_name: String,
    /// The server's version.
    pub server_version: String,
    /// The database's clock.
    pub time: Timestamp,
    /// Seconds within which the login must come.
    pub login_timeout_s: u64,
    /// Seconds between the server's pings; silence of twice that ends the connection.
    pub ping_interval_s: u64,
    /// Messages that one sender key may carry, in a chat of so many recipients as `key_recipients_large` and fewer.
    pub key_messages_max: u64,
    /// The same in larger chats.
    pub key_messages_max_large: u64,
    /// Where larger chats begin.
    pub key_recipients_large: u64,
    /// Seconds that one sender key may serve.
    pub key_age_max_s: u64,
}

/// The login of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticate {
    /// The session.
    pub session_id: SessionId,
    /// Its signature over [`login_bytes`].
    pub signature: Signature,
}

/// What a session signs to log in: the server's nonce, the server's name, the session.
#[must_use]
pub fn login_bytes(nonce: &Nonce, server_name: &str, session_id: SessionId) -> Vec<u8> {
    Canonical::new(label::LOGIN).bytes(nonce.as_ref()).text(server_name).id(session_id.0).finish()
}

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated {
    /// The user.
    pub user_id: UserId,
    /// `pending` or `live`.
    pub state: SessionState,
}

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Waits for approval.
    Pending,
    /// May do everything.
    Live,
    /// Its time ran out.
    Expired,
    /// Its user ended it.
    Revoked,
}

/// Where a session stands in its chats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// At most [`CURSORS_MAX`](crate::protocol::limits::CURSORS_MAX). A chat that is not named starts at its user's join.
    pub cursors: Vec<Cursor>,
}

/// A place in a chat's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The chat.
    pub chat_id: ChatId,
    /// The seq up to which the session lacks nothing.
    pub seq: Seq,
}

/// How far a session has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvanceCursor {
    /// The chat.
    pub chat_id: ChatId,
    /// Never goes back: a lower one is answered `ok` and changes nothing.
    pub seq: Seq,
}

/// The server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Milliseconds to wait before coming back; spread over all sessions.
    pub retry_after_ms: u64,
}
