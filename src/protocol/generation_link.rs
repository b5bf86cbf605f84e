//! Links from a generation of a group key to the one before it: for newcomers under a shared history.
//!
//! A newcomer has wraps of group keys from their joining on. What was archived before, and may be read under a shared
//! history, they open link by link. Invariant: I1 a link joins two generations of one stretch of shared history, so it
//! opens nothing that was archived before that began. Source: docs/protocol.md section 13.

use serde::{Deserialize, Serialize};

use super::binary::{Signature, SigningKey, WrappedKey};
use super::canonical::{Canonical, label};
use super::ids::{ChatId, GenerationNo, SessionId};
use super::verify::Verifier;

/// A group key sealed to the recovery key of the generation after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationLink {
    /// The generation whose group key opens it. Inside is the group key of the one before.
    pub generation: GenerationNo,
    /// HPKE base mode, associated data [`generation_link_aad`].
    pub key: WrappedKey,
    /// Who sealed it.
    pub linked_by_session_id: SessionId,
    /// The sealing session's signature over [`GenerationLink::signed_bytes`].
    pub signature: Signature,
}

impl GenerationLink {
    /// The generation whose group key is inside; 0 for a first generation, which has none before it.
    #[must_use]
    pub const fn before(&self) -> GenerationNo {
        GenerationNo::saturating(self.generation.get().saturating_sub(1))
    }

    /// The signed bytes: chat, generation, sealing session, sealed key.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::GENERATION_LINK)
            .id(chat_id.0)
            .u64(self.generation.get())
            .id(self.linked_by_session_id.0)
            .bytes(self.key.as_ref())
            .finish()
    }

    /// Whether the session's key made the signature.
    #[must_use]
    pub fn verifies(&self, chat_id: ChatId, key: &SigningKey) -> bool {
        key.verifies(&self.signed_bytes(chat_id), &self.signature)
    }
}

/// Associated data of a link: chat, the generation that opens it, sealing session.
#[must_use]
pub fn generation_link_aad(chat_id: ChatId, generation: GenerationNo, linked_by: SessionId) -> Vec<u8> {
    Canonical::new(label::AAD_GENERATION_LINK).id(chat_id.0).u64(generation.get()).id(linked_by.0).finish()
}
