//! What a password protects: the private halves of a user's keys, sealed, signed as a whole by the identity key.
//!
//! The server keeps it and can open none of it. One version follows the other; each is all there is, so nothing
//! that was sealed under an older password stays behind.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, CredentialId, ExchangeKey, Hash, IdentityKey, Signature, SigningKey, WrappedKey};
use super::canonical::{Canonical, label, sha256};
use super::ids::{UserId, UserKeyId};
use super::limits::USER_KEYS_MAX;
use super::verify::Verifier;

/// Bytes of OPAQUE's record: a public key (32), a masking key (64), an envelope (96). Source: RFC 9807 section 5.
pub const RECORD_BYTES: usize = 192;

/// Bytes of the identity key and the self key, one after the other.
pub const IDENTITY_BYTES: usize = 64;

/// Bytes of both under the export key: nonce (12), ciphertext, tag (16).
pub const SEALED_IDENTITY_BYTES: usize = 12 + IDENTITY_BYTES + 16;

/// Bytes of both sealed to a recovery code: encapsulated key (32), ciphertext, tag (16).
pub const RECOVERY_IDENTITY_BYTES: usize = 32 + IDENTITY_BYTES + 16;

/// Bytes of a user key's private half under the export key.
pub const SEALED_USER_KEY_BYTES: usize = 12 + 32 + 16;

/// How a password is stretched by the client: Argon2id, version 0x13 (RFC 9106), 64 bytes of output, a salt of 16
/// zero bytes (RFC 9807 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretching {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Stretching {
    /// What clients use now: the second choice that RFC 9106 section 4 recommends.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    /// Whether it is neither weaker than sense nor heavier than a small device can do.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        let is_enough = self.memory_kib >= 8 * 1024 && self.passes >= 1 && self.lanes >= 1;
        is_enough && self.memory_kib <= 1024 * 1024 && self.passes <= 16 && self.lanes <= 16
    }
}

/// The public halves of a recovery code, and the identity sealed to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The X25519 key to which private halves are sealed.
    pub public_key: ExchangeKey,
    /// The Ed25519 key with which a login by recovery code is checked.
    pub login_key: SigningKey,
    /// The identity key's signature over [`recovery_bytes`]: later keys are sealed to it without the code.
    pub signature: Signature,
    /// Identity key and self key, sealed to the X25519 key.
    pub sealed_identity: Blob,
}

/// What the identity key signs of a recovery code: user, X25519 key, Ed25519 key.
#[must_use]
pub fn recovery_bytes(user_id: UserId, public_key: &ExchangeKey, login_key: &SigningKey) -> Vec<u8> {
    Canonical::new(label::RECOVERY_KEY).id(user_id.0).bytes(public_key.as_ref()).bytes(login_key.as_ref()).finish()
}

/// A user key: X25519.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKey {
    /// The key.
    pub key_id: UserKeyId,
    /// Its public half.
    pub public_key: ExchangeKey,
    /// The identity key's signature over [`user_key_bytes`].
    pub signature: Signature,
    /// Whether new secrets are wrapped to it; one of a user's keys is, the others serve for reading.
    pub is_active: bool,
    /// Its private half under the export key.
    pub sealed: Blob,
    /// Its private half sealed to the recovery code's key, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_sealed: Option<WrappedKey>,
}

/// The algorithm of user keys, as it is signed.
pub const USER_KEY_ALGORITHM: &str = "x25519";

/// What the identity key signs of a user key: user, key, algorithm, public half.
#[must_use]
pub fn user_key_bytes(user_id: UserId, key_id: UserKeyId, public_key: &ExchangeKey) -> Vec<u8> {
    Canonical::new(label::USER_KEY)
        .id(user_id.0)
        .id(key_id.0)
        .text(USER_KEY_ALGORITHM)
        .bytes(public_key.as_ref())
        .finish()
}

/// A user key as others see it: group keys, shares and info keys are wrapped to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicUserKey {
    /// Whose it is.
    pub user_id: UserId,
    /// The key.
    pub key_id: UserKeyId,
    /// Its public half.
    pub public_key: ExchangeKey,
    /// The identity key's signature over [`user_key_bytes`].
    pub signature: Signature,
}

impl PublicUserKey {
    /// Whether it is a sound key that its user signed.
    #[must_use]
    pub fn verifies(&self, identity_key: &IdentityKey) -> bool {
        let bytes = user_key_bytes(self.user_id, self.key_id, &self.public_key);
        self.public_key.is_sound() && identity_key.verifies(&bytes, &self.signature)
    }
}

/// What a password protects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strongbox {
    /// Grows by one with each change; the first is 1.
    pub version: u64,
    /// The password's, as the server drew it.
    pub credential_id: CredentialId,
    /// SHA-256 of OPAQUE's record.
    pub record_hash: Hash,
    /// How the password is stretched.
    pub stretching: Stretching,
    /// Identity key and self key under the export key.
    pub sealed_identity: Blob,
    /// The recovery code, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// In order of their ids; one is active.
    pub user_keys: Vec<UserKey>,
    /// The identity key's, over [`Strongbox::signed_bytes`].
    pub signature: Signature,
}

