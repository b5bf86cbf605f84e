//! Holds 32 secret bytes that wipe themselves and print nothing.

use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 secret bytes: a private key, a sender key, an info key.
///
/// Compared in constant time. Serialized only into a keyring, which is sealed or kept private as a whole.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(super::random::bytes())
    }

    /// The bytes, for a cipher or a key derivation only.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Secret, E> {
                bytes.try_into().map(Secret).map_err(|_| E::custom("not 32 bytes"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Secret, A::Error> {
                let mut secret = Secret([0; 32]);
                for byte in &mut secret.0 {
                    *byte = items.next_element()?.ok_or_else(|| de::Error::custom("not 32 bytes"))?;
                }
                Ok(secret)
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_and_comes_back_from_the_keyring() {
        let secret = Secret::new([0xab; 32]);
        assert_eq!(format!("{secret:?}"), "secret");
        let bytes = rmp_serde::to_vec_named(&secret).unwrap();
        assert_eq!(rmp_serde::from_slice::<Secret>(&bytes).unwrap(), secret);
        assert_ne!(Secret::generate(), Secret::generate());
    }
}
