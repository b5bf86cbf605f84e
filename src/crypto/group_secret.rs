//! Seals names and values of group secrets under a key that follows from a chat's group key.

use std::fmt;

use zeroize::Zeroizing;

use super::cipher;
use super::error::{OpenError, SealError};
use super::secret::Secret;
use crate::protocol::binary::Blob;
use crate::protocol::group_secret::{SecretPart, secret_aad};
use crate::protocol::ids::{ChatId, GenerationNo, Revision, SecretId};

/// The key of a chat's group secrets under one generation.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretsKey(Secret);

impl fmt::Debug for SecretsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("key of group secrets")
    }
}

/// Where a ciphertext belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretPlace {
    /// The chat.
    pub chat_id: ChatId,
    /// The secret.
    pub secret_id: SecretId,
    /// The generation whose key it is sealed under.
    pub generation: GenerationNo,
    /// The revision.
    pub revision: Revision,
}

impl SecretPlace {
    fn aad(&self, part: SecretPart) -> Vec<u8> {
        secret_aad(part, self.chat_id, self.secret_id, self.generation, self.revision)
    }
}

impl SecretsKey {
    pub(super) const fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// Seals a name or a value; its length shows in the ciphertext's.
    ///
    /// # Errors
    /// [`SealError::Cipher`] if the library refuses the length.
    pub fn seal(&self, place: &SecretPlace, part: SecretPart, plaintext: &[u8]) -> Result<Blob, SealError> {
        cipher::seal(&self.0, &place.aad(part), plaintext).map(Blob::from)
    }

    /// Opens a name or a value.
    ///
    /// # Errors
    /// [`OpenError`], whatever is wrong.
    pub fn open(&self, place: &SecretPlace, part: SecretPart, data: &Blob) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        cipher::open(&self.0, &place.aad(part), data.as_ref()).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::group_key::GroupKey;
    use super::*;

    fn place() -> SecretPlace {
        SecretPlace {
            chat_id: ChatId::generate(),
            secret_id: SecretId::generate(),
            generation: GenerationNo::saturating(2),
            revision: Revision::saturating(3),
        }
    }

    #[test]
    fn p7_a_secret_opens_as_the_part_at_the_place_and_under_the_generation_that_it_was_sealed_for() {
        let (key, place) = (GroupKey::generate().secrets(), place());
        let sealed = key.seal(&place, SecretPart::Value, b"swordfish").unwrap();
        assert_eq!(key.open(&place, SecretPart::Value, &sealed).unwrap().as_slice(), b"swordfish");
        assert_eq!(key.open(&place, SecretPart::Name, &sealed), Err(OpenError), "a value is no name");
        for other in [
            SecretPlace { chat_id: ChatId::generate(), ..place },
            SecretPlace { secret_id: SecretId::generate(), ..place },
            SecretPlace { generation: place.generation.next(), ..place },
            SecretPlace { revision: place.revision.next(), ..place },
        ] {
            assert_eq!(key.open(&other, SecretPart::Value, &sealed), Err(OpenError), "{other:?}");
        }
        assert_eq!(GroupKey::generate().secrets().open(&place, SecretPart::Value, &sealed), Err(OpenError));
        assert_eq!(format!("{key:?}"), "key of group secrets");
    }
}
