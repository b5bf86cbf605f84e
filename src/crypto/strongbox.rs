//! Seals a user's private halves under a password's export key and to a recovery code, and opens them again.
//!
//! What is opened lives for one operation and is never written to a disk.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::cipher;
use super::error::{OpenError, SealError};
use super::hpke;
use super::keypair::{IdentitySecret, SessionSecrets, UserSecret};
use super::secret::Secret;
use crate::protocol::binary::{Blob, CredentialId, ExchangeKey, Signature, SigningKey, WrappedKey};
use crate::protocol::canonical::{Canonical, label, sha256};
use crate::protocol::ids::{UserId, UserKeyId};
use crate::protocol::strongbox::{
    IDENTITY_BYTES, Recovery, Stretching, Strongbox, StrongboxUpload, UserKey, recovery_bytes, user_key_bytes,
};

/// The `info` of HPKE for what is sealed to a recovery code.
pub const RECOVERY_INFO: &[u8] = b"sealcast/hpke/recovery";

/// A user's private halves, open.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The identity key.
    pub identity: IdentitySecret,
    /// What the user's own sessions alone hold.
    pub self_key: Secret,
    /// Every user key.
    pub user_keys: BTreeMap<UserKeyId, UserSecret>,
    /// The one that is active.
    pub active: UserKeyId,
    /// The public halves of the recovery code, X25519 and Ed25519, where there is one.
    pub recovery: Option<(ExchangeKey, SigningKey)>,
}

/// A password's part of a strongbox.
#[derive(Debug, Clone)]
pub struct Sealing {
    /// The cipher key that followed from the export key.
    pub key: Secret,
    /// As the server drew it.
    pub credential_id: CredentialId,
    /// OPAQUE's record.
    pub record: Blob,
    /// How the password was stretched.
    pub stretching: Stretching,
}

impl Opened {
    /// The halves of a user who had none sealed before: the first user key is made.
    #[must_use]
    pub fn first(identity: IdentitySecret, self_key: Secret) -> Self {
        let active = UserKeyId::generate();
        let user_keys = BTreeMap::from([(active, UserSecret::generate())]);
        Self { identity, self_key, user_keys, active, recovery: None }
    }

    /// Makes a new user key the active one; the others serve for reading.
    pub fn renew(&mut self) {
        self.active = UserKeyId::generate();
        self.user_keys.insert(self.active, UserSecret::generate());
    }

    /// Seals everything as one version of a strongbox, signed by the identity key.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, user_id: UserId, version: u64, sealing: &Sealing) -> Result<StrongboxUpload, SealError> {
        let under = Under { user_id, place: sealing.credential_id.as_ref() };
        let identity = self.identity_bytes();
        let recovery = match &self.recovery {
            Some((public_key, login_key)) => Some(Recovery {
                public_key: *public_key,
                login_key: *login_key,
                signature: self.identity.sign(&recovery_bytes(user_id, public_key, login_key)),
                sealed_identity: Blob::from(hpke::seal(
                    public_key,
                    RECOVERY_INFO,
                    &Under { user_id, place: public_key.as_ref() }.identity(),
                    &identity,
                )?),
            }),
            None => None,
        };
        let mut user_keys = Vec::with_capacity(self.user_keys.len());
        for (key_id, secret) in &self.user_keys {
            let public_key = secret.public_key();
            let recovery_sealed = match &self.recovery {
                Some((recovery_key, _)) => {
                    let aad = Under { user_id, place: recovery_key.as_ref() }.user_key(*key_id);
                    let sealed = hpke::seal(recovery_key, RECOVERY_INFO, &aad, secret.expose().expose())?;
                    Some(WrappedKey::try_from(sealed.as_slice()).map_err(|_| SealError::Cipher)?)
                }
                None => None,
            };
            user_keys.push(UserKey {
                key_id: *key_id,
                public_key,
                signature: self.identity.sign(&user_key_bytes(user_id, *key_id, &public_key)),
                is_active: *key_id == self.active,
                sealed: Blob::from(cipher::seal(&sealing.key, &under.user_key(*key_id), secret.expose().expose())?),
                recovery_sealed,
            });
        }
        let mut strongbox = Strongbox {
            version,
            credential_id: sealing.credential_id,
            record_hash: sha256(sealing.record.as_ref()),
            stretching: sealing.stretching,
            sealed_identity: Blob::from(cipher::seal(&sealing.key, &under.identity(), &identity)?),
            recovery,
            user_keys,
            signature: Signature([0; Signature::LENGTH]),
        };
        strongbox.signature = self.identity.sign(&strongbox.signed_bytes(user_id));
        Ok(StrongboxUpload { record: sealing.record.clone(), strongbox })
    }

    fn identity_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(IDENTITY_BYTES));
        bytes.extend_from_slice(self.identity.seed().expose());
        bytes.extend_from_slice(self.self_key.expose());
        bytes
    }
}

