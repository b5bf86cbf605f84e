//! Makes identity and session keys, and signs with them (RFC 8032, RFC 7748).

use std::fmt;

use ed25519_dalek::Signer;
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use crate::protocol::binary::{ExchangeKey, IdentityKey, Signature, SigningKey};

/// The private half of a user's identity key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentitySecret(Secret);

impl IdentitySecret {
    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::generate())
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> IdentityKey {
        IdentityKey(verifying_key(&self.0))
    }

    /// Signs canonical bytes. Source: RFC 8032 section 5.1.6.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        sign(&self.0, message)
    }

    /// Takes the 32 bytes that [`IdentitySecret::seed`] gave.
    pub(super) const fn of(seed: Secret) -> Self {
        Self(seed)
    }

    /// The 32 bytes, for a key derivation and for sealing alone.
    pub(super) const fn seed(&self) -> &Secret {
        &self.0
    }
}

impl fmt::Debug for IdentitySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("identity secret")
    }
}

/// The private halves of a session's keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSecrets {
    exchange: Secret,
    signing: Secret,
}

impl SessionSecrets {
    /// Makes fresh ones.
    #[must_use]
    pub fn generate() -> Self {
        Self { exchange: Secret::generate(), signing: Secret::generate() }
    }

    /// Keys that follow from something else.
    pub(super) const fn of(exchange: Secret, signing: Secret) -> Self {
        Self { exchange, signing }
    }

    /// The X25519 key to which copies are wrapped. Source: RFC 7748 section 6.1.
    #[must_use]
    pub fn public_key(&self) -> ExchangeKey {
        exchange_key(&self.exchange)
    }

    /// The Ed25519 key with which the session's signatures are checked.
    #[must_use]
    pub fn signing_public_key(&self) -> SigningKey {
        SigningKey(verifying_key(&self.signing))
    }

    /// Signs canonical bytes. Source: RFC 8032 section 5.1.6.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        sign(&self.signing, message)
    }

    /// The X25519 private half, for opening alone.
    pub(super) const fn exchange(&self) -> &Secret {
        &self.exchange
    }

    /// The X25519 key by itself.
    #[must_use]
    pub fn exchange_secret(&self) -> ExchangeSecret {
        ExchangeSecret(self.exchange.clone())
    }

    /// Puts another X25519 key in place of this one, which is given back.
    pub fn replace_exchange(&mut self, key: ExchangeSecret) -> ExchangeSecret {
        ExchangeSecret(std::mem::replace(&mut self.exchange, key.0))
    }
}

impl fmt::Debug for SessionSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("session secrets")
    }
}

/// The private half of an X25519 key of a session: its next one, or one that it has replaced.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExchangeSecret(Secret);

impl ExchangeSecret {
    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::generate())
    }

    /// The public half. Source: RFC 7748 section 6.1.
    #[must_use]
    pub fn public_key(&self) -> ExchangeKey {
        exchange_key(&self.0)
    }

    pub(super) const fn of(secret: Secret) -> Self {
        Self(secret)
    }

    /// The 32 bytes, for opening and for a backup alone.
    pub(super) const fn expose(&self) -> &Secret {
        &self.0
    }
}

impl fmt::Debug for ExchangeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("exchange secret")
    }
}

/// The private half of a user key.
#[derive(Clone, PartialEq, Eq)]
pub struct UserSecret(Secret);

impl UserSecret {
    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::generate())
    }

    /// The public half. Source: RFC 7748 section 6.1.
    #[must_use]
    pub fn public_key(&self) -> ExchangeKey {
        exchange_key(&self.0)
    }

    pub(super) const fn of(secret: Secret) -> Self {
        Self(secret)
    }

    /// The 32 bytes, for sealing alone.
    pub(super) const fn expose(&self) -> &Secret {
        &self.0
    }
}

impl fmt::Debug for UserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("user secret")
    }
}

/// The public half of an X25519 key. Source: RFC 7748 section 6.1.
pub(super) fn exchange_key(secret: &Secret) -> ExchangeKey {
    let secret = x25519_dalek::StaticSecret::from(*secret.expose());
    ExchangeKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
}

fn verifying_key(secret: &Secret) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(secret.expose()).verifying_key().to_bytes()
}

fn sign(secret: &Secret, message: &[u8]) -> Signature {
    Signature(ed25519_dalek::SigningKey::from_bytes(secret.expose()).sign(message).to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::verify::Verifier;

    #[test]
    fn rfc_8032_section_7_1_test_1_is_signed_as_published() {
        let secret = hex::<32>("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = hex::<32>("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let identity = IdentitySecret(Secret::new(secret));
        assert_eq!(identity.public_key(), IdentityKey(public));
        let expected = hex::<64>(concat!(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ));
        assert_eq!(identity.sign(&[]), Signature(expected));
    }

    #[test]
    fn rfc_7748_section_6_1_public_key_is_as_published() {
        let secret = hex::<32>("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let public = hex::<32>("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let session = SessionSecrets { exchange: Secret::new(secret), signing: Secret::generate() };
        assert_eq!(session.public_key(), ExchangeKey(public));
    }

    #[test]
    fn fresh_keys_are_sound_distinct_and_print_nothing() {
        let one = SessionSecrets::generate();
        let other = SessionSecrets::generate();
        assert!(one.public_key().is_sound() && one.signing_public_key().is_sound());
        assert_ne!(one, other);
        assert!(one.signing_public_key().verifies(b"x", &one.sign(b"x")));
        assert!(!other.signing_public_key().verifies(b"x", &one.sign(b"x")));
        assert_eq!(format!("{one:?} {:?}", IdentitySecret::generate()), "session secrets identity secret");
        let (mut replaced, next) = (one.clone(), ExchangeSecret::generate());
        assert_eq!(format!("{next:?}"), "exchange secret");
        assert_eq!(replaced.replace_exchange(next.clone()), one.exchange_secret());
        assert_eq!((replaced.public_key(), replaced.exchange_secret()), (next.public_key(), next));
        assert_eq!(replaced.signing_public_key(), one.signing_public_key());
    }

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let mut bytes = [0; N];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap();
        }
        bytes
    }
}
