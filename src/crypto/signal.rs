//! Encrypts signals, each under its own key, derived from the sender key that covers the recipients.

use uuid::Builder;

use super::cipher;
use super::error::{OpenError, SealError};
use super::random;
use super::secret::Secret;
use crate::protocol::ids::{ChatId, KeyId, SessionId, SignalId};
use crate::protocol::signal::{signal_aad, signal_key_info};

/// The place of a signal's ciphertext: all that is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The chat.
    pub chat_id: ChatId,
    /// The signal.
    pub signal_id: SignalId,
    /// The session that encrypts.
    pub sender: SessionId,
    /// The sender key.
    pub key_id: KeyId,
}

impl Place {
    fn aad(&self) -> Vec<u8> {
        signal_aad(self.chat_id, self.signal_id, self.sender, self.key_id)
    }

    fn key(&self, secret: &Secret) -> Secret {
        cipher::derive(secret.expose(), &signal_key_info(self.signal_id))
    }
}

/// Makes a signal's id: a UUID of version 4 (RFC 9562 section 5.4), 122 random bits, so no two signals share a key.
#[must_use]
pub fn fresh_id() -> SignalId {
    SignalId(Builder::from_random_bytes(random::bytes()).into_uuid())
}

/// Encrypts a body: nonce (12 bytes), ciphertext, tag (16 bytes).
///
/// The key is HKDF-SHA-256 of the sender key's secret over the signal's id.
///
/// # Errors
/// [`SealError::Cipher`] if the library refuses the length.
pub fn seal(secret: &Secret, place: &Place, body: &[u8]) -> Result<Vec<u8>, SealError> {
    cipher::seal(&place.key(secret), &place.aad(), body)
}

/// Decrypts a body.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open(secret: &Secret, place: &Place, data: &[u8]) -> Result<Vec<u8>, OpenError> {
    cipher::open(&place.key(secret), &place.aad(), data)
}

#[cfg(test)]
mod tests {
    use uuid::{Uuid, Version};

    use super::*;

    fn place() -> Place {
        let id = |byte| Uuid::from_bytes([byte; 16]);
        Place { chat_id: ChatId(id(1)), signal_id: SignalId(id(2)), sender: SessionId(id(3)), key_id: KeyId(id(4)) }
    }

    /// Made by an independent implementation of the format, of HKDF and of AES-GCM: a change of it is a change
    /// of the protocol's version.
    const KNOWN: &str = "000102030405060708090a0bf6728e022f2499c8c79117f7b2fd2cdf3e17c9500c243265fa8b48e3";

    #[test]
    fn a_known_signal_opens() {
        let data: Vec<u8> = KNOWN
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(open(&Secret::new([0x42; 32]), &place(), &data).unwrap(), b"known answer");
    }

    #[test]
    fn a_signal_moved_to_another_place_does_not_open() {
        let secret = Secret::generate();
        let data = seal(&secret, &place(), b"body").unwrap();
        assert_eq!(open(&secret, &place(), &data).unwrap(), b"body");
        let moved = [
            Place { chat_id: ChatId::generate(), ..place() },
            Place { signal_id: fresh_id(), ..place() },
            Place { sender: SessionId::generate(), ..place() },
            Place { key_id: KeyId::generate(), ..place() },
        ];
        for place in moved {
            assert_eq!(open(&secret, &place, &data), Err(OpenError));
        }
        assert_eq!(open(&Secret::generate(), &place(), &data), Err(OpenError));
    }

    #[test]
    fn ids_are_random() {
        assert_eq!(fresh_id().0.get_version(), Some(Version::Random));
        assert_ne!(fresh_id(), fresh_id());
    }
}