/// Opens a strongbox with the cipher key of its password.
///
/// # Errors
/// [`OpenError`]: another key, or not as its user sealed and signed it.
pub fn open(strongbox: &Strongbox, user_id: UserId, key: &Secret) -> Result<Opened, OpenError> {
    let under = Under { user_id, place: strongbox.credential_id.as_ref() };
    let identity = cipher::open(key, &under.identity(), strongbox.sealed_identity.as_ref())?;
    open_all(strongbox, user_id, &Zeroizing::new(identity), |user_key| {
        cipher::open(key, &under.user_key(user_key.key_id), user_key.sealed.as_ref())
    })
}

/// Opens a strongbox with the keys of its recovery code.
///
/// # Errors
/// As [`open`].
pub fn recover(strongbox: &Strongbox, user_id: UserId, keys: &SessionSecrets) -> Result<Opened, OpenError> {
    let recovery = strongbox.recovery.as_ref().ok_or(OpenError)?;
    let under = Under { user_id, place: recovery.public_key.as_ref() };
    let identity = hpke::open(keys, RECOVERY_INFO, &under.identity(), recovery.sealed_identity.as_ref())?;
    open_all(strongbox, user_id, &Zeroizing::new(identity), |user_key| {
        let sealed = user_key.recovery_sealed.as_ref().ok_or(OpenError)?;
        hpke::open(keys, RECOVERY_INFO, &under.user_key(user_key.key_id), sealed.as_ref())
    })
}

fn open_all(
    strongbox: &Strongbox,
    user_id: UserId,
    identity: &[u8],
    open_key: impl Fn(&UserKey) -> Result<Vec<u8>, OpenError>,
) -> Result<Opened, OpenError> {
    let (identity, self_key) = identity.split_first_chunk::<32>().ok_or(OpenError)?;
    let identity = IdentitySecret::of(Secret::new(*identity));
    let self_key = Secret::new(self_key.try_into().map_err(|_| OpenError)?);
    // Signed by the key that was just opened: what its user did not put there does not pass, recovery code and user
    // keys with it.
    strongbox.verify(user_id, &identity.public_key()).map_err(|_| OpenError)?;
    let mut user_keys = BTreeMap::new();
    for user_key in &strongbox.user_keys {
        let private = Zeroizing::new(open_key(user_key)?);
        let secret = UserSecret::of(Secret::new(private.as_slice().try_into().map_err(|_| OpenError)?));
        if secret.public_key() != user_key.public_key {
            return Err(OpenError);
        }
        user_keys.insert(user_key.key_id, secret);
    }
    let active = strongbox.user_keys.iter().find(|key| key.is_active).ok_or(OpenError)?.key_id;
    let recovery = strongbox.recovery.as_ref().map(|recovery| (recovery.public_key, recovery.login_key));
    Ok(Opened { identity, self_key, user_keys, active, recovery })
}

/// Where a half is sealed: whose, and by which password or recovery code.
struct Under<'a> {
    user_id: UserId,
    place: &'a [u8],
}

