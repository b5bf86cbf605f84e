//! Encrypts chat names under info keys.

use super::cipher;
use super::error::{OpenError, SealError};
use super::secret::Secret;
use crate::protocol::binary::Blob;
use crate::protocol::canonical::{Canonical, label};
use crate::protocol::ids::{ChatId, InfoKeyId};
use crate::protocol::keys::{SealedName, chat_name_aad};

/// Encrypts a chat's name; its length shows in the ciphertext's.
///
/// # Errors
/// [`SealError::Cipher`] if the library refuses the length.
pub fn seal(secret: &Secret, chat_id: ChatId, key_id: InfoKeyId, name: &str) -> Result<SealedName, SealError> {
    let data = cipher::seal(&key(secret), &chat_name_aad(chat_id, key_id), name.as_bytes())?;
    Ok(SealedName { key_id, data: Blob::from(data) })
}

/// Decrypts a chat's name.
///
/// # Errors
/// [`OpenError`], whatever is wrong, text that is not UTF-8 too.
pub fn open(secret: &Secret, chat_id: ChatId, name: &SealedName) -> Result<String, OpenError> {
    let opened = cipher::open(&key(secret), &chat_name_aad(chat_id, name.key_id), name.data.as_ref())?;
    String::from_utf8(opened).map_err(|_| OpenError)
}

pub(super) fn key(secret: &Secret) -> Secret {
    cipher::derive(secret.expose(), &Canonical::new(label::KDF_INFO).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by an independent implementation of the format.
    #[test]
    fn a_known_name_opens() {
        let data: &[u8] = &[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x1b, 0xb6, 0x43, 0xec, 0xf7, 0x15, 0x68, 0x10, 0x16, 0x22, 0x01,
            0x6d, 0x97, 0x0e, 0xea, 0x47, 0x78, 0x8a, 0xf5, 0xda, 0x05, 0xe1, 0x71,
        ];
        let id = |byte| uuid::Uuid::from_bytes([byte; 16]);
        let name = SealedName { key_id: InfoKeyId(id(2)), data: Blob::from(data.to_vec()) };
        assert_eq!(open(&Secret::new([0x42; 32]), ChatId(id(1)), &name).unwrap(), "Grüße");
    }

    #[test]
    fn a_name_opens_in_its_chat_alone() {
        let (secret, chat, key_id) = (Secret::generate(), ChatId::generate(), InfoKeyId::generate());
        let name = seal(&secret, chat, key_id, "Grüße").unwrap();
        assert_eq!(open(&secret, chat, &name).unwrap(), "Grüße");
        assert_eq!(open(&secret, ChatId::generate(), &name), Err(OpenError));
        let other = SealedName { key_id: InfoKeyId::generate(), ..name.clone() };
        assert_eq!(open(&secret, chat, &other), Err(OpenError));
        assert_eq!(open(&Secret::generate(), chat, &name), Err(OpenError));
    }
}