impl Strongbox {
    /// The signed bytes: user, version, credential, record's hash, memory, passes, lanes, sealed identity; of the
    /// recovery code the X25519 key, the Ed25519 key and its sealed identity, each empty without one; the number of
    /// user keys, and of each: id, public half, signature, whether it is active, sealed half, half sealed to the
    /// recovery code (empty without one).
    #[must_use]
    pub fn signed_bytes(&self, user_id: UserId) -> Vec<u8> {
        let recovery = self.recovery.as_ref();
        let mut bytes = Canonical::new(label::STRONGBOX)
            .id(user_id.0)
            .u64(self.version)
            .bytes(self.credential_id.as_ref())
            .bytes(self.record_hash.as_ref())
            .u64(u64::from(self.stretching.memory_kib))
            .u64(u64::from(self.stretching.passes))
            .u64(u64::from(self.stretching.lanes))
            .bytes(self.sealed_identity.as_ref())
            .bytes(recovery.map_or(&[], |recovery| recovery.public_key.as_ref()))
            .bytes(recovery.map_or(&[], |recovery| recovery.login_key.as_ref()))
            .bytes(recovery.map_or(&[], |recovery| recovery.sealed_identity.as_ref()))
            .u64(self.user_keys.len() as u64);
        for key in &self.user_keys {
            bytes = bytes
                .id(key.key_id.0)
                .bytes(key.public_key.as_ref())
                .bytes(key.signature.as_ref())
                .bool(key.is_active)
                .bytes(key.sealed.as_ref())
                .bytes(key.recovery_sealed.as_ref().map_or(&[], AsRef::as_ref));
        }
        bytes.finish()
    }

    /// Checks form, keys and signatures. Both ends judge by this alone.
    ///
    /// # Errors
    /// [`StrongboxError`].
    pub fn verify(&self, user_id: UserId, identity_key: &IdentityKey) -> Result<(), StrongboxError> {
        self.check_form()?;
        if let Some(recovery) = &self.recovery {
            let bytes = recovery_bytes(user_id, &recovery.public_key, &recovery.login_key);
            if !identity_key.verifies(&bytes, &recovery.signature) {
                return Err(StrongboxError::Signature);
            }
        }
        for key in &self.user_keys {
            if !identity_key.verifies(&user_key_bytes(user_id, key.key_id, &key.public_key), &key.signature) {
                return Err(StrongboxError::Signature);
            }
        }
        if !identity_key.verifies(&self.signed_bytes(user_id), &self.signature) {
            return Err(StrongboxError::Signature);
        }
        Ok(())
    }

    fn check_form(&self) -> Result<(), StrongboxError> {
        if self.user_keys.len() > USER_KEYS_MAX {
            return Err(StrongboxError::TooManyKeys);
        }
        let are_in_order = self.user_keys.windows(2).all(|pair| matches!(pair, [one, two] if one.key_id < two.key_id));
        let active = self.user_keys.iter().filter(|key| key.is_active).count();
        let is_of_form = self.version > 0
            && self.stretching.is_sound()
            && self.sealed_identity.len() == SEALED_IDENTITY_BYTES
            && are_in_order
            && active == 1
            && self.user_keys.iter().all(|key| {
                key.sealed.len() == SEALED_USER_KEY_BYTES && key.recovery_sealed.is_some() == self.recovery.is_some()
            })
            && self.recovery.as_ref().is_none_or(|recovery| recovery.sealed_identity.len() == RECOVERY_IDENTITY_BYTES);
        if !is_of_form {
            return Err(StrongboxError::Form);
        }
        let are_sound = self.user_keys.iter().all(|key| key.public_key.is_sound())
            && self.recovery.as_ref().is_none_or(|found| found.public_key.is_sound() && found.login_key.is_sound());
        if are_sound { Ok(()) } else { Err(StrongboxError::UnsoundKey) }
    }
}

/// A strongbox with the record of its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrongboxUpload {
    /// OPAQUE's record: [`RECORD_BYTES`].
    pub record: Blob,
    /// What the password protects.
    pub strongbox: Strongbox,
}

impl StrongboxUpload {
    /// Checks all that can be checked without the user's other strongboxes.
    ///
    /// # Errors
    /// [`StrongboxError`].
    pub fn verify(&self, user_id: UserId, identity_key: &IdentityKey) -> Result<(), StrongboxError> {
        if self.record.len() != RECORD_BYTES || sha256(self.record.as_ref()) != self.strongbox.record_hash {
            return Err(StrongboxError::Form);
        }
        self.strongbox.verify(user_id, identity_key)
    }
}

/// Why a strongbox is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrongboxError {
    /// A length, number or order that none has.
    #[error("not of the form of a strongbox")]
    Form,
    /// More user keys than allowed.
    #[error("too many user keys")]
    TooManyKeys,
    /// A key that is not canonical or of small order.
    #[error("a public key is not canonical or of small order")]
    UnsoundKey,
    /// The identity key did not sign it.
    #[error("a signature is not the identity key's")]
    Signature,
}
