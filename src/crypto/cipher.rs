//! Encrypts with AES-256-GCM under a random nonce that goes before the ciphertext (NIST SP 800-38D, RFC 5116).

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;

use super::error::{OpenError, SealError};
use super::random;
use super::secret::Secret;

/// Bytes of the nonce.
const NONCE_BYTES: usize = 12;

/// Derives a cipher key. Source: RFC 5869; no salt, for the input is uniform.
pub(super) fn derive(secret: &[u8], info: &[u8]) -> Secret {
    let mut key = [0; 32];
    // Only an output above 255 blocks is refused, and this is one.
    let is_short = Hkdf::<Sha256>::new(None, secret).expand(info, &mut key).is_ok();
    debug_assert!(is_short, "32 bytes are one block of HKDF-SHA-256");
    Secret::new(key)
}

/// Seals: nonce (12 bytes), ciphertext, tag (16 bytes).
pub(super) fn seal(key: &Secret, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce: [u8; NONCE_BYTES] = random::bytes();
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key.expose()));
    let payload = Payload { msg: plaintext, aad };
    let sealed = cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| SealError::Cipher)?;
    let mut data = Vec::with_capacity(NONCE_BYTES + sealed.len());
    data.extend_from_slice(&nonce);
    data.extend_from_slice(&sealed);
    Ok(data)
}

/// Opens what [`seal`] made.
pub(super) fn open(key: &Secret, aad: &[u8], data: &[u8]) -> Result<Vec<u8>, OpenError> {
    let (nonce, sealed) = data.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError)?;
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key.expose()));
    cipher.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad }).map_err(|_| OpenError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_5869_appendix_a_3_is_derived_as_published() {
        let key = derive(&[0x0b; 22], &[]);
        let expected = [
            0x8d, 0xa4, 0xe7, 0x75, 0xa5, 0x63, 0xc1, 0x8f, 0x71, 0x5f, 0x80, 0x2a, 0x06, 0x3c, 0x5a, 0x31, 0xb8, 0xa1,
            0x1f, 0x5c, 0x5e, 0xe1, 0x87, 0x9e, 0xc3, 0x45, 0x4e, 0x5f, 0x3c, 0x73, 0x8d, 0x2d,
        ];
        assert_eq!(key.expose(), &expected);
    }

    #[test]
    fn one_flipped_bit_at_every_position_fails() {
        let key = Secret::generate();
        let data = seal(&key, b"aad", b"plaintext").unwrap();
        assert_eq!(open(&key, b"aad", &data).unwrap(), b"plaintext");
        for bit in 0..data.len() * 8 {
            let mut flipped = data.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key, b"aad", &flipped), Err(OpenError), "bit {bit}");
        }
        assert_eq!(open(&key, b"aae", &data), Err(OpenError));
        for length in 0..data.len() {
            assert_eq!(open(&key, b"aad", &data[..length]), Err(OpenError));
        }
    }
}
