//! Seals a profile's records at rest under a passphrase (Argon2id, RFC 9106; then AES-256-GCM).

use argon2::{Algorithm, Argon2, Params, Version};

use super::cipher;
use super::error::{OpenError, SealError};
use super::secret::Secret;
use crate::protocol::canonical::Canonical;

/// Bytes of the salt, which is drawn once for a profile.
pub const SALT_BYTES: usize = 16;

/// Memory (KiB), passes and lanes: the first choice that RFC 9106 section 4 gives for machines that cannot
/// spare 2 GiB.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;

/// The key of a profile.
#[derive(Debug, Clone)]
pub struct ProfileKey(Secret);

impl ProfileKey {
    /// Derives the key; takes about a tenth of a second and 64 MiB.
    ///
    /// # Errors
    /// [`SealError::Cipher`] if the library refuses the passphrase (above 4 GiB).
    pub fn derive(passphrase: &[u8], salt: &[u8; SALT_BYTES]) -> Result<Self, SealError> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).map_err(|_| SealError::Cipher)?;
        let mut key = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, salt, &mut key)
            .map_err(|_| SealError::Cipher)?;
        Ok(Self(Secret::new(key)))
    }

    /// Seals a record under its name: a record moved to another name does not open.
    ///
    /// # Errors
    /// [`SealError::Cipher`] if the library refuses the length.
    pub fn seal(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, SealError> {
        cipher::seal(&self.0, &aad(name), content)
    }

    /// Opens a record.
    ///
    /// # Errors
    /// [`OpenError`]: another passphrase, or not as it was written.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        cipher::open(&self.0, &aad(name), sealed)
    }
}

fn aad(name: &str) -> Vec<u8> {
    Canonical::new("sealcast/profile").text(name).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_under_its_passphrase_and_name_alone() {
        let key = ProfileKey::derive(b"correct horse", &[1; SALT_BYTES]).unwrap();
        let sealed = key.seal("account", b"content").unwrap();
        assert_eq!(key.open("account", &sealed).unwrap(), b"content");
        assert_eq!(key.open("other", &sealed), Err(OpenError));
        let other = ProfileKey::derive(b"correct house", &[1; SALT_BYTES]).unwrap();
        assert_eq!(other.open("account", &sealed), Err(OpenError));
        let salted = ProfileKey::derive(b"correct horse", &[2; SALT_BYTES]).unwrap();
        assert_eq!(salted.open("account", &sealed), Err(OpenError));
    }
}
