//! The envelope of a message: clear header, ciphertext, signature. It is what is stored and sent.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, Hash, Signature};
use super::canonical::{Canonical, label, sha256};
use super::ids::{AttachmentId, ChatId, Counter, KeyId, MessageId, Revision, Seq, SessionId, UserId};

/// What a sender does to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// A first revision, number 0.
    Message,
    /// A later revision by the same user.
    Edit,
    /// The last revision: no key, no counter, no data.
    Delete,
}

impl MessageKind {
    /// The word that is signed and stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Edit => "edit",
            Self::Delete => "delete",
        }
    }
}

/// The newest entry that a signer had seen: two members who were shown different logs find out by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its place; 0 before the first entry.
    pub seq: Seq,
    /// The hash of the log up to it.
    pub log_hash: Hash,
}

/// One revision of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// What it does.
    pub kind: MessageKind,
    /// The message.
    pub message_id: MessageId,
    /// The revision, 0 for the message itself.
    pub revision: Revision,
    /// The user who sends.
    pub sender_id: UserId,
    /// The session that encrypts and signs.
    pub sender_session_id: SessionId,
    /// The sender key; absent in a deletion.
    pub key_id: Option<KeyId>,
    /// The place among the sender key's messages; 0 in a deletion.
    pub counter: Counter,
    /// The hash of the recipients for whom it was encrypted.
    pub roster_hash: Hash,
    /// What the sender had seen.
    pub seen: Seen,
    /// Attachments that belong to it.
    pub attachments: Vec<AttachmentId>,
    /// Nonce (12 bytes), AES-256-GCM ciphertext and tag (16 bytes); absent in a deletion and once purged.
    pub data: Option<Blob>,
    /// SHA-256 of the data that was here, once it is purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purged: Option<Hash>,
    /// The session's signature over [`Envelope::signed_bytes`].
    pub signature: Signature,
}

impl Envelope {
    /// SHA-256 of the data: of the bytes that are here, else the kept hash, else of nothing.
    #[must_use]
    pub fn data_hash(&self) -> Hash {
        match (&self.data, self.purged) {
            (Some(data), _) => sha256(data.as_ref()),
            (None, Some(hash)) => hash,
            (None, None) => sha256(&[]),
        }
    }

    /// The signed bytes: kind, chat, message, revision, user, session, key (empty if none), counter, roster
    /// hash, seen seq, seen log hash, count of attachments and each, SHA-256 of the data.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        let key: &[u8] = self.key_id.as_ref().map_or(&[], |key_id| key_id.as_bytes());
        let mut bytes = Canonical::new(label::MESSAGE)
            .text(self.kind.as_str())
            .id(chat_id.0)
            .id(self.message_id.0)
            .u64(self.revision.get())
            .id(self.sender_id.0)
            .id(self.sender_session_id.0)
            .bytes(key)
            .u64(self.counter.get())
            .bytes(self.roster_hash.as_ref())
            .u64(self.seen.seq.get())
            .bytes(self.seen.log_hash.as_ref())
            .u64(self.attachments.len() as u64);
        for attachment in &self.attachments {
            bytes = bytes.id(attachment.0);
        }
        bytes.bytes(self.data_hash().as_ref()).finish()
    }
}

/// Associated data of a message's ciphertext: chat, message, revision, counter, sender session, key.
#[must_use]
pub fn message_aad(
    chat_id: ChatId,
    message_id: MessageId,
    revision: Revision,
    counter: Counter,
    sender: SessionId,
    key_id: KeyId,
) -> Vec<u8> {
    Canonical::new(label::AAD_MESSAGE)
        .id(chat_id.0)
        .id(message_id.0)
        .u64(revision.get())
        .u64(counter.get())
        .id(sender.0)
        .id(key_id.0)
        .finish()
}

/// What the message key is derived for: message, revision, counter (the `info` of HKDF, RFC 5869).
#[must_use]
pub fn message_key_info(message_id: MessageId, revision: Revision, counter: Counter) -> Vec<u8> {
    Canonical::new(label::KDF_MESSAGE).id(message_id.0).u64(revision.get()).u64(counter.get()).finish()
}
