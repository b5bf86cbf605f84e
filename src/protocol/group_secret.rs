//! Group secrets: named values of a chat, sealed under a key that follows from its group key.
//!
//! Each write is a revision, signed by the session that makes it, over the hash of the revision before. A revision
//! either *sets* what the secret says, or *reseals* it: says the same under a newer generation of the group key. What a
//! resealed revision was made of is kept until a second member has opened both. Source: docs/protocol.md, "Group secrets".
//! Invariants: G1 of two revisions for one place one is refused, and a reader who was shown a revision is never shown an
//! older one. G2 a resealed revision names what it was made of by its hash, so nothing else can be shown in its place.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, Hash, Signature, SigningKey};
use super::canonical::{Canonical, label, sha256};
use super::ids::{ChatId, GenerationNo, Revision, SecretId, Seq, SessionId};
use super::verify::Verifier;

/// What a revision of a secret does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretWrite {
    /// It says something new.
    Set,
    /// It says the same as before, under a newer generation.
    Reseal,
}

impl SecretWrite {
    /// The word that is signed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Reseal => "reseal",
        }
    }
}

/// Which part of a secret a ciphertext is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretPart {
    /// The name.
    Name,
    /// The value.
    Value,
}

impl SecretPart {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Value => "value",
        }
    }
}

/// One revision of a secret, without the ciphertext of its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRevision {
    /// Made by who creates it.
    pub secret_id: SecretId,
    /// 1 for the first, then one more with each.
    pub revision: Revision,
    /// What it does.
    pub write: SecretWrite,
    /// The generation under whose key it is sealed.
    pub generation: GenerationNo,
    /// The newest entry that was folded by whoever set it last: a member who left after it may know what it says.
    pub changed_seq: Seq,
    /// Who made the revision.
    pub session_id: SessionId,
    /// [`SignedSecret::hash`] of the revision before; none of the first.
    pub previous: Option<Hash>,
    /// Of a resealed revision: the hash of what it was made of.
    pub source: Option<Hash>,
    /// Nonce (12 bytes), AES-256-GCM ciphertext and tag (16 bytes); associated data [`secret_aad`].
    pub name: Blob,
    /// SHA-256 of the value's ciphertext, which has the form of the name's.
    pub value_hash: Hash,
}

impl SecretRevision {
    /// The signed bytes: chat, secret, revision, word, generation, seq of the change, session, hash before (absent for
    /// the first), hash of the source (absent of what is set), SHA-256 of the name's ciphertext, that of the value's.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::GROUP_SECRET)
            .id(chat_id.0)
            .id(self.secret_id.0)
            .u64(self.revision.get())
            .text(self.write.as_str())
            .u64(self.generation.get())
            .u64(self.changed_seq.get())
            .id(self.session_id.0)
            .bytes(bytes_of(self.previous.as_ref()))
            .bytes(bytes_of(self.source.as_ref()))
            .bytes(sha256(self.name.as_ref()).as_ref())
            .bytes(self.value_hash.as_ref())
            .finish()
    }

    /// Whether the fields fit one another: the first has no revision before, and what is resealed has a source.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let is_first = self.revision.get() == 1;
        let is_resealed = self.write == SecretWrite::Reseal;
        self.revision.get() > 0
            && self.previous.is_none() == is_first
            && self.source.is_some() == is_resealed
            && !(is_first && is_resealed)
    }
}

/// A revision with its session's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedSecret {
    /// What is signed.
    pub secret: SecretRevision,
    /// The session's signature over [`SecretRevision::signed_bytes`].
    pub signature: Signature,
}

impl SignedSecret {
    /// Whether the session's key made the signature.
    #[must_use]
    pub fn verifies(&self, chat_id: ChatId, key: &SigningKey) -> bool {
        key.verifies(&self.secret.signed_bytes(chat_id), &self.signature)
    }

    /// The hash by which the next revision names this one.
    #[must_use]
    pub fn hash(&self, chat_id: ChatId) -> Hash {
        revision_hash(&self.secret.signed_bytes(chat_id), &self.signature)
    }
}

/// The end of a secret. Its id never returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretDeletion {
    /// Which.
    pub secret_id: SecretId,
    /// The one after the newest.
    pub revision: Revision,
    /// Who deletes it.
    pub session_id: SessionId,
    /// [`SignedSecret::hash`] of the revision before.
    pub previous: Hash,
}

impl SecretDeletion {
    /// The signed bytes: chat, secret, revision, session, hash before.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        Canonical::new(label::GROUP_SECRET_DELETION)
            .id(chat_id.0)
            .id(self.secret_id.0)
            .u64(self.revision.get())
            .id(self.session_id.0)
            .bytes(self.previous.as_ref())
            .finish()
    }
}

/// A deletion with its session's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedSecretDeletion {
    /// What is signed.
    pub deletion: SecretDeletion,
    /// The session's signature over [`SecretDeletion::signed_bytes`].
    pub signature: Signature,
}

impl SignedSecretDeletion {
    /// Whether the session's key made the signature.
    #[must_use]
    pub fn verifies(&self, chat_id: ChatId, key: &SigningKey) -> bool {
        key.verifies(&self.deletion.signed_bytes(chat_id), &self.signature)
    }