impl Under<'_> {
    fn identity(&self) -> Vec<u8> {
        self.aad().text("identity").bytes(&[]).finish()
    }

    fn user_key(&self, key_id: UserKeyId) -> Vec<u8> {
        self.aad().text("user_key").id(key_id.0).finish()
    }

    fn aad(&self) -> Canonical {
        Canonical::new(label::AAD_STRONGBOX).id(self.user_id.0).bytes(self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::recovery_code::RecoveryCode;
    use crate::protocol::strongbox::StrongboxError;

    fn sealing() -> Sealing {
        Sealing {
            key: Secret::generate(),
            credential_id: CredentialId([5; 32]),
            record: Blob::from(vec![1; crate::protocol::strongbox::RECORD_BYTES]),
            stretching: Stretching::DEFAULT,
        }
    }

    fn opened() -> (Opened, RecoveryCode) {
        let (mut opened, code) =
            (Opened::first(IdentitySecret::generate(), Secret::generate()), RecoveryCode::generate());
        let keys = code.keys();
        opened.recovery = Some((keys.public_key(), keys.signing_public_key()));
        let older = opened.active;
        opened.active = UserKeyId::generate();
        opened.user_keys.insert(opened.active, UserSecret::generate());
        assert!(older < opened.active);
        (opened, code)
    }

    fn is_same(one: &Opened, other: &Opened) -> bool {
        one.identity == other.identity
            && one.self_key == other.self_key
            && one.user_keys == other.user_keys
            && (one.active, one.recovery) == (other.active, other.recovery)
    }

    #[test]
    fn a_strongbox_opens_with_its_password_and_its_code_alone() {
        let ((opened, code), sealing, user_id) = (opened(), sealing(), UserId::generate());
        let upload = opened.seal(user_id, 3, &sealing).unwrap();
        upload.verify(user_id, &opened.identity.public_key()).unwrap();
        let strongbox = &upload.strongbox;
        assert!(is_same(&open(strongbox, user_id, &sealing.key).unwrap(), &opened));
        assert!(is_same(&recover(strongbox, user_id, &code.keys()).unwrap(), &opened));
        assert!(open(strongbox, user_id, &Secret::generate()).is_err());
        assert!(open(strongbox, UserId::generate(), &sealing.key).is_err());
        assert!(recover(strongbox, user_id, &RecoveryCode::generate().keys()).is_err());
    }

    #[test]
    fn what_its_user_did_not_seal_and_sign_does_not_open() {
        let ((opened, code), sealing, user_id) = (opened(), sealing(), UserId::generate());
        let whole = opened.seal(user_id, 1, &sealing).unwrap().strongbox;
        let foreign = RecoveryCode::generate().keys();
        let changes: [fn(&mut Strongbox); 8] = [
            |strongbox| strongbox.version += 1,
            |strongbox| strongbox.credential_id = CredentialId([6; 32]),
            |strongbox| strongbox.record_hash.0[0] ^= 1,
            |strongbox| strongbox.stretching.passes += 1,
            |strongbox| strongbox.user_keys.swap(0, 1),
            |strongbox| strongbox.user_keys.iter_mut().for_each(|key| key.is_active = !key.is_active),
            |strongbox| drop(strongbox.user_keys.remove(0)),
            |strongbox| strongbox.recovery = None,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut strongbox = whole.clone();
            change(&mut strongbox);
            assert!(open(&strongbox, user_id, &sealing.key).is_err(), "change {number}");
        }
        // A server that puts a code of its own there.
        let mut strongbox = whole.clone();
        let recovery = strongbox.recovery.as_mut().unwrap();
        (recovery.public_key, recovery.login_key) = (foreign.public_key(), foreign.signing_public_key());
        assert!(open(&strongbox, user_id, &sealing.key).is_err());
        assert!(recover(&strongbox, user_id, &code.keys()).is_err());
        assert_eq!(strongbox.verify(user_id, &opened.identity.public_key()), Err(StrongboxError::Signature));
    }
}
