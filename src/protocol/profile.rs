//! What a user says of themselves: sealed name, email and description, signed by the session that saved them.
//!
//! Invariants: I1 whoever saves names the revision, so of two saves for one place one is refused, and a reader who was
//! shown a revision is never shown an older one. I2 the user's own sessions alone save, and alone wrap the key.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, Signature, SigningKey, WrappedKey};
use super::canonical::{Canonical, label};
use super::ids::{InfoKeyId, Revision, SessionId, UserId, UserKeyId};
use super::verify::Verifier;

/// A part of a profile that is sealed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileField {
    /// What the user is called.
    Name,
    /// Where they get mail.
    Email,
    /// What they say of themselves.
    Description,
}

impl ProfileField {
    /// The word that is bound to its ciphertext.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Email => "email",
            Self::Description => "description",
        }
    }
}

/// A user's profile as stored: ciphertext under the user's info key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedProfile {
    /// Whose it is.
    pub user_id: UserId,
    /// 1 for the first save, then one more with each.
    pub revision: Revision,
    /// The info key.
    pub key_id: InfoKeyId,
    /// Who saved it: a session of the user.
    pub session_id: SessionId,
    /// Nonce (12 bytes), AES-256-GCM ciphertext and tag (16 bytes); associated data [`profile_aad`]. None for a user
    /// without one; so with the others.
    pub name: Option<Blob>,
    /// The same of the email.
    pub email: Option<Blob>,
    /// The same of the description.
    pub description: Option<Blob>,
}

impl SealedProfile {
    /// The signed bytes: user, revision, info key, session, name, email, description (each empty if none).
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        fn bytes(blob: Option<&Blob>) -> &[u8] {
            blob.map_or(&[], AsRef::as_ref)
        }
        Canonical::new(label::PROFILE)
            .id(self.user_id.0)
            .u64(self.revision.get())
            .id(self.key_id.0)
            .id(self.session_id.0)
            .bytes(bytes(self.name.as_ref()))
            .bytes(bytes(self.email.as_ref()))
            .bytes(bytes(self.description.as_ref()))
            .finish()
    }
}

/// A profile with the signature of the session that saved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedProfile {
    /// What is signed.
    pub profile: SealedProfile,
    /// The session's signature over [`SealedProfile::signed_bytes`].
    pub signature: Signature,
}

impl SignedProfile {
    /// Whether the session's key made the signature.
    #[must_use]
    pub fn verifies(&self, key: &SigningKey) -> bool {
        key.verifies(&self.profile.signed_bytes(), &self.signature)
    }
}

/// Associated data of a part of a profile: user, field, info key, revision.
#[must_use]
pub fn profile_aad(user_id: UserId, field: ProfileField, key_id: InfoKeyId, revision: Revision) -> Vec<u8> {
    Canonical::new(label::AAD_PROFILE).id(user_id.0).text(field.as_str()).id(key_id.0).u64(revision.get()).finish()
}

/// A user's info key wrapped to one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileKeyWrap {
    /// Whose info key it is.
    pub user_id: UserId,
    /// The reader.
    pub session_id: SessionId,
    /// The info key.
    pub key_id: InfoKeyId,
    /// HPKE base mode, associated data [`profile_key_aad`].
    pub key: WrappedKey,
    /// Who wrapped it: a session of the user whose key it is.
    pub wrapped_by_session_id: SessionId,
    /// The wrapping session's signature over [`ProfileKeyWrap::signed_bytes`].
    pub signature: Signature,
}

impl ProfileKeyWrap {
    /// The signed bytes: user whose key it is, info key, reader, wrapping session, wrapped key.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        Canonical::new(label::PROFILE_KEY_WRAP)
            .id(self.user_id.0)
            .id(self.key_id.0)
            .id(self.session_id.0)
            .id(self.wrapped_by_session_id.0)
            .bytes(self.key.as_ref())
            .finish()
    }
}

