//! Wraps 32-byte keys to sessions: copies of sender keys, and info keys.

use zeroize::Zeroizing;

use super::error::{OpenError, SealError};
use super::hpke;
use super::keypair::{ExchangeSecret, SessionSecrets};
use super::secret::Secret;
use crate::protocol::binary::{ExchangeKey, WrappedKey};
use crate::protocol::ids::{ChatId, InfoKeyId, KeyId, SessionId};
use crate::protocol::keys::{InfoKeyWrap, KeyCopy, info_key_aad, sender_key_aad};

/// The `info` of HPKE for a copy of a sender key.
pub const SENDER_KEY_INFO: &[u8] = b"sealcast/hpke/sender-key";

/// The `info` of HPKE for a wrapped info key.
pub const INFO_KEY_INFO: &[u8] = b"sealcast/hpke/info-key";

/// Wraps a sender key to one recipient.
///
/// # Errors
/// [`SealError::UnsoundKey`] if the recipient's key is.
pub fn sender_key(
    secret: &Secret,
    chat_id: ChatId,
    key_id: KeyId,
    sender: SessionId,
    recipient: (SessionId, &ExchangeKey),
) -> Result<KeyCopy, SealError> {
    let (session_id, public_key) = recipient;
    let aad = sender_key_aad(chat_id, key_id, sender, session_id);
    Ok(KeyCopy { session_id, key: wrap(public_key, SENDER_KEY_INFO, &aad, secret)? })
}

/// Opens a copy of a sender key.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open_sender_key(
    copy: &WrappedKey,
    chat_id: ChatId,
    key_id: KeyId,
    sender: SessionId,
    recipient: (SessionId, &SessionSecrets),
) -> Result<Secret, OpenError> {
    let (session_id, secrets) = recipient;
    unwrap(secrets.exchange(), SENDER_KEY_INFO, &sender_key_aad(chat_id, key_id, sender, session_id), copy)
}

/// Opens a copy of a sender key with an X25519 key of its recipient that is not the newest.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open_sender_key_with(
    copy: &WrappedKey,
    chat_id: ChatId,
    key_id: KeyId,
    sender: SessionId,
    recipient: (SessionId, &ExchangeSecret),
) -> Result<Secret, OpenError> {
    let (session_id, secret) = recipient;
    let aad = sender_key_aad(chat_id, key_id, sender, session_id);
    let opened = Zeroizing::new(hpke::open_with(secret.expose(), SENDER_KEY_INFO, &aad, copy.as_ref())?);
    opened.as_slice().try_into().map(Secret::new).map_err(|_| OpenError)
}

/// Wraps a chat's info key to one session, signed by the session that wraps.
///
/// # Errors
/// [`SealError::UnsoundKey`] if the recipient's key is.
pub fn info_key(
    secret: &Secret,
    chat_id: ChatId,
    key_id: InfoKeyId,
    wrapped_by: (SessionId, &SessionSecrets),
    recipient: (SessionId, &ExchangeKey),
) -> Result<InfoKeyWrap, SealError> {
    let (wrapped_by_session_id, secrets) = wrapped_by;
    let (session_id, public_key) = recipient;
    let aad = info_key_aad(chat_id, key_id, wrapped_by_session_id, session_id);
    let key = wrap(public_key, INFO_KEY_INFO, &aad, secret)?;
    let mut wrapped = InfoKeyWrap {
        session_id,
        key_id,
        key,
        wrapped_by_session_id,
        signature: crate::protocol::binary::Signature([0; 64]),
    };
    wrapped.signature = secrets.sign(&wrapped.signed_bytes(chat_id));
    Ok(wrapped)
}

/// Opens a wrapped info key; its signature is checked by whoever knows the wrapping session.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open_info_key(
    wrapped: &InfoKeyWrap,
    chat_id: ChatId,
    recipient: (SessionId, &SessionSecrets),
) -> Result<Secret, OpenError> {
    let (session_id, secrets) = recipient;
    let aad = info_key_aad(chat_id, wrapped.key_id, wrapped.wrapped_by_session_id, session_id);
    unwrap(secrets.exchange(), INFO_KEY_INFO, &aad, &wrapped.key)
}