    /// The hash of this last revision.
    #[must_use]
    pub fn hash(&self, chat_id: ChatId) -> Hash {
        revision_hash(&self.deletion.signed_bytes(chat_id), &self.signature)
    }
}

/// What somebody did with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretAction {
    /// Made it.
    Create,
    /// Gave it another name or value.
    Change,
    /// Was given its ciphertext.
    Read,
    /// Ended it.
    Delete,
    /// Sealed it again under a newer generation.
    Reencrypt,
    /// Opened what was sealed again, and found it the same as before.
    Confirm,
}

impl SecretAction {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Read => "read",
            Self::Delete => "delete",
            Self::Reencrypt => "reencrypt",
            Self::Confirm => "confirm",
        }
    }

    /// The action of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Create, Self::Change, Self::Read, Self::Delete, Self::Reencrypt, Self::Confirm];
        all.into_iter().find(|action| action.as_str() == word)
    }
}

/// Associated data of a secret's name or value: the part's word, chat, secret, generation, revision.
#[must_use]
pub fn secret_aad(
    part: SecretPart,
    chat_id: ChatId,
    secret_id: SecretId,
    generation: GenerationNo,
    revision: Revision,
) -> Vec<u8> {
    Canonical::new(label::AAD_GROUP_SECRET)
        .text(part.as_str())
        .id(chat_id.0)
        .id(secret_id.0)
        .u64(generation.get())
        .u64(revision.get())
        .finish()
}

fn revision_hash(signed_bytes: &[u8], signature: &Signature) -> Hash {
    Canonical::new(label::GROUP_SECRET_REVISION).bytes(signed_bytes).bytes(signature.as_ref()).hash()
}

fn bytes_of(hash: Option<&Hash>) -> &[u8] {
    hash.map_or(&[], |hash| hash.as_ref())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer;

    use super::*;

    fn revision() -> SecretRevision {
        SecretRevision {
            secret_id: SecretId::generate(),
            revision: Revision::saturating(2),
            write: SecretWrite::Reseal,
            generation: GenerationNo::saturating(3),
            changed_seq: Seq::saturating(9),
            session_id: SessionId::generate(),
            previous: Some(Hash([1; 32])),
            source: Some(Hash([2; 32])),
            name: Blob::from(vec![3; 40]),
            value_hash: Hash([4; 32]),
        }
    }

    #[test]
    fn p7_a_revision_is_its_sessions_in_its_chat_as_it_is_alone() {
        let chat_id = ChatId::generate();
        let [maker, other] = [1, 2].map(|seed| ed25519_dalek::SigningKey::from_bytes(&[seed; 32]));
        let secret = revision();
        let signature = Signature(maker.sign(&secret.signed_bytes(chat_id)).to_bytes());
        let signed = SignedSecret { secret, signature };
        let [maker, other] = [maker, other].map(|key| SigningKey(key.verifying_key().to_bytes()));
        assert!(signed.verifies(chat_id, &maker));
        assert!(!signed.verifies(chat_id, &other));
        assert!(!signed.verifies(ChatId::generate(), &maker));
        let changes: [fn(&mut SecretRevision); 10] = [
            |secret| secret.secret_id = SecretId::generate(),
            |secret| secret.revision = secret.revision.next(),
            |secret| secret.write = SecretWrite::Set,
            |secret| secret.generation = secret.generation.next(),
            |secret| secret.changed_seq = secret.changed_seq.next(),
            |secret| secret.session_id = SessionId::generate(),
            |secret| secret.previous = None,
            |secret| std::mem::swap(&mut secret.previous, &mut secret.source),
            |secret| secret.name = Blob::from(vec![3; 41]),
            |secret| secret.value_hash = Hash([5; 32]),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut changed = signed.clone();
            change(&mut changed.secret);
            assert!(!changed.verifies(chat_id, &maker), "{index}");
            assert_ne!(changed.hash(chat_id), signed.hash(chat_id), "{index}");
        }
    }

    #[test]
    fn a_revision_is_whole_if_its_fields_fit() {
        let resealed = revision();
        assert!(resealed.is_whole());
        let set = SecretRevision { write: SecretWrite::Set, source: None, ..resealed.clone() };
        assert!(set.is_whole());
        let first = SecretRevision { revision: Revision::saturating(1), previous: None, ..set.clone() };
        assert!(first.is_whole());
        for broken in [
            SecretRevision { source: None, ..resealed.clone() },
            SecretRevision { source: resealed.source, ..set.clone() },
            SecretRevision { previous: None, ..set },
            SecretRevision { previous: resealed.previous, ..first.clone() },
            SecretRevision { revision: Revision::default(), ..first.clone() },
            SecretRevision { write: SecretWrite::Reseal, source: resealed.source, ..first },
        ] {
            assert!(!broken.is_whole(), "{broken:?}");
        }
    }

    #[test]
    fn every_action_has_a_word_of_its_own() {
        for word in ["create", "change", "read", "delete", "reencrypt", "confirm"] {
            assert_eq!(SecretAction::from_word(word).map(SecretAction::as_str), Some(word));
        }
        assert_eq!(SecretAction::from_word("steal"), None);
    }
}
