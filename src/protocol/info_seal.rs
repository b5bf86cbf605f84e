//! A chat's info key sealed to the recovery key of a generation: for a device that has nothing but a password.
//!
//! Invariant: I1 whoever seals signs, so a key that is not the one has a name; what it opens to is compared with what was
//! saved, so a wrong one shows nothing.

use serde::{Deserialize, Serialize};

use super::binary::{Signature, SigningKey, WrappedKey};
use super::canonical::{Canonical, label};
use super::ids::{ChatId, GenerationNo, InfoKeyId, SessionId};
use super::verify::Verifier;

/// A chat's info key sealed to a recovery key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoKeySeal {
    /// The info key.
    pub key_id: InfoKeyId,
    /// The generation whose recovery key it is sealed to.
    pub generation: GenerationNo,
    /// HPKE base mode, associated data [`info_key_seal_aad`].
    pub key: WrappedKey,
    /// Who sealed it.
    pub sealed_by_session_id: SessionId,
    /// The sealing session's signature over [`InfoKeySeal::signed_bytes`].
    pub signature: Signature,
}

impl InfoKeySeal {
    /// The signed bytes: chat, info key, generation, sealing session, sealed key.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::INFO_KEY_SEAL)
            .id(chat_id.0)
            .id(self.key_id.0)
            .u64(self.generation.get())
            .id(self.sealed_by_session_id.0)
            .bytes(self.key.as_ref())
            .finish()
    }

    /// Whether the session's key made the signature.
    #[must_use]
    pub fn verifies(&self, chat_id: ChatId, key: &SigningKey) -> bool {
        key.verifies(&self.signed_bytes(chat_id), &self.signature)
    }
}

/// Associated data of an info key that is sealed to a recovery key: chat, info key, generation, sealing session.
#[must_use]
pub fn info_key_seal_aad(
    chat_id: ChatId,
    key_id: InfoKeyId,
    generation: GenerationNo,
    sealed_by: SessionId,
) -> Vec<u8> {
    Canonical::new(label::AAD_INFO_KEY_SEAL).id(chat_id.0).id(key_id.0).u64(generation.get()).id(sealed_by.0).finish()
}
