//! Seals to a public key by HPKE base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (RFC 9180).

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};

use super::error::{OpenError, SealError};
use super::keypair::SessionSecrets;
use super::secret::Secret;
use crate::protocol::binary::ExchangeKey;

/// Bytes of the encapsulated key that goes before the ciphertext.
pub const ENCAPSULATED_BYTES: usize = 32;

/// Bytes that sealing adds: encapsulated key and tag.
pub const OVERHEAD_BYTES: usize = ENCAPSULATED_BYTES + 16;

/// Seals: encapsulated key (32 bytes), ciphertext, tag (16 bytes). Source: RFC 9180 section 6.1, base mode.
///
/// # Errors
/// [`SealError::UnsoundKey`] by the test that the server makes too.
pub fn seal(recipient: &ExchangeKey, info: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    seal_with(&mut rand::rng(), recipient, info, aad, plaintext)
}

pub(super) fn seal_with(
    random: &mut impl CryptoRng,
    recipient: &ExchangeKey,
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    if !recipient.is_sound() {
        return Err(SealError::UnsoundKey);
    }
    let public =
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(recipient.as_ref()).map_err(|_| SealError::UnsoundKey)?;
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        info,
        plaintext,
        aad,
        random,
    )
    .map_err(|_| SealError::Cipher)?;
    let mut sealed = Vec::with_capacity(OVERHEAD_BYTES + plaintext.len());
    sealed.extend_from_slice(&encapsulated.to_bytes());
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

/// Opens what [`seal`] made for this session.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open(session: &SessionSecrets, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    open_with(session.exchange(), info, aad, sealed)
}

pub(super) fn open_with(private: &Secret, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let (encapsulated, ciphertext) = sealed.split_first_chunk::<ENCAPSULATED_BYTES>().ok_or(OpenError)?;
    let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(private.expose()).map_err(|_| OpenError)?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| OpenError)?;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        info,
        ciphertext,
        aad,
    )
    .map_err(|_| OpenError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsound_keys_are_not_sealed_to() {
        assert_eq!(seal(&ExchangeKey([0; 32]), b"", b"", b"x"), Err(SealError::UnsoundKey));
        let mut above_prime = [0xff; 32];
        above_prime[31] = 0x7f;
        assert_eq!(seal(&ExchangeKey(above_prime), b"", b"", b"x"), Err(SealError::UnsoundKey));
    }

    #[test]
    fn one_flipped_bit_at_every_position_fails() {
        let session = SessionSecrets::generate();
        let sealed = seal(&session.public_key(), b"info", b"aad", b"sixteen bytes ..").unwrap();
        assert_eq!(open(&session, b"info", b"aad", &sealed).unwrap(), b"sixteen bytes ..");
        for bit in 0..sealed.len() * 8 {
            // The top bit of a Curve25519 point is masked by definition (RFC 7748 section 5), yet RFC 9180
            // puts the bytes as sent into the key schedule, so this fails too.
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&session, b"info", b"aad", &flipped), Err(OpenError), "bit {bit}");
        }
        assert_eq!(open(&session, b"info", b"aae", &sealed), Err(OpenError));
        assert_eq!(open(&session, b"infp", b"aad", &sealed), Err(OpenError));
        assert_eq!(open(&SessionSecrets::generate(), b"info", b"aad", &sealed), Err(OpenError));
    }
}
