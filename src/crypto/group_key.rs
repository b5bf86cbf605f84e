//! Makes group keys, wraps them to user keys, and archives sender keys to the recovery key that follows from one.
//!
//! To make one and to archive take public halves alone. A group key is forgotten as soon as it is wrapped, by its maker
//! too: whoever needs it opens a wrap with a user key, for one operation.

use std::fmt;

use super::error::{OpenError, SealError};
use super::group_secret::SecretsKey;
use super::keypair::{UserSecret, exchange_key};
use super::secret::Secret;
use super::{cipher, wrap};
use crate::protocol::binary::{ExchangeKey, WrappedKey};
use crate::protocol::canonical::{Canonical, label};
use crate::protocol::group_key::{Archive, GroupKeyWrap, RecoveryKey, archive_aad, group_key_aad};
use crate::protocol::ids::{ChatId, GenerationNo, KeyId, SessionId, UserId, UserKeyId};
use crate::protocol::strongbox::PublicUserKey;

/// The `info` of HPKE for a wrapped group key.
pub const GROUP_KEY_INFO: &[u8] = b"sealcast/hpke/group-key";

/// The `info` of HPKE for an archived sender key.
pub const ARCHIVE_INFO: &[u8] = b"sealcast/hpke/archive";

/// A chat's group key of one generation.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupKey(Secret);

impl GroupKey {
    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::generate())
    }

    /// A group key that was opened.
    pub(super) const fn of(secret: Secret) -> Self {
        Self(secret)
    }

    /// The 32 bytes.
    pub(super) const fn expose(&self) -> &Secret {
        &self.0
    }

    /// The private half of the recovery key: HKDF of the 32 bytes is the X25519 key.
    #[must_use]
    pub fn recovery(&self) -> RecoverySecret {
        RecoverySecret(cipher::derive(self.0.expose(), &Canonical::new(label::KDF_RECOVERY_KEY).finish()))
    }

    /// The key of the group secrets: HKDF of the 32 bytes under a label of its own.
    #[must_use]
    pub fn secrets(&self) -> SecretsKey {
        SecretsKey::new(cipher::derive(self.0.expose(), &Canonical::new(label::KDF_GROUP_SECRETS).finish()))
    }

    /// Wraps it to a member's user key.
    ///
    /// # Errors
    /// [`SealError::UnsoundKey`] if the user key is.
    pub fn wrap(
        &self,
        chat_id: ChatId,
        number: GenerationNo,
        member: &PublicUserKey,
    ) -> Result<GroupKeyWrap, SealError> {
        let aad = group_key_aad(chat_id, number, member.user_id, member.key_id);
        let key = wrap::wrap(&member.public_key, GROUP_KEY_INFO, &aad, &self.0)?;
        Ok(GroupKeyWrap { user_id: member.user_id, key_id: member.key_id, key })
    }

    /// Opens a wrap with the user key that it was made for.
    ///
    /// # Errors
    /// [`OpenError`], whatever is wrong.
    pub fn open(
        wrapped: &WrappedKey,
        chat_id: ChatId,
        number: GenerationNo,
        (user_id, key_id, secret): (UserId, UserKeyId, &UserSecret),
    ) -> Result<Self, OpenError> {
        let aad = group_key_aad(chat_id, number, user_id, key_id);
        wrap::unwrap(secret.expose(), GROUP_KEY_INFO, &aad, wrapped).map(Self)
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("group key")
    }
}

/// The private half of a recovery key.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoverySecret(Secret);

impl RecoverySecret {
    /// The public half, as a generation names it.
    #[must_use]
    pub fn public_key(&self) -> ExchangeKey {
        exchange_key(&self.0)
    }

    /// Opens 32 secret bytes that were sealed to the recovery key for another purpose than an archive.
    pub(super) fn unwrap(&self, info: &[u8], aad: &[u8], wrapped: &WrappedKey) -> Result<Secret, OpenError> {
        wrap::unwrap(&self.0, info, aad, wrapped)
    }

    /// Opens an archived sender key; whoever made the archive, the commitment of the key's announcement says whether
    /// it is the one.
    ///
    /// # Errors
    /// [`OpenError`], whatever is wrong.
    pub fn open_archive(
        &self,
        archive: &Archive,
        chat_id: ChatId,
        key_id: KeyId,
        sender: SessionId,
    ) -> Result<Secret, OpenError> {
        let aad = archive_aad(chat_id, key_id, sender, archive.generation);
        wrap::unwrap(&self.0, ARCHIVE_INFO, &aad, &archive.key)
    }
}

impl fmt::Debug for RecoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("recovery secret")
    }
}

