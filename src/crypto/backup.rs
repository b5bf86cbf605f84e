//! Wraps the X25519 private half of an older session to another session of the same user, signed by who wraps it.

use zeroize::Zeroizing;

use super::error::{OpenError, SealError};
use super::hpke;
use super::keypair::{ExchangeSecret, SessionSecrets};
use super::secret::Secret;
use crate::protocol::backup::SessionKeyBackup;
use crate::protocol::binary::{ExchangeKey, Signature, WrappedKey};
use crate::protocol::ids::{SessionId, UserId};

/// The `info` of HPKE for a backup.
pub const SESSION_KEY_INFO: &[u8] = b"sealcast/hpke/session-key";

/// Wraps a session's key.
///
/// # Errors
/// [`SealError::UnsoundKey`] if the recipient's key is.
pub fn wrap(
    secret: &ExchangeSecret,
    (backed_up_user_id, backed_up_session_id): (UserId, SessionId),
    wrapped_by: (SessionId, &SessionSecrets),
    recipient: (SessionId, &ExchangeKey),
) -> Result<SessionKeyBackup, SealError> {
    let ((wrapped_by_session_id, secrets), (session_id, public_key)) = (wrapped_by, recipient);
    let mut backup = SessionKeyBackup {
        session_id,
        backed_up_session_id,
        backed_up_user_id,
        backed_up_public_key: secret.public_key(),
        key: WrappedKey([0; WrappedKey::LENGTH]),
        wrapped_by_session_id,
        signature: Signature([0; Signature::LENGTH]),
    };
    let sealed = hpke::seal(public_key, SESSION_KEY_INFO, &backup.aad(), secret.expose().expose())?;
    backup.key = WrappedKey::try_from(sealed.as_slice()).map_err(|_| SealError::Cipher)?;
    backup.signature = secrets.sign(&backup.signed_bytes());
    Ok(backup)
}

/// Opens a backup with one of the recipient's keys. What opens has the public half that the backup names; whether that is
/// the session's, and whose the signature is, says who knows the user's chain.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open(backup: &SessionKeyBackup, with: &ExchangeSecret) -> Result<ExchangeSecret, OpenError> {
    let sealed = backup.key.as_ref();
    let opened = Zeroizing::new(hpke::open_with(with.expose(), SESSION_KEY_INFO, &backup.aad(), sealed)?);
    let secret = ExchangeSecret::of(opened.as_slice().try_into().map(Secret::new).map_err(|_| OpenError)?);
    if secret.public_key() == backup.backed_up_public_key { Ok(secret) } else { Err(OpenError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_a_backup_opens_to_the_key_it_names_for_its_recipient_in_its_place_alone() {
        let (phone, laptop, old) = (SessionSecrets::generate(), SessionSecrets::generate(), ExchangeSecret::generate());
        let (user, whose, by, to) =
            (UserId::generate(), SessionId::generate(), SessionId::generate(), SessionId::generate());
        let backup = wrap(&old, (user, whose), (by, &phone), (to, &laptop.public_key())).unwrap();
        let opens = |backup: &SessionKeyBackup| open(backup, &laptop.exchange_secret());
        assert_eq!(opens(&backup), Ok(old.clone()));
        assert!(backup.verifies(&phone.signing_public_key()) && !backup.verifies(&laptop.signing_public_key()));
        assert_eq!(open(&backup, &phone.exchange_secret()), Err(OpenError));
        for moved in [
            SessionKeyBackup { session_id: SessionId::generate(), ..backup.clone() },
            SessionKeyBackup { backed_up_session_id: SessionId::generate(), ..backup.clone() },
            SessionKeyBackup { backed_up_public_key: ExchangeSecret::generate().public_key(), ..backup.clone() },
            SessionKeyBackup { wrapped_by_session_id: SessionId::generate(), ..backup.clone() },
            SessionKeyBackup { backed_up_user_id: UserId::generate(), ..backup.clone() },
        ] {
            assert_eq!(opens(&moved), Err(OpenError));
            assert!(!moved.verifies(&phone.signing_public_key()));
        }
        for bit in 0..WrappedKey::LENGTH * 8 {
            let mut flipped = backup.clone();
            flipped.key.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opens(&flipped), Err(OpenError), "bit {bit}");
            assert!(!flipped.verifies(&phone.signing_public_key()));
        }
    }

    #[test]
    fn p7_a_backup_of_another_key_than_it_names_does_not_open() {
        let (phone, laptop, old) = (SessionSecrets::generate(), SessionSecrets::generate(), ExchangeSecret::generate());
        let (user, whose, by, to) =
            (UserId::generate(), SessionId::generate(), SessionId::generate(), SessionId::generate());
        let mut backup = wrap(&old, (user, whose), (by, &phone), (to, &laptop.public_key())).unwrap();
        // Named and bound by a dishonest wrapper, with another private half inside.
        backup.backed_up_public_key = ExchangeSecret::generate().public_key();
        let sealed = hpke::seal(&laptop.public_key(), SESSION_KEY_INFO, &backup.aad(), old.expose().expose()).unwrap();
        backup.key = WrappedKey::try_from(sealed.as_slice()).unwrap();
        assert_eq!(open(&backup, &laptop.exchange_secret()), Err(OpenError));
    }
}
