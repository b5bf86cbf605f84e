//! Makes and reads link codes: 120 random bits that a person carries from one device to another.
//!
//! The code is the secret: it proves to the approving device that the pending keys are those of the device in
//! the person's hand, and it is mixed into the hand-over. The server never sees it.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::cipher;
use super::random;
use super::secret::Secret;
use super::typed;
use crate::protocol::binary::{ExchangeKey, Mac, SigningKey};
use crate::protocol::frame::link_bytes;
use crate::protocol::ids::{SessionId, UserId};

const SECRET_BYTES: usize = 15;

/// A link code.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct LinkCode([u8; SECRET_BYTES]);

impl LinkCode {
    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(random::bytes())
    }

    /// The text for a person: six groups of four characters.
    #[must_use]
    pub fn to_text(&self) -> String {
        typed::write(&self.0)
    }

    /// HMAC-SHA-256 over the new session's keys (RFC 2104).
    #[must_use]
    pub fn proof(
        &self,
        user_id: UserId,
        session_id: SessionId,
        public_key: &ExchangeKey,
        signing_public_key: &SigningKey,
    ) -> Mac {
        let key = self.derive(b"sealcast/link-code/proof");
        let bytes = link_bytes(user_id, session_id, public_key, signing_public_key);
        hmac(key.expose(), &bytes)
    }

    /// Whether `proof` was made under this code, in constant time.
    #[must_use]
    pub fn proves(
        &self,
        user_id: UserId,
        session_id: SessionId,
        public_key: &ExchangeKey,
        signing_public_key: &SigningKey,
        proof: &Mac,
    ) -> bool {
        self.proof(user_id, session_id, public_key, signing_public_key).0.ct_eq(&proof.0).into()
    }

    /// What is mixed into the hand-over.
    pub(super) fn handover_secret(&self) -> Secret {
        self.derive(b"sealcast/link-code/handover")
    }

    fn derive(&self, purpose: &[u8]) -> Secret {
        cipher::derive(&self.0, purpose)
    }
}

/// HMAC-SHA-256 in full length. Source: RFC 2104.
pub(super) fn hmac(key: &[u8], message: &[u8]) -> Mac {
    // HMAC takes keys of any length, so the empty code cannot come about.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Mac([0; 32]) };
    mac.update(message);
    Mac(mac.finalize().into_bytes().into())
}

impl PartialEq for LinkCode {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for LinkCode {}

impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("link code")
    }
}

/// Reads what a person typed: any case, with or without hyphens and spaces; O is 0, I and L are 1.
impl FromStr for LinkCode {
    type Err = LinkCodeInvalid;

    fn from_str(text: &str) -> Result<Self, LinkCodeInvalid> {
        let mut code = Self([0; SECRET_BYTES]);
        typed::read(text, &mut code.0).ok_or(LinkCodeInvalid)?;
        Ok(code)
    }
}

/// Not a link code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a link code has six groups of four letters and digits")]
pub struct LinkCodeInvalid;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        for _ in 0..100 {
            let code = LinkCode::generate();
            let text = code.to_text();
            assert_eq!(text.len(), 29);
            assert_eq!(text.parse(), Ok(code.clone()));
            assert_eq!(text.to_lowercase().replace('-', " ").parse(), Ok(code.clone()));
            assert_eq!(text.replace('0', "o").replace('1', "l").replace('-', "").parse(), Ok(code));
        }
        assert_eq!("".parse::<LinkCode>(), Err(LinkCodeInvalid));
        assert_eq!("UUUU-UUUU-UUUU-UUUU-UUUU-UUUU".parse::<LinkCode>(), Err(LinkCodeInvalid));
        assert_eq!("0000-0000-0000-0000-0000-000".parse::<LinkCode>(), Err(LinkCodeInvalid));
        assert_eq!(format!("{:?}", LinkCode::generate()), "link code");
    }

    #[test]
    fn the_text_is_the_bits_in_order() {
        let mut bytes = [0; SECRET_BYTES];
        bytes[0] = 0b0000_1000;
        bytes[14] = 0b0001_1111;
        assert_eq!(LinkCode(bytes).to_text(), "1000-0000-0000-0000-0000-000Z");
    }

    #[test]
    fn a_proof_is_for_these_keys_alone() {
        let code = LinkCode::generate();
        let (user, session) = (UserId::generate(), SessionId::generate());
        let (exchange, signing) = (ExchangeKey([9; 32]), SigningKey([8; 32]));
        let proof = code.proof(user, session, &exchange, &signing);
        assert!(code.proves(user, session, &exchange, &signing, &proof));
        assert!(!code.proves(user, session, &ExchangeKey([7; 32]), &signing, &proof));
        assert!(!code.proves(user, session, &exchange, &SigningKey([7; 32]), &proof));
        assert!(!code.proves(user, SessionId::generate(), &exchange, &signing, &proof));
        assert!(!LinkCode::generate().proves(user, session, &exchange, &signing, &proof));
    }
}