/// Associated data of a wrapped info key of a user: user, info key, wrapping session, reader.
#[must_use]
pub fn profile_key_aad(user_id: UserId, key_id: InfoKeyId, wrapped_by: SessionId, reader: SessionId) -> Vec<u8> {
    Canonical::new(label::AAD_PROFILE_KEY).id(user_id.0).id(key_id.0).id(wrapped_by.0).id(reader.0).finish()
}

/// A user's info key sealed to the same user's user key: for a device that logs in with nobody else online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnKeyWrap {
    /// Whose info key and user key it is.
    pub user_id: UserId,
    /// The user key.
    pub user_key_id: UserKeyId,
    /// The info key.
    pub key_id: InfoKeyId,
    /// HPKE base mode, associated data [`own_key_aad`].
    pub key: WrappedKey,
    /// Who wrapped it.
    pub wrapped_by_session_id: SessionId,
    /// The wrapping session's signature over [`OwnKeyWrap::signed_bytes`].
    pub signature: Signature,
}

impl OwnKeyWrap {
    /// The signed bytes: user, info key, user key, wrapping session, wrapped key.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        Canonical::new(label::OWN_KEY_WRAP)
            .id(self.user_id.0)
            .id(self.key_id.0)
            .id(self.user_key_id.0)
            .id(self.wrapped_by_session_id.0)
            .bytes(self.key.as_ref())
            .finish()
    }
}

/// Associated data of an info key sealed to a user key: user, info key, wrapping session, user key.
#[must_use]
pub fn own_key_aad(user_id: UserId, key_id: InfoKeyId, wrapped_by: SessionId, user_key_id: UserKeyId) -> Vec<u8> {
    Canonical::new(label::AAD_OWN_KEY).id(user_id.0).id(key_id.0).id(wrapped_by.0).id(user_key_id.0).finish()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer;

    use super::*;

    #[test]
    fn p7_a_saved_profile_is_its_sessions_for_its_user_at_its_revision_alone() {
        let [maker, other] = [1, 2].map(|seed| ed25519_dalek::SigningKey::from_bytes(&[seed; 32]));
        let profile = SealedProfile {
            user_id: UserId::generate(),
            revision: Revision::saturating(3),
            key_id: InfoKeyId::generate(),
            session_id: SessionId::generate(),
            name: Some(Blob::from(vec![1; 40])),
            email: None,
            description: Some(Blob::from(vec![2; 50])),
        };
        let signature = Signature(maker.sign(&profile.signed_bytes()).to_bytes());
        let signed = SignedProfile { profile, signature };
        let [maker, other] = [maker, other].map(|key| SigningKey(key.verifying_key().to_bytes()));
        assert!(signed.verifies(&maker));
        assert!(!signed.verifies(&other));
        let changes: [fn(&mut SealedProfile); 8] = [
            |profile| profile.user_id = UserId::generate(),
            |profile| profile.revision = Revision::saturating(4),
            |profile| profile.key_id = InfoKeyId::generate(),
            |profile| profile.session_id = SessionId::generate(),
            |profile| profile.name = None,
            |profile| profile.email = profile.name.take(),
            |profile| profile.email = profile.description.take(),
            |profile| std::mem::swap(&mut profile.name, &mut profile.description),
        ];
        for change in changes {
            let mut changed = signed.clone();
            change(&mut changed.profile);
            assert!(!changed.verifies(&maker));
        }
    }

    #[test]
    fn p7_what_is_bound_to_a_part_names_user_field_key_and_revision() {
        let (user_id, key_id, revision) = (UserId::generate(), InfoKeyId::generate(), Revision::saturating(1));
        let bound = profile_aad(user_id, ProfileField::Name, key_id, revision);
        for other in [
            profile_aad(UserId::generate(), ProfileField::Name, key_id, revision),
            profile_aad(user_id, ProfileField::Email, key_id, revision),
            profile_aad(user_id, ProfileField::Description, key_id, revision),
            profile_aad(user_id, ProfileField::Name, InfoKeyId::generate(), revision),
            profile_aad(user_id, ProfileField::Name, key_id, revision.next()),
        ] {
            assert_ne!(bound, other);
        }
    }
}
