//! Seals what a user says of themselves under the user's info key, and that key to its readers.

use zeroize::Zeroizing;

use super::cipher;
use super::error::{OpenError, SealError};
use super::hpke;
use super::keypair::{SessionSecrets, UserSecret};
use super::name;
use super::secret::Secret;
use crate::protocol::binary::{Blob, ExchangeKey, Signature, WrappedKey};
use crate::protocol::ids::{InfoKeyId, Revision, SessionId, UserId, UserKeyId};
use crate::protocol::profile::{
    OwnKeyWrap, ProfileField, ProfileKeyWrap, SealedProfile, SignedProfile, own_key_aad, profile_aad, profile_key_aad,
};

/// The `info` of HPKE for a user's info key, wrapped to a session or sealed to the user's own user key.
pub const PROFILE_KEY_INFO: &[u8] = b"sealcast/hpke/profile-key";

const UNSIGNED: Signature = Signature([0; Signature::LENGTH]);

/// What a user says of themselves, in plain.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PlainProfile {
    /// What the user is called.
    pub name: Option<String>,
    /// Where they get mail.
    pub email: Option<String>,
    /// What they say of themselves.
    pub description: Option<String>,
}

/// Prints no word of it (P12).
impl std::fmt::Debug for PlainProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainProfile")
    }
}

/// A user's revision and the key it is sealed under.
#[derive(Debug, Clone, Copy)]
pub struct ProfilePlace {
    /// The user.
    pub user_id: UserId,
    /// The revision.
    pub revision: Revision,
    /// The info key.
    pub key_id: InfoKeyId,
}

/// Seals each part by itself and signs the whole; lengths show in the ciphertexts'.
///
/// # Errors
/// [`SealError::Cipher`] if the library refuses a length.
pub fn seal(
    secret: &Secret,
    place: ProfilePlace,
    plain: &PlainProfile,
    (session_id, secrets): (SessionId, &SessionSecrets),
) -> Result<SignedProfile, SealError> {
    let ProfilePlace { user_id, revision, key_id } = place;
    let key = name::key(secret);
    let sealed = |text: &Option<String>, field: ProfileField| match text {
        Some(text) => {
            let aad = profile_aad(user_id, field, key_id, revision);
            cipher::seal(&key, &aad, text.as_bytes()).map(|data| Some(Blob::from(data)))
        }
        None => Ok(None),
    };
    let profile = SealedProfile {
        user_id,
        revision,
        key_id,
        session_id,
        name: sealed(&plain.name, ProfileField::Name)?,
        email: sealed(&plain.email, ProfileField::Email)?,
        description: sealed(&plain.description, ProfileField::Description)?,
    };
    let signature = secrets.sign(&profile.signed_bytes());
    Ok(SignedProfile { profile, signature })
}

/// Opens what was sealed; its signature is checked by whoever knows the session.
///
/// # Errors
/// [`OpenError`], whatever is wrong, text that is not UTF-8 too.
pub fn open(secret: &Secret, profile: &SealedProfile) -> Result<PlainProfile, OpenError> {
    let key = name::key(secret);
    let opened = |data: &Option<Blob>, field: ProfileField| match data {
        Some(data) => {
            let aad = profile_aad(profile.user_id, field, profile.key_id, profile.revision);
            let text = cipher::open(&key, &aad, data.as_ref())?;
            String::from_utf8(text).map(Some).map_err(|_| OpenError)
        }
        None => Ok(None),
    };
    Ok(PlainProfile {
        name: opened(&profile.name, ProfileField::Name)?,
        email: opened(&profile.email, ProfileField::Email)?,
        description: opened(&profile.description, ProfileField::Description)?,
    })
}

/// Wraps a user's info key to one session, signed by the session that wraps.
///
/// # Errors
/// [`SealError::UnsoundKey`] if the reader's key is.
pub fn wrap_key(
    secret: &Secret,
    (user_id, key_id): (UserId, InfoKeyId),
    (wrapped_by_session_id, secrets): (SessionId, &SessionSecrets),
    (session_id, public_key): (SessionId, &ExchangeKey),
) -> Result<ProfileKeyWrap, SealError> {
    let aad = profile_key_aad(user_id, key_id, wrapped_by_session_id, session_id);
    let key = wrapped(public_key, &aad, secret)?;
    let mut wrap = ProfileKeyWrap { user_id, session_id, key_id, key, wrapped_by_session_id, signature: UNSIGNED };
    wrap.signature = secrets.sign(&wrap.signed_bytes());
    Ok(wrap)
}

/// Opens a wrapped info key; its signature is checked by whoever knows the wrapping session.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open_key(wrap: &ProfileKeyWrap, secrets: &SessionSecrets) -> Result<Secret, OpenError> {
    let aad = profile_key_aad(wrap.user_id, wrap.key_id, wrap.wrapped_by_session_id, wrap.session_id);
    secret_of(hpke::open(secrets, PROFILE_KEY_INFO, &aad, wrap.key.as_ref()))
}

