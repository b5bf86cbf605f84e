//! Encrypts message bodies, each under its own key.

use super::cipher;
use super::error::{OpenError, SealError};
use super::secret::Secret;
use crate::protocol::envelope::{Envelope, message_aad, message_key_info};
use crate::protocol::ids::{ChatId, Counter, KeyId, MessageId, Revision, SessionId};

/// The place of a ciphertext: all that is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The chat.
    pub chat_id: ChatId,
    /// The message.
    pub message_id: MessageId,
    /// Its revision.
    pub revision: Revision,
    /// The place among the key's messages.
    pub counter: Counter,
    /// The session that encrypts.
    pub sender: SessionId,
    /// The sender key.
    pub key_id: KeyId,
}

impl Place {
    /// That of a message of a chat; none for a deletion, which uses no key.
    #[must_use]
    pub fn of(chat_id: ChatId, envelope: &Envelope) -> Option<Self> {
        Some(Self {
            chat_id,
            message_id: envelope.message_id,
            revision: envelope.revision,
            counter: envelope.counter,
            sender: envelope.sender_session_id,
            key_id: envelope.key_id?,
        })
    }

    fn aad(&self) -> Vec<u8> {
        message_aad(self.chat_id, self.message_id, self.revision, self.counter, self.sender, self.key_id)
    }

    fn key(&self, secret: &Secret) -> Secret {
        cipher::derive(secret.expose(), &message_key_info(self.message_id, self.revision, self.counter))
    }
}

/// Encrypts a body: nonce (12 bytes), ciphertext, tag (16 bytes).
///
/// The key is HKDF-SHA-256 of the sender key's secret over message, revision and counter, so a nonce could
/// repeat only within one revision of one message.
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
    use uuid::Uuid;

    use super::*;

    fn place() -> Place {
        let id = |byte| Uuid::from_bytes([byte; 16]);
        Place {
            chat_id: ChatId(id(1)),
            message_id: MessageId(id(2)),
            revision: Revision::saturating(0),
            counter: Counter::saturating(7),
            sender: SessionId(id(3)),
            key_id: KeyId(id(4)),
        }
    }

    /// Made by an independent implementation of the format, of HKDF and of AES-GCM: a change of it is a change
    /// of the protocol's version.
    #[test]
    fn a_known_message_opens() {
        let data: Vec<u8> = KNOWN
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(open(&Secret::new([0x42; 32]), &place(), &data).unwrap(), b"known answer");
    }

    const KNOWN: &str = "000102030405060708090a0bea51f8ffd8e73c35bdabc70b48462a54bc562ae83d0fbeb54b40ce44";

    #[test]
    fn a_message_moved_to_another_place_does_not_open() {
        let secret = Secret::generate();
        let data = seal(&secret, &place(), b"body").unwrap();
        assert_eq!(open(&secret, &place(), &data).unwrap(), b"body");
        let moved = [
            Place { chat_id: ChatId::generate(), ..place() },
            Place { message_id: MessageId::generate(), ..place() },
            Place { revision: Revision::saturating(1), ..place() },
            Place { counter: Counter::saturating(8), ..place() },
            Place { sender: SessionId::generate(), ..place() },
            Place { key_id: KeyId::generate(), ..place() },
        ];
        for place in moved {
            assert_eq!(open(&secret, &place, &data), Err(OpenError));
        }
        assert_eq!(open(&Secret::generate(), &place(), &data), Err(OpenError));
    }
}
