//! What lets a user with a user key read on a new device with nobody else online: user keys as a chat's log shows
//! them, generations of the chat's group key, and archives of sender keys.
//!
//! Generation g of a chat's group key is 32 random bytes. An HPKE key pair is derived from it, the *recovery key*, and
//! every sender key is archived to its public half. The group key is wrapped to the user keys of the members of that
//! time, so making one and archiving to it take public halves alone. Source: docs/protocol.md section 13.

use serde::{Deserialize, Serialize};

use super::binary::{ExchangeKey, Hash, Signature, SigningKey, WrappedKey};
use super::canonical::{Canonical, label};
use super::certificate::Revoker;
use super::ids::{ChangeNo, ChatId, GenerationNo, KeyId, SessionId, Timestamp, UserId, UserKeyId};
use super::strongbox::PublicUserKey;
use super::verify::Verifier;

/// What a chat's log says of a member's user key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum UserKeyEntry {
    /// It is this one from now on.
    Set(PublicUserKey),
    /// There is none: a session that had been given the sealed halves was revoked.
    Withdrawn(SignedWithdrawal),
}

impl UserKeyEntry {
    /// Whose key it is.
    #[must_use]
    pub const fn user_id(&self) -> UserId {
        match self {
            Self::Set(key) => key.user_id,
            Self::Withdrawn(signed) => signed.withdrawal.user_id,
        }
    }
}

/// The end of a user key for want of trust in a session: what is made from now on is not wrapped to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// Whose key it is.
    pub user_id: UserId,
    /// The key.
    pub key_id: UserKeyId,
    /// Who signs.
    pub revoker: Revoker,
    /// When it was made, by its maker's clock.
    pub created_at: Timestamp,
}

impl Withdrawal {
    /// The signed bytes: user, key, signing session (empty for the identity key), `created_at`.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let revoker: &[u8] = match &self.revoker {
            Revoker::Identity => &[],
            Revoker::Session(session_id) => session_id.as_bytes(),
        };
        Canonical::new(label::WITHDRAWAL)
            .id(self.user_id.0)
            .id(self.key_id.0)
            .bytes(revoker)
            .u64(self.created_at.get())
            .finish()
    }
}

/// A withdrawal with its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedWithdrawal {
    /// What is signed.
    pub withdrawal: Withdrawal,
    /// By the identity key or a live session of the user, over [`Withdrawal::signed_bytes`].
    pub signature: Signature,
}

/// What a session says of a group key that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The one after the newest before it; the first is 1.
    pub number: GenerationNo,
    /// The session that made it.
    pub session_id: SessionId,
    /// The chat's newest membership change.
    pub change_no: ChangeNo,
    /// [`member_keys_hash`] of the members' user keys at that place of the log.
    pub member_keys_hash: Hash,
    /// The recovery key: the public half that is derived from the group key.
    pub public_key: ExchangeKey,
    /// [`wraps_hash`] of the group key's wraps.
    pub wraps_hash: Hash,
}

impl Generation {
    /// The signed bytes: chat, number, session, number of the membership change, hash of the user keys, recovery key,
    /// hash of the wraps.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::GENERATION)
            .id(chat_id.0)
            .u64(self.number.get())
            .id(self.session_id.0)
            .u64(self.change_no.get())
            .bytes(self.member_keys_hash.as_ref())
            .bytes(self.public_key.as_ref())
            .bytes(self.wraps_hash.as_ref())
            .finish()
    }
}

/// A generation with its session's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedGeneration {
    /// What is signed.
    pub generation: Generation,
    /// The session's signature over [`Generation::signed_bytes`].
    pub signature: Signature,
}

impl SignedGeneration {
    /// Whether the session's key made the signature.
    #[must_use]
    pub fn verifies(&self, chat_id: ChatId, key: &SigningKey) -> bool {
        key.verifies(&self.generation.signed_bytes(chat_id), &self.signature)
    }
}

/// What a session says of a generation that its user cannot open, or whose recovery key is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRefusal {
    /// The generation.
    pub number: GenerationNo,
    /// The session that refuses it.
    pub session_id: SessionId,
}

impl GenerationRefusal {
    /// The signed bytes: chat, number, session.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::GENERATION_REFUSAL).id(chat_id.0).u64(self.number.get()).id(self.session_id.0).finish()
    }
}

/// A refusal with its session's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedGenerationRefusal {
    /// What is signed.
    pub refusal: GenerationRefusal,
    /// The session's signature over [`GenerationRefusal::signed_bytes`].
    pub signature: Signature,
}

/// A group key wrapped to one member's user key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupKeyWrap {
    /// The member.
    pub user_id: UserId,
    /// The member's user key.
    pub key_id: UserKeyId,
    /// HPKE base mode, associated data [`group_key_aad`].
    pub key: WrappedKey,
}

/// A sender key sealed to a recovery key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// The generation whose recovery key it is sealed to.
    pub generation: GenerationNo,
    /// HPKE base mode, associated data [`archive_aad`].
    pub key: WrappedKey,
}

/// The recovery key of the current generation: a recipient beside the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryKey {
    /// The generation.
    pub generation: GenerationNo,
    /// The public half.
    pub public_key: ExchangeKey,
}

/// The hash of members' user keys: count, then user, key and public half of each, in order of the user.
///
/// They come sorted by user, as every map of this crate holds them.
#[must_use]
pub fn member_keys_hash<'a>(keys: impl ExactSizeIterator<Item = &'a PublicUserKey>) -> Hash {
    let mut bytes = Canonical::new(label::MEMBER_KEYS).u64(keys.len() as u64);
    for key in keys {
        bytes = bytes.id(key.user_id.0).id(key.key_id.0).bytes(key.public_key.as_ref());
    }
    bytes.hash()
}

/// The hash of a group key's wraps: count, then user, user key and wrapped key of each, in order of the user.
#[must_use]
pub fn wraps_hash(wraps: &[GroupKeyWrap]) -> Hash {
    let mut sorted: Vec<&GroupKeyWrap> = wraps.iter().collect();
    sorted.sort_by_key(|wrap| wrap.user_id);
    let mut bytes = Canonical::new(label::GROUP_KEY_WRAPS).u64(sorted.len() as u64);
    for wrap in sorted {
        bytes = bytes.id(wrap.user_id.0).id(wrap.key_id.0).bytes(wrap.key.as_ref());
    }
    bytes.hash()
}

/// Associated data of a wrapped group key: chat, generation, user, user key.
#[must_use]
pub fn group_key_aad(chat_id: ChatId, number: GenerationNo, user_id: UserId, key_id: UserKeyId) -> Vec<u8> {
    Canonical::new(label::AAD_GROUP_KEY).id(chat_id.0).u64(number.get()).id(user_id.0).id(key_id.0).finish()
}

/// Associated data of an archived sender key: chat, key, sender session, generation.
#[must_use]
pub fn archive_aad(chat_id: ChatId, key_id: KeyId, sender: SessionId, number: GenerationNo) -> Vec<u8> {
    Canonical::new(label::AAD_ARCHIVE).id(chat_id.0).id(key_id.0).id(sender.0).u64(number.get()).finish()
}