/// Seals a user's info key to the user's own user key, signed by the session that seals.
///
/// # Errors
/// [`SealError::UnsoundKey`] if the user key is.
pub fn seal_to_own(
    secret: &Secret,
    (user_id, key_id): (UserId, InfoKeyId),
    (wrapped_by_session_id, secrets): (SessionId, &SessionSecrets),
    (user_key_id, public_key): (UserKeyId, &ExchangeKey),
) -> Result<OwnKeyWrap, SealError> {
    let aad = own_key_aad(user_id, key_id, wrapped_by_session_id, user_key_id);
    let key = wrapped(public_key, &aad, secret)?;
    let mut wrap = OwnKeyWrap { user_id, user_key_id, key_id, key, wrapped_by_session_id, signature: UNSIGNED };
    wrap.signature = secrets.sign(&wrap.signed_bytes());
    Ok(wrap)
}

/// Opens an info key with the private half of the user key; its signature is checked by whoever knows the session.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open_own(wrap: &OwnKeyWrap, user_secret: &UserSecret) -> Result<Secret, OpenError> {
    let aad = own_key_aad(wrap.user_id, wrap.key_id, wrap.wrapped_by_session_id, wrap.user_key_id);
    secret_of(hpke::open_with(user_secret.expose(), PROFILE_KEY_INFO, &aad, wrap.key.as_ref()))
}

fn wrapped(recipient: &ExchangeKey, aad: &[u8], secret: &Secret) -> Result<WrappedKey, SealError> {
    let sealed = hpke::seal(recipient, PROFILE_KEY_INFO, aad, secret.expose())?;
    WrappedKey::try_from(sealed.as_slice()).map_err(|_| SealError::Cipher)
}

fn secret_of(opened: Result<Vec<u8>, OpenError>) -> Result<Secret, OpenError> {
    let opened = Zeroizing::new(opened?);
    opened.as_slice().try_into().map(Secret::new).map_err(|_| OpenError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::verify::Verifier;

    #[test]
    fn p7_each_part_opens_at_its_place_alone() {
        let (secret, secrets, session_id) = (Secret::generate(), SessionSecrets::generate(), SessionId::generate());
        let place = ProfilePlace {
            user_id: UserId::generate(),
            revision: Revision::saturating(1),
            key_id: InfoKeyId::generate(),
        };
        let plain = PlainProfile {
            name: Some("Zoë".to_owned()),
            email: Some("zoe@example.org".to_owned()),
            description: Some("Grüße".to_owned()),
        };
        let signed = seal(&secret, place, &plain, (session_id, &secrets)).unwrap();
        assert!(signed.verifies(&secrets.signing_public_key()));
        let sealed = signed.profile;
        assert_eq!(open(&secret, &sealed), Ok(plain));
        assert_eq!(open(&Secret::generate(), &sealed), Err(OpenError));
        let changes: [fn(&mut SealedProfile); 5] = [
            |profile| profile.user_id = UserId::generate(),
            |profile| profile.key_id = InfoKeyId::generate(),
            |profile| profile.revision = profile.revision.next(),
            |profile| std::mem::swap(&mut profile.name, &mut profile.email),
            |profile| std::mem::swap(&mut profile.email, &mut profile.description),
        ];
        for change in changes {
            let mut changed = sealed.clone();
            change(&mut changed);
            assert_eq!(open(&secret, &changed), Err(OpenError));
        }
        assert_eq!(
            format!("{:?}", PlainProfile { name: Some("x".to_owned()), ..PlainProfile::default() }),
            "PlainProfile"
        );
    }

    #[test]
    fn p7_an_info_key_opens_for_its_reader_alone_and_is_signed_by_who_wraps_it() {
        let (maker, reader) = (SessionSecrets::generate(), SessionSecrets::generate());
        let (user_id, key_id) = (UserId::generate(), InfoKeyId::generate());
        let (by, to) = (SessionId::generate(), SessionId::generate());
        let secret = Secret::generate();
        let wrap = wrap_key(&secret, (user_id, key_id), (by, &maker), (to, &reader.public_key())).unwrap();
        assert!(maker.signing_public_key().verifies(&wrap.signed_bytes(), &wrap.signature));
        assert_eq!(open_key(&wrap, &reader), Ok(secret.clone()));
        assert_eq!(open_key(&wrap, &maker), Err(OpenError));
        let changes: [fn(&mut ProfileKeyWrap); 4] = [
            |wrap| wrap.user_id = UserId::generate(),
            |wrap| wrap.key_id = InfoKeyId::generate(),
            |wrap| wrap.session_id = SessionId::generate(),
            |wrap| wrap.wrapped_by_session_id = SessionId::generate(),
        ];
        for change in changes {
            let mut changed = wrap.clone();
            change(&mut changed);
            assert_eq!(open_key(&changed, &reader), Err(OpenError));
        }
        let (user_secret, user_key_id) = (UserSecret::generate(), UserKeyId::generate());
        let to_own = (user_key_id, &user_secret.public_key());
        let own = seal_to_own(&secret, (user_id, key_id), (by, &maker), to_own).unwrap();
        assert!(maker.signing_public_key().verifies(&own.signed_bytes(), &own.signature));
        assert_eq!(open_own(&own, &user_secret), Ok(secret));
        assert_eq!(open_own(&own, &UserSecret::generate()), Err(OpenError));
        let moved = OwnKeyWrap { user_key_id: UserKeyId::generate(), ..own };
        assert_eq!(open_own(&moved, &user_secret), Err(OpenError));
    }
}
