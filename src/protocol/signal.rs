//! Ephemeral signals: typing and presence, encrypted and signed, never stored.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, Signature};
use super::canonical::{Canonical, label, sha256};
use super::ids::{ChatId, KeyId, SessionId, SignalId, Timestamp, UserId};

/// One signal of a session to a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalEnvelope {
    /// The user who sends.
    pub sender_id: UserId,
    /// The session that encrypts and signs.
    pub sender_session_id: SessionId,
    /// The sender key: the session's live one in this chat.
    pub key_id: KeyId,
    /// Random; receivers drop one that they have seen.
    pub signal_id: SignalId,
    /// When it was made, by its maker's clock; receivers drop what is older than
    /// [`SIGNAL_AGE_MAX_S`](super::limits::SIGNAL_AGE_MAX_S).
    pub created_at: Timestamp,
    /// Nonce (12 bytes), AES-256-GCM ciphertext and tag (16 bytes); associated data [`signal_aad`].
    pub data: Blob,
    /// The session's signature over [`SignalEnvelope::signed_bytes`].
    pub signature: Signature,
}

impl SignalEnvelope {
    /// The signed bytes: chat, user, session, key, signal, `created_at`, SHA-256 of the data.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::SIGNAL)
            .id(chat_id.0)
            .id(self.sender_id.0)
            .id(self.sender_session_id.0)
            .id(self.key_id.0)
            .id(self.signal_id.0)
            .u64(self.created_at.get())
            .bytes(sha256(self.data.as_ref()).as_ref())
            .finish()
    }
}

/// Associated data of a signal's ciphertext: chat, signal, sender session, key.
#[must_use]
pub fn signal_aad(chat_id: ChatId, signal_id: SignalId, sender: SessionId, key_id: KeyId) -> Vec<u8> {
    Canonical::new(label::AAD_SIGNAL).id(chat_id.0).id(signal_id.0).id(sender.0).id(key_id.0).finish()
}

/// What a signal's key is derived for: the signal (the `info` of HKDF, RFC 5869).
#[must_use]
pub fn signal_key_info(signal_id: SignalId) -> Vec<u8> {
    Canonical::new(label::KDF_SIGNAL).id(signal_id.0).finish()
}
