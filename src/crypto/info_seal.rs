//! Seals a chat's info key to a recovery key, and opens it with the group key that the recovery key follows from.

use super::error::{OpenError, SealError};
use super::group_key::RecoverySecret;
use super::keypair::SessionSecrets;
use super::secret::Secret;
use super::wrap;
use crate::protocol::binary::Signature;
use crate::protocol::group_key::RecoveryKey;
use crate::protocol::ids::{ChatId, InfoKeyId, SessionId};
use crate::protocol::info_seal::{InfoKeySeal, info_key_seal_aad};

/// The `info` of HPKE for an info key that is sealed to a recovery key.
pub const INFO_KEY_SEAL_INFO: &[u8] = b"sealcast/hpke/info-key-seal";

/// Seals an info key to a recovery key, signed by the session that seals.
///
/// # Errors
/// [`SealError::UnsoundKey`] if the recovery key is.
pub fn seal(
    secret: &Secret,
    chat_id: ChatId,
    key_id: InfoKeyId,
    recovery: &RecoveryKey,
    (sealed_by_session_id, secrets): (SessionId, &SessionSecrets),
) -> Result<InfoKeySeal, SealError> {
    let generation = recovery.generation;
    let aad = info_key_seal_aad(chat_id, key_id, generation, sealed_by_session_id);
    let key = wrap::wrap(&recovery.public_key, INFO_KEY_SEAL_INFO, &aad, secret)?;
    let mut sealed = InfoKeySeal { key_id, generation, key, sealed_by_session_id, signature: Signature([0; 64]) };
    sealed.signature = secrets.sign(&sealed.signed_bytes(chat_id));
    Ok(sealed)
}

/// Opens a sealed info key; its signature is checked by whoever knows the session, and the key by what it opens.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open(sealed: &InfoKeySeal, chat_id: ChatId, recovery: &RecoverySecret) -> Result<Secret, OpenError> {
    let aad = info_key_seal_aad(chat_id, sealed.key_id, sealed.generation, sealed.sealed_by_session_id);
    recovery.unwrap(INFO_KEY_SEAL_INFO, &aad, &sealed.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::group_key::GroupKey;
    use crate::protocol::binary::ExchangeKey;
    use crate::protocol::ids::GenerationNo;

    #[test]
    fn p8_a_seal_opens_with_its_recovery_key_in_its_place_alone_and_names_who_made_it() {
        let (recovery, maker, secret) =
            (GroupKey::generate().recovery(), SessionSecrets::generate(), Secret::generate());
        let (chat, key_id, by) = (ChatId::generate(), InfoKeyId::generate(), SessionId::generate());
        let public = RecoveryKey { generation: GenerationNo::saturating(2), public_key: recovery.public_key() };
        let sealed = seal(&secret, chat, key_id, &public, (by, &maker)).unwrap();
        assert_eq!(open(&sealed, chat, &recovery), Ok(secret.clone()));
        assert!(sealed.verifies(chat, &maker.signing_public_key()));
        assert!(!sealed.verifies(ChatId::generate(), &maker.signing_public_key()));
        assert!(!sealed.verifies(chat, &SessionSecrets::generate().signing_public_key()));
        assert_eq!(open(&sealed, ChatId::generate(), &recovery), Err(OpenError));
        assert_eq!(open(&sealed, chat, &GroupKey::generate().recovery()), Err(OpenError));
        let changes: [fn(&mut InfoKeySeal); 4] = [
            |sealed| sealed.key_id = InfoKeyId::generate(),
            |sealed| sealed.generation = GenerationNo::saturating(3),
            |sealed| sealed.sealed_by_session_id = SessionId::generate(),
            |sealed| sealed.key.0[40] ^= 1,
        ];
        for change in changes {
            let mut changed = sealed.clone();
            change(&mut changed);
            assert_eq!(open(&changed, chat, &recovery), Err(OpenError));
            assert!(!changed.verifies(chat, &maker.signing_public_key()));
        }
        let unsound = RecoveryKey { public_key: ExchangeKey([0; 32]), ..public };
        assert_eq!(seal(&secret, chat, key_id, &unsound, (by, &maker)), Err(SealError::UnsoundKey));
    }
}