/// Seals a sender key to a recovery key.
///
/// # Errors
/// [`SealError::UnsoundKey`] if the recovery key is.
pub fn archive(
    secret: &Secret,
    chat_id: ChatId,
    key_id: KeyId,
    sender: SessionId,
    recovery: &RecoveryKey,
) -> Result<Archive, SealError> {
    let aad = archive_aad(chat_id, key_id, sender, recovery.generation);
    let key = wrap::wrap(&recovery.public_key, ARCHIVE_INFO, &aad, secret)?;
    Ok(Archive { generation: recovery.generation, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SessionSecrets;
    use crate::protocol::binary::Signature;

    fn number(number: u64) -> GenerationNo {
        GenerationNo::saturating(number)
    }

    #[test]
    fn p8_the_recovery_key_follows_from_the_group_key_as_is_written() {
        let recovery = GroupKey(Secret::new([7; 32])).recovery();
        // HKDF-SHA-256 without salt; info: the label and version 1, each behind its length (docs/protocol.md 11).
        let mut info = Vec::from(25_u32.to_be_bytes());
        info.extend_from_slice(b"sealcast/kdf/recovery-key");
        info.extend_from_slice(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
        let mut private = [0; 32];
        hkdf::Hkdf::<sha2::Sha256>::new(None, &[7; 32]).expand(&info, &mut private).unwrap();
        let public = x25519_dalek::x25519(private, x25519_dalek::X25519_BASEPOINT_BYTES);
        assert_eq!(recovery.public_key().0, public);
        assert!(recovery.public_key().is_sound());
        assert_eq!(recovery, GroupKey(Secret::new([7; 32])).recovery());
        assert_ne!(recovery, GroupKey::generate().recovery());
    }

    #[test]
    fn p7_the_key_of_the_group_secrets_is_none_of_the_others() {
        let key = GroupKey(Secret::new([7; 32]));
        let mut info = Vec::from(26_u32.to_be_bytes());
        info.extend_from_slice(b"sealcast/kdf/group-secrets");
        info.extend_from_slice(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
        let mut derived = [0; 32];
        hkdf::Hkdf::<sha2::Sha256>::new(None, &[7; 32]).expand(&info, &mut derived).unwrap();
        assert_eq!(key.secrets(), SecretsKey::new(Secret::new(derived)));
        assert_ne!(key.recovery().0, Secret::new(derived));
    }

    #[test]
    fn p8_a_wrap_opens_for_its_user_key_in_its_chat_and_generation_alone() {
        let (key, secret) = (GroupKey::generate(), UserSecret::generate());
        let (chat, user, key_id) = (ChatId::generate(), UserId::generate(), UserKeyId::generate());
        let signature = Signature([0; 64]);
        let member = PublicUserKey { user_id: user, key_id, public_key: secret.public_key(), signature };
        let wrapped = key.wrap(chat, number(3), &member).unwrap();
        assert_eq!((wrapped.user_id, wrapped.key_id), (user, key_id));
        let open =
            |chat, n, user, key_id, secret| GroupKey::open(&wrapped.key, chat, number(n), (user, key_id, secret));
        assert_eq!(open(chat, 3, user, key_id, &secret), Ok(key));
        assert_eq!(open(ChatId::generate(), 3, user, key_id, &secret), Err(OpenError));
        assert_eq!(open(chat, 4, user, key_id, &secret), Err(OpenError));
        assert_eq!(open(chat, 3, UserId::generate(), key_id, &secret), Err(OpenError));
        assert_eq!(open(chat, 3, user, UserKeyId::generate(), &secret), Err(OpenError));
        assert_eq!(open(chat, 3, user, key_id, &UserSecret::generate()), Err(OpenError));
        let unsound = PublicUserKey { public_key: ExchangeKey([0; 32]), ..member };
        assert_eq!(GroupKey::generate().wrap(chat, number(1), &unsound), Err(SealError::UnsoundKey));
    }

    #[test]
    fn p8_an_archive_opens_with_its_recovery_key_in_its_place_alone() {
        let (recovery, secret) = (GroupKey::generate().recovery(), Secret::generate());
        let (chat, key, sender) = (ChatId::generate(), KeyId::generate(), SessionId::generate());
        let public = RecoveryKey { generation: number(2), public_key: recovery.public_key() };
        let sealed = archive(&secret, chat, key, sender, &public).unwrap();
        assert_eq!(sealed.generation, number(2));
        assert_eq!(recovery.open_archive(&sealed, chat, key, sender), Ok(secret.clone()));
        assert_eq!(recovery.open_archive(&sealed, ChatId::generate(), key, sender), Err(OpenError));
        assert_eq!(recovery.open_archive(&sealed, chat, KeyId::generate(), sender), Err(OpenError));
        assert_eq!(recovery.open_archive(&sealed, chat, key, SessionId::generate()), Err(OpenError));
        let moved = Archive { generation: number(3), ..sealed.clone() };
        assert_eq!(recovery.open_archive(&moved, chat, key, sender), Err(OpenError));
        assert_eq!(GroupKey::generate().recovery().open_archive(&sealed, chat, key, sender), Err(OpenError));
        let unsound = RecoveryKey { public_key: ExchangeKey([0; 32]), ..public };
        assert_eq!(archive(&secret, chat, key, sender, &unsound), Err(SealError::UnsoundKey));
        // It is no copy for a session whose key has the same bytes.
        let aad = archive_aad(chat, key, sender, number(2));
        assert!(wrap::unwrap(&recovery.0, wrap::SENDER_KEY_INFO, &aad, &sealed.key).is_err());
        assert!(wrap::unwrap(SessionSecrets::generate().exchange(), ARCHIVE_INFO, &aad, &sealed.key).is_err());
    }

    #[test]
    fn group_keys_are_not_printed() {
        let key = GroupKey::generate();
        assert_eq!(format!("{key:?} {:?}", key.recovery()), "group key recovery secret");
    }
}
