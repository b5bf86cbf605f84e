//! Checks public keys and signatures; needs no secret, so the broker may do it.
//!
//! Both ends judge by these functions alone: a key that one end refuses, the other treats as absent.

use curve25519_dalek::MontgomeryPoint;
use curve25519_dalek::traits::IsIdentity;
use ed25519_dalek::VerifyingKey;

use super::binary::{ExchangeKey, IdentityKey, Signature, SigningKey};

/// A public half that checks Ed25519 signatures.
pub trait Verifier {
    /// The 32 bytes of the key (RFC 8032 section 5.1.5).
    fn key_bytes(&self) -> &[u8; 32];

    /// Whether `signature` over `message` is this key's.
    ///
    /// Strict: S below the group order, A and R canonical and not of small order, no cofactor (RFC 8032
    /// section 5.1.7), so that all who check agree.
    fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(self.key_bytes()) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(message, &signature).is_ok()
    }

    /// Whether the key is canonical and not of small order.
    fn is_sound(&self) -> bool {
        match VerifyingKey::from_bytes(self.key_bytes()) {
            Ok(key) => !key.is_weak() && key.to_edwards().compress().to_bytes() == *self.key_bytes(),
            Err(_) => false,
        }
    }
}

impl Verifier for IdentityKey {
    fn key_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Verifier for SigningKey {
    fn key_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 2^255 - 19, little-endian: the field prime of Curve25519 (RFC 7748 section 4.1).
const FIELD_PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

impl ExchangeKey {
    /// Whether the key is canonical (its u below the field prime) and not of small order, so that sealing to
    /// it cannot fail (RFC 7748 section 6.1).
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let below_prime = self.0.iter().rev().cmp(FIELD_PRIME.iter().rev()).is_lt();
        // Multiplying by the cofactor takes every point of small order, on the curve and on its twist, to u = 0.
        below_prime && !mul_by_cofactor(&MontgomeryPoint(self.0)).is_identity()
    }
}

fn mul_by_cofactor(point: &MontgomeryPoint) -> MontgomeryPoint {
    // Most significant bit first: 8 = 0b1000.
    point.mul_bits_be([true, false, false, false].into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x25519_keys_of_small_order_or_not_canonical_are_unsound() {
        // The points of order 1, 2, 4 and 8 and their non-canonical forms, from the list in the X25519 paper.
        let hex = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ];
        for key in hex {
            assert!(!ExchangeKey(from_hex(key)).is_sound(), "{key}");
        }
    }

    #[test]
    fn the_base_point_is_sound() {
        let mut base = [0; 32];
        base[0] = 9;
        assert!(ExchangeKey(base).is_sound());
    }

    #[test]
    fn ed25519_keys_of_small_order_are_unsound() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(!SigningKey(identity).is_sound());
        assert!(!SigningKey([0xff; 32]).is_sound());
    }

    #[test]
    fn rfc_8032_section_7_1_test_2_verifies_and_one_flipped_bit_does_not() {
        let key = SigningKey(from_hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"));
        let first: [u8; 32] = from_hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da");
        let second: [u8; 32] = from_hex("085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&first);
        signature[32..].copy_from_slice(&second);
        assert!(key.is_sound());
        assert!(key.verifies(&[0x72], &Signature(signature)));
        for bit in 0..512 {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verifies(&[0x72], &Signature(flipped)), "bit {bit}");
        }
    }

    fn from_hex(text: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap();
        }
        bytes
    }
}