/// Opens a wrapped info key with an X25519 key of its recipient that is not the newest.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open_info_key_with(
    wrapped: &InfoKeyWrap,
    chat_id: ChatId,
    recipient: (SessionId, &ExchangeSecret),
) -> Result<Secret, OpenError> {
    let (session_id, secret) = recipient;
    let aad = info_key_aad(chat_id, wrapped.key_id, wrapped.wrapped_by_session_id, session_id);
    let opened = Zeroizing::new(hpke::open_with(secret.expose(), INFO_KEY_INFO, &aad, wrapped.key.as_ref())?);
    opened.as_slice().try_into().map(Secret::new).map_err(|_| OpenError)
}

/// Seals 32 secret bytes to a public key.
pub(super) fn wrap(recipient: &ExchangeKey, info: &[u8], aad: &[u8], secret: &Secret) -> Result<WrappedKey, SealError> {
    let sealed = hpke::seal(recipient, info, aad, secret.expose())?;
    WrappedKey::try_from(sealed.as_slice()).map_err(|_| SealError::Cipher)
}

/// Opens what [`wrap`] made, with the X25519 private half.
pub(super) fn unwrap(private: &Secret, info: &[u8], aad: &[u8], wrapped: &WrappedKey) -> Result<Secret, OpenError> {
    let opened = Zeroizing::new(hpke::open_with(private, info, aad, wrapped.as_ref())?);
    opened.as_slice().try_into().map(Secret::new).map_err(|_| OpenError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::verify::Verifier;

    #[test]
    fn a_copy_opens_for_its_recipient_in_its_place_alone() {
        let recipient = SessionSecrets::generate();
        let (chat, key, sender, session) =
            (ChatId::generate(), KeyId::generate(), SessionId::generate(), SessionId::generate());
        let secret = Secret::generate();
        let copy = sender_key(&secret, chat, key, sender, (session, &recipient.public_key())).unwrap();
        let open =
            |chat, key, sender, session, secrets| open_sender_key(&copy.key, chat, key, sender, (session, secrets));
        assert_eq!(open(chat, key, sender, session, &recipient), Ok(secret));
        assert_eq!(open(ChatId::generate(), key, sender, session, &recipient), Err(OpenError));
        assert_eq!(open(chat, KeyId::generate(), sender, session, &recipient), Err(OpenError));
        assert_eq!(open(chat, key, SessionId::generate(), session, &recipient), Err(OpenError));
        assert_eq!(open(chat, key, sender, SessionId::generate(), &recipient), Err(OpenError));
        assert_eq!(open(chat, key, sender, session, &SessionSecrets::generate()), Err(OpenError));
        for bit in 0..WrappedKey::LENGTH * 8 {
            let mut flipped = copy.key;
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            let opened = open_sender_key(&flipped, chat, key, sender, (session, &recipient));
            assert_eq!(opened, Err(OpenError), "bit {bit}");
        }
    }

    #[test]
    fn an_info_key_is_signed_by_who_wraps_it() {
        let (maker, recipient) = (SessionSecrets::generate(), SessionSecrets::generate());
        let (chat, key, by, to) =
            (ChatId::generate(), InfoKeyId::generate(), SessionId::generate(), SessionId::generate());
        let secret = Secret::generate();
        let wrapped = info_key(&secret, chat, key, (by, &maker), (to, &recipient.public_key())).unwrap();
        assert!(maker.signing_public_key().verifies(&wrapped.signed_bytes(chat), &wrapped.signature));
        assert_eq!(open_info_key(&wrapped, chat, (to, &recipient)), Ok(secret));
        assert_eq!(open_info_key(&wrapped, ChatId::generate(), (to, &recipient)), Err(OpenError));
        assert!(open_sender_key(&wrapped.key, chat, KeyId(key.0), by, (to, &recipient)).is_err());
    }
}
