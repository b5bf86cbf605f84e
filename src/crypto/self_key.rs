//! Seals what a user's own sessions alone may read: read marks that are not shared, names of sessions.
//!
//! The *self key* is 32 random bytes of a user. It is made with the account, kept in each profile and handed to
//! linked sessions; nobody else ever holds it. Each purpose has a key of its own, derived from it.

use super::cipher;
use super::error::{OpenError, SealError};
use super::keypair::IdentitySecret;
use super::secret::Secret;
use crate::protocol::canonical::{Canonical, label};

/// What is sealed. No two purposes share a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The name of a session.
    Label,
    /// A read mark for the user's own sessions.
    Receipt,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Receipt => "receipt",
        }
    }

    fn key(self, self_key: &Secret) -> Secret {
        cipher::derive(self_key.expose(), &Canonical::new(label::KDF_SELF).text(self.as_str()).finish())
    }
}

/// Seals for the user's own sessions: nonce (12 bytes), ciphertext, tag (16 bytes).
///
/// `aad` are the canonical bytes of the place, which [`open`] needs again.
///
/// # Errors
/// [`SealError::Cipher`] if the library refuses the length.
pub fn seal(self_key: &Secret, purpose: Purpose, aad: &[u8], content: &[u8]) -> Result<Vec<u8>, SealError> {
    cipher::seal(&purpose.key(self_key), aad, content)
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open(self_key: &Secret, purpose: Purpose, aad: &[u8], data: &[u8]) -> Result<Vec<u8>, OpenError> {
    cipher::open(&purpose.key(self_key), aad, data)
}

/// The self key of an account that was made without one. Each of its sessions holds the identity key, so all of
/// them come to the same without a word.
#[must_use]
pub fn of_identity(identity: &IdentitySecret) -> Secret {
    cipher::derive(identity.seed().expose(), &Canonical::new(label::KDF_SELF_KEY).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_place_under_its_key_alone() {
        let key = Secret::generate();
        let data = seal(&key, Purpose::Receipt, b"place", b"content").unwrap();
        assert_eq!(open(&key, Purpose::Receipt, b"place", &data).unwrap(), b"content");
        assert_eq!(open(&key, Purpose::Label, b"place", &data), Err(OpenError));
        assert_eq!(open(&key, Purpose::Receipt, b"other", &data), Err(OpenError));
        assert_eq!(open(&Secret::generate(), Purpose::Receipt, b"place", &data), Err(OpenError));
    }

    #[test]
    fn sessions_that_hold_the_identity_key_come_to_the_same_self_key() {
        let identity = IdentitySecret::generate();
        assert_eq!(of_identity(&identity), of_identity(&identity.clone()));
        assert_ne!(of_identity(&identity), of_identity(&IdentitySecret::generate()));
        assert_ne!(of_identity(&identity), *identity.seed());
    }
}
