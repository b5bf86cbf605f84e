//! Sender keys as others see them: announcement, commitment, copies.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, Hash, Signature, SigningKey, WrappedKey};
use super::canonical::{Canonical, label};
use super::ids::{ChatId, Counter, Epoch, InfoKeyId, KeyId, SessionId};
use super::verify::Verifier;

/// The session's key in the same chat before this one, and how far it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousKey {
    /// The key.
    pub key_id: KeyId,
    /// Its last counter; 0 if no message used it.
    pub last_counter: Counter,
}

/// What a session says of a sender key of its own before it uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The key.
    pub key_id: KeyId,
    /// The session that encrypts with it.
    pub session_id: SessionId,
    /// The chat's epoch as its maker knew it: never one stamped at upload, or a key from before a removal
    /// could be brought in after it.
    pub epoch: Epoch,
    /// [`commitment`] of the secret: whoever hands over a copy, it is checked against this.
    pub commitment: Hash,
    /// The session's key before.
    pub previous: Option<PreviousKey>,
}

impl Announcement {
    /// The signed bytes: key, chat, session, epoch, commitment, previous key (empty if none), its last counter
    /// (0 if none).
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        let (previous, last_counter): (&[u8], u64) = match &self.previous {
            Some(previous) => (previous.key_id.as_bytes(), previous.last_counter.get()),
            None => (&[], 0),
        };
        Canonical::new(label::ANNOUNCEMENT)
            .id(self.key_id.0)
            .id(chat_id.0)
            .id(self.session_id.0)
            .u64(self.epoch.get())
            .bytes(self.commitment.as_ref())
            .bytes(previous)
            .u64(last_counter)
            .finish()
    }
}

/// An announcement with its session's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAnnouncement {
    /// What is signed.
    pub announcement: Announcement,
    /// The session's signature over [`Announcement::signed_bytes`].
    pub signature: Signature,
}

impl SignedAnnouncement {
    /// Whether the session's key made the signature.
    #[must_use]
    pub fn verifies(&self, chat_id: ChatId, key: &SigningKey) -> bool {
        key.verifies(&self.announcement.signed_bytes(chat_id), &self.signature)
    }
}

/// SHA-256 over label and a sender key's 32 secret bytes. Hides the secret: it is uniform and of full length.
#[must_use]
pub fn commitment(secret: &[u8; 32]) -> Hash {
    Canonical::new(label::COMMITMENT).bytes(secret).hash()
}

/// A sender key wrapped to one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCopy {
    /// The recipient.
    pub session_id: SessionId,
    /// HPKE base mode, associated data [`sender_key_aad`].
    pub key: WrappedKey,
}

/// Associated data of a copy: chat, key, sender session, recipient session.
#[must_use]
pub fn sender_key_aad(chat_id: ChatId, key_id: KeyId, sender: SessionId, recipient: SessionId) -> Vec<u8> {
    Canonical::new(label::AAD_SENDER_KEY).id(chat_id.0).id(key_id.0).id(sender.0).id(recipient.0).finish()
}

/// Why a session refuses its copy of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// It does not open with the session's key.
    DoesNotOpen,
    /// What is in it is not what the announcement commits to.
    Commitment,
    /// The announcement is not the sender session's.
    Announcement,
}

impl RefusalReason {
    /// The word that is signed and stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DoesNotOpen => "does_not_open",
            Self::Commitment => "commitment",
            Self::Announcement => "announcement",
        }
    }
}

/// What a recipient says of a bad copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRefusal {
    /// The key.
    pub key_id: KeyId,
    /// The session for which the copy was, and which signs.
    pub session_id: SessionId,
    /// What is wrong with it.
    pub reason: RefusalReason,
    /// SHA-256 of the copy: a newer one is another matter.
    pub copy_hash: Hash,
}

impl CopyRefusal {
    /// The signed bytes: chat, key, session, reason, hash of the copy.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::COPY_REFUSAL)
            .id(chat_id.0)
            .id(self.key_id.0)
            .id(self.session_id.0)
            .text(self.reason.as_str())
            .bytes(self.copy_hash.as_ref())
            .finish()
    }
}

/// A refusal with its session's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRefusal {
    /// What is signed.
    pub refusal: CopyRefusal,
    /// The session's signature over [`CopyRefusal::signed_bytes`].
    pub signature: Signature,
}

/// The hash that a `send` names for copies that went ahead in parts: count, then each copy's session and wrapped
/// key, in order of the session.
#[must_use]
pub fn staged_hash<'a>(copies: impl ExactSizeIterator<Item = &'a KeyCopy>) -> Hash {
    let count = copies.len() as u64;
    let mut sorted: Vec<&KeyCopy> = copies.collect();
    sorted.sort_by_key(|copy| copy.session_id);
    let mut bytes = Canonical::new(label::STAGED_COPIES).u64(count);
    for copy in sorted {
        bytes = bytes.id(copy.session_id.0).bytes(copy.key.as_ref());
    }
    bytes.hash()
}

/// A chat's info key wrapped to one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoKeyWrap {
    /// The recipient.
    pub session_id: SessionId,
    /// The info key.
    pub key_id: InfoKeyId,
    /// HPKE base mode, associated data [`info_key_aad`].
    pub key: WrappedKey,
    /// Who wrapped it.
    pub wrapped_by_session_id: SessionId,
    /// The wrapping session's signature over [`InfoKeyWrap::signed_bytes`].
    pub signature: Signature,
}

impl InfoKeyWrap {
    /// The signed bytes: chat, info key, recipient, wrapping session, wrapped key.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::INFO_KEY_WRAP)
            .id(chat_id.0)
            .id(self.key_id.0)
            .id(self.session_id.0)
            .id(self.wrapped_by_session_id.0)
            .bytes(self.key.as_ref())
            .finish()
    }
}

/// Associated data of a wrapped info key: chat, info key, wrapping session, recipient session.
#[must_use]
pub fn info_key_aad(chat_id: ChatId, key_id: InfoKeyId, wrapped_by: SessionId, recipient: SessionId) -> Vec<u8> {
    Canonical::new(label::AAD_INFO_KEY).id(chat_id.0).id(key_id.0).id(wrapped_by.0).id(recipient.0).finish()
}

/// Associated data of a chat's encrypted name: chat, info key.
#[must_use]
pub fn chat_name_aad(chat_id: ChatId, key_id: InfoKeyId) -> Vec<u8> {
    Canonical::new(label::AAD_CHAT_NAME).id(chat_id.0).id(key_id.0).finish()
}

/// A chat's name as stored: ciphertext under an info key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedName {
    /// The info key.
    pub key_id: InfoKeyId,
    /// Nonce (12 bytes), AES-256-GCM ciphertext and tag (16 bytes); associated data [`chat_name_aad`].
    pub data: Blob,
}
