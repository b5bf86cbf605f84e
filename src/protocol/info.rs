//! What a chat is called: sealed name and description, with the signature of the session that saved them.
//!
//! Invariant: I1 whoever saves names the revision, so of two saves for one place one is refused, and a reader who was
//! shown a revision is never shown an older one.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, Signature, SigningKey};
use super::canonical::{Canonical, label};
use super::ids::{ChatId, InfoKeyId, Revision, Seq, SessionId};
use super::verify::Verifier;

/// A chat's name and description as stored: ciphertext under an info key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedInfo {
    /// 1 for the first save after the chat was made, then one more with each.
    pub revision: Revision,
    /// The info key.
    pub key_id: InfoKeyId,
    /// The newest entry that the key's maker had folded: the key is stale once a recipient is lost after it. The same
    /// in every revision under one key.
    pub key_seq: Seq,
    /// Who saved it.
    pub session_id: SessionId,
    /// Nonce (12 bytes), AES-256-GCM ciphertext and tag (16 bytes); associated data
    /// [`chat_name_aad`](super::keys::chat_name_aad). None for a chat without a name.
    pub name: Option<Blob>,
    /// The same of the description; associated data [`chat_description_aad`].
    pub description: Option<Blob>,
}

impl SealedInfo {
    /// The signed bytes: chat, revision, info key, its seq, session, name (empty if none), description (empty if none).
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        let bytes = |blob: &Option<Blob>| blob.as_ref().map_or_else(Vec::new, |blob| blob.as_ref().to_vec());
        Canonical::new(label::CHAT_INFO)
            .id(chat_id.0)
            .u64(self.revision.get())
            .id(self.key_id.0)
            .u64(self.key_seq.get())
            .id(self.session_id.0)
            .bytes(&bytes(&self.name))
            .bytes(&bytes(&self.description))
            .finish()
    }
}

/// Name and description with the signature of the session that saved them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedInfo {
    /// What is signed.
    pub info: SealedInfo,
    /// The session's signature over [`SealedInfo::signed_bytes`].
    pub signature: Signature,
}

impl SignedInfo {
    /// Whether the session's key made the signature.
    #[must_use]
    pub fn verifies(&self, chat_id: ChatId, key: &SigningKey) -> bool {
        key.verifies(&self.info.signed_bytes(chat_id), &self.signature)
    }
}

/// Associated data of a chat's encrypted description: chat, info key.
#[must_use]
pub fn chat_description_aad(chat_id: ChatId, key_id: InfoKeyId) -> Vec<u8> {
    Canonical::new(label::AAD_CHAT_DESCRIPTION).id(chat_id.0).id(key_id.0).finish()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer;

    use super::*;

    #[test]
    fn p7_a_saved_name_is_its_sessions_in_its_chat_at_its_revision_alone() {
        let chat_id = ChatId::generate();
        let [maker, other] = [1, 2].map(|seed| ed25519_dalek::SigningKey::from_bytes(&[seed; 32]));
        let info = SealedInfo {
            revision: Revision::saturating(3),
            key_id: InfoKeyId::generate(),
            key_seq: Seq::saturating(5),
            session_id: SessionId::generate(),
            name: Some(Blob::from(vec![1; 40])),
            description: None,
        };
        let signature = Signature(maker.sign(&info.signed_bytes(chat_id)).to_bytes());
        let signed = SignedInfo { info, signature };
        let [maker, other] = [maker, other].map(|key| SigningKey(key.verifying_key().to_bytes()));
        assert!(signed.verifies(chat_id, &maker));
        assert!(!signed.verifies(chat_id, &other));
        assert!(!signed.verifies(ChatId::generate(), &maker));
        let changes: [fn(&mut SealedInfo); 6] = [
            |info| info.key_seq = Seq::saturating(6),
            |info| info.revision = Revision::saturating(4),
            |info| info.key_id = InfoKeyId::generate(),
            |info| info.session_id = SessionId::generate(),
            |info| info.name = None,
            |info| info.description = info.name.take(),
        ];
        for change in changes {
            let mut changed = signed.clone();
            change(&mut changed.info);
            assert!(!changed.verifies(chat_id, &maker));
        }
    }
}
