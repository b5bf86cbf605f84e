//! Frames about sender keys: fetched, asked for, handed on, refused.

use serde::{Deserialize, Serialize};

use crate::protocol::binary::WrappedKey;
use crate::protocol::ids::{ChatId, KeyId, SessionId};
use crate::protocol::keys::{SignedAnnouncement, SignedRefusal};

/// A request for keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The chat.
    pub chat_id: ChatId,
    /// At most [`KEYS_PER_REQUEST_MAX`](crate::protocol::limits::KEYS_PER_REQUEST_MAX).
    pub key_ids: Vec<KeyId>,
}

/// A sender key with one recipient's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The chat.
    pub chat_id: ChatId,
    /// The key.
    pub key: OwnKey,
}

/// A sender key as one recipient gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnKey {
    /// What the sender's session says of it.
    pub announcement: SignedAnnouncement,
    /// The copy for this session; absent if there is none.
    pub key: Option<WrappedKey>,
    /// Where there is none: copies for older sessions of the same user, of which this session holds a backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backed_up: Vec<BackedUpCopy>,
}

/// A copy that was made for an older session of the same user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpCopy {
    /// For whom it was made: its associated data names this session.
    pub session_id: SessionId,
    /// HPKE base mode, associated data [`sender_key_aad`](crate::protocol::keys::sender_key_aad).
    pub key: WrappedKey,
}

/// Keys by request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// Those that exist in the chat.
    pub keys: Vec<OwnKey>,
}

/// A request for copies that this session lacks: who may hand them on is told, now or when they come online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKeys {
    /// The chat.
    pub chat_id: ChatId,
    /// At most [`KEYS_PER_REQUEST_MAX`](crate::protocol::limits::KEYS_PER_REQUEST_MAX).
    pub key_ids: Vec<KeyId>,
}

/// Somebody lacks copies that this session may hand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRequested {
    /// The chat.
    pub chat_id: ChatId,
    /// Who lacks them.
    pub session_id: SessionId,
    /// Of which keys.
    pub key_ids: Vec<KeyId>,
}

/// Further copies of keys that the server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadCopies {
    /// The chat.
    pub chat_id: ChatId,
    /// At most [`COPIES_PER_FRAME_MAX`](crate::protocol::limits::COPIES_PER_FRAME_MAX).
    pub copies: Vec<FurtherCopy>,
}

/// A copy of some key for some recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherCopy {
    /// The key.
    pub key_id: KeyId,
    /// The recipient.
    pub session_id: SessionId,
    /// HPKE base mode, associated data [`sender_key_aad`](crate::protocol::keys::sender_key_aad).
    pub key: WrappedKey,
}

/// A copy that does not open, or not to what its announcement says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefuseCopy {
    /// The chat.
    pub chat_id: ChatId,
    /// Signed by the session for which the copy was.
    pub refusal: SignedRefusal,
}

/// A copy was refused: told to the session that refused it, to the key's, and to who uploaded it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRefused {
    /// The chat.
    pub chat_id: ChatId,
    /// The session whose key it is.
    pub sender_session_id: SessionId,
    /// Who had uploaded the copy.
    pub uploaded_by_session_id: SessionId,
    /// What the recipient says.
    pub refusal: SignedRefusal,
}
