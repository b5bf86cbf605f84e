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

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer;

    use super::super::canonical::{VERSION, sha256};
    use super::*;

    /// The fields of canonical bytes after the label, which must be this one, and the version.
    fn fields<'a>(mut bytes: &'a [u8], label: &str) -> Vec<&'a [u8]> {
        let mut fields = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk() {
            let (field, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            fields.push(field);
            bytes = rest;
        }
        assert!(bytes.is_empty());
        assert_eq!(fields[..2], [label.as_bytes(), &VERSION.to_be_bytes()]);
        fields.split_off(2)
    }

    fn announcement(previous: Option<PreviousKey>) -> Announcement {
        Announcement {
            key_id: KeyId::generate(),
            session_id: SessionId::generate(),
            epoch: Epoch::saturating(4),
            commitment: Hash([5; 32]),
            previous,
        }
    }

    #[test]
    fn p5_an_announcement_signs_key_chat_session_epoch_commitment_and_the_key_before() {
        let chat_id = ChatId::generate();
        let before = PreviousKey { key_id: KeyId::generate(), last_counter: Counter::saturating(9) };
        for previous in [Some(before), None] {
            let announced = announcement(previous);
            let (key, counter): (&[u8], u64) =
                if previous.is_some() { (before.key_id.as_bytes(), 9) } else { (&[], 0) };
            let expected: [&[u8]; 7] = [
                announced.key_id.as_bytes(),
                chat_id.as_bytes(),
                announced.session_id.as_bytes(),
                &4_u64.to_be_bytes(),
                &[5; 32],
                key,
                &counter.to_be_bytes(),
            ];
            assert_eq!(fields(&announced.signed_bytes(chat_id), "sealcast/announcement"), expected);
        }
    }

    #[test]
    fn p7_an_announcement_is_its_sessions_in_its_chat_alone() {
        let (chat_id, announcement) = (ChatId::generate(), announcement(None));
        let [maker, other] = [1, 2].map(|seed| ed25519_dalek::SigningKey::from_bytes(&[seed; 32]));
        let signature = Signature(maker.sign(&announcement.signed_bytes(chat_id)).to_bytes());
        let signed = SignedAnnouncement { announcement, signature };
        let [maker, other] = [maker, other].map(|key| SigningKey(key.verifying_key().to_bytes()));
        assert!(signed.verifies(chat_id, &maker));
        assert!(!signed.verifies(chat_id, &other));
        assert!(!signed.verifies(ChatId::generate(), &maker));
        let mut moved = signed;
        moved.announcement.epoch = moved.announcement.epoch.next();
        assert!(!moved.verifies(chat_id, &maker), "P5");
    }

    #[test]
    fn p7_a_commitment_is_of_one_secret() {
        let expected = Canonical::new("sealcast/commitment").bytes(&[7; 32]).finish();
        assert_eq!(commitment(&[7; 32]), sha256(&expected));
        assert_ne!(commitment(&[7; 32]), commitment(&[8; 32]));
    }

    #[test]
    fn p7_associated_data_name_the_place_from_which_a_ciphertext_cannot_be_moved() {
        let (chat_id, key_id, info_key_id) = (ChatId::generate(), KeyId::generate(), InfoKeyId::generate());
        let (from, to) = (SessionId::generate(), SessionId::generate());
        let copy = sender_key_aad(chat_id, key_id, from, to);
        let expected = [chat_id.as_bytes(), key_id.as_bytes(), from.as_bytes(), to.as_bytes()];
        assert_eq!(fields(&copy, "sealcast/aad/sender-key"), expected);
        let wrap = info_key_aad(chat_id, info_key_id, from, to);
        let expected = [chat_id.as_bytes(), info_key_id.as_bytes(), from.as_bytes(), to.as_bytes()];
        assert_eq!(fields(&wrap, "sealcast/aad/info-key"), expected);
        let name = chat_name_aad(chat_id, info_key_id);
        assert_eq!(fields(&name, "sealcast/aad/chat-name"), [chat_id.as_bytes(), info_key_id.as_bytes()]);
    }

    #[test]
    fn p4_a_refusal_signs_the_copy_that_is_refused_and_why() {
        use RefusalReason::{Announcement, Commitment, DoesNotOpen};
        let chat_id = ChatId::generate();
        for (reason, word) in
            [(DoesNotOpen, "does_not_open"), (Commitment, "commitment"), (Announcement, "announcement")]
        {
            let refusal = CopyRefusal {
                key_id: KeyId::generate(),
                session_id: SessionId::generate(),
                reason,
                copy_hash: Hash([6; 32]),
            };
            let expected: [&[u8]; 5] = [
                chat_id.as_bytes(),
                refusal.key_id.as_bytes(),
                refusal.session_id.as_bytes(),
                word.as_bytes(),
                &[6; 32],
            ];
            assert_eq!(fields(&refusal.signed_bytes(chat_id), "sealcast/copy-refusal"), expected);
        }
    }

    #[test]
    fn p7_a_wrap_of_an_info_key_signs_chat_key_recipient_wrapper_and_the_wrapped_key() {
        let (chat_id, byte) = (ChatId::generate(), [3; WrappedKey::LENGTH]);
        let wrap = InfoKeyWrap {
            session_id: SessionId::generate(),
            key_id: InfoKeyId::generate(),
            key: WrappedKey(byte),
            wrapped_by_session_id: SessionId::generate(),
            signature: Signature([0; 64]),
        };
        let expected: [&[u8]; 5] = [
            chat_id.as_bytes(),
            wrap.key_id.as_bytes(),
            wrap.session_id.as_bytes(),
            wrap.wrapped_by_session_id.as_bytes(),
            &byte,
        ];
        assert_eq!(fields(&wrap.signed_bytes(chat_id), "sealcast/info-key-wrap"), expected);
    }

    #[test]
    fn p4_the_hash_of_a_staged_list_is_of_each_copy_in_any_order() {
        let copy = |byte| KeyCopy { session_id: SessionId::generate(), key: WrappedKey([byte; WrappedKey::LENGTH]) };
        let mut copies = [copy(1), copy(2), copy(3)];
        copies.sort_by_key(|copy| copy.session_id);
        let [first, second, third] = &copies;
        let mut expected = Canonical::new("sealcast/staged-copies").u64(3);
        for copy in &copies {
            expected = expected.id(copy.session_id.0).bytes(&copy.key.0);
        }
        assert_eq!(staged_hash([third, first, second].into_iter()), expected.hash());
        let without_one = staged_hash([first, second].into_iter());
        let with_another_key = KeyCopy { key: WrappedKey([9; WrappedKey::LENGTH]), ..third.clone() };
        for other in [without_one, staged_hash([first, second, &with_another_key].into_iter())] {
            assert_ne!(other, expected.hash());
        }
    }
}
