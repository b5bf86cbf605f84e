//! Makes and reads recovery codes: 256 random bits that a person keeps on paper.
//!
//! Base 32 in Crockford's alphabet, as link codes are, with 24 bits of SHA-256 at the end, so that a slip of the pen is
//! found before the server is asked. The code yields an HPKE key pair, to which private halves are sealed, and a key
//! that signs logins.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::keypair::SessionSecrets;
use super::secret::Secret;
use super::{cipher, typed};
use crate::protocol::canonical::{Canonical, label};

const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 3;

/// A recovery code.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(Secret);

impl RecoveryCode {
    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::generate())
    }

    /// The code whose 32 bytes came together from shares.
    pub(super) const fn of(secret: Secret) -> Self {
        Self(secret)
    }

    /// The 32 bytes, to be shared among friends.
    pub(super) const fn secret(&self) -> &Secret {
        &self.0
    }

    /// The text for a person: fourteen groups of four characters.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.0.expose().to_vec());
        bytes.extend_from_slice(&self.check());
        Zeroizing::new(typed::write(&bytes))
    }

    /// The two key pairs that it yields.
    #[must_use]
    pub fn keys(&self) -> SessionSecrets {
        let derive = |purpose: &str| cipher::derive(self.0.expose(), &Canonical::new(purpose).finish());
        SessionSecrets::of(derive(label::KDF_RECOVERY_EXCHANGE), derive(label::KDF_RECOVERY_LOGIN))
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let hash = Canonical::new(label::RECOVERY_CHECK).bytes(self.0.expose()).hash();
        let [a, b, c, ..] = hash.0;
        [a, b, c]
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("recovery code")
    }
}

/// Reads what a person typed, as with link codes.
impl FromStr for RecoveryCode {
    type Err = RecoveryCodeInvalid;

    fn from_str(text: &str) -> Result<Self, RecoveryCodeInvalid> {
        let mut bytes = [0; SECRET_BYTES + CHECK_BYTES];
        typed::read(text, &mut bytes).ok_or(RecoveryCodeInvalid)?;
        let (secret, check) = bytes.split_first_chunk::<SECRET_BYTES>().ok_or(RecoveryCodeInvalid)?;
        let code = Self(Secret::new(*secret));
        let is_right: bool = code.check().ct_eq(check).into();
        bytes.zeroize();
        if is_right { Ok(code) } else { Err(RecoveryCodeInvalid) }
    }
}

/// Not a recovery code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a recovery code has fourteen groups of four letters and digits, and a slip in them is noticed")]
pub struct RecoveryCodeInvalid;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it_and_slips_are_found() {
        for _ in 0..50 {
            let code = RecoveryCode::generate();
            let text = code.to_text();
            assert_eq!((text.len(), text.split('-').count()), (56 + 13, 14));
            assert_eq!(text.parse(), Ok(code.clone()));
            assert_eq!(text.to_lowercase().replace('-', " ").replace('0', "o").parse(), Ok(code));
        }
        let text = RecoveryCode::generate().to_text();
        let mut slips = 0;
        for (at, letter) in text.char_indices().filter(|(_, letter)| *letter != '-') {
            let other = if letter == 'A' { 'B' } else { 'A' };
            let mut slip = text.to_string();
            slip.replace_range(at..=at, &other.to_string());
            assert_eq!(slip.parse::<RecoveryCode>(), Err(RecoveryCodeInvalid), "{at}");
            slips += 1;
        }
        assert_eq!(slips, 56);
        assert_eq!(text[..text.len() - 1].parse::<RecoveryCode>(), Err(RecoveryCodeInvalid));
        assert_eq!("".parse::<RecoveryCode>(), Err(RecoveryCodeInvalid));
        assert_eq!(format!("{:?}", RecoveryCode::generate()), "recovery code");
    }

    #[test]
    fn a_code_yields_the_same_keys_always_and_no_two_codes_do() {
        let code = RecoveryCode::generate();
        assert_eq!(code.keys(), code.clone().keys());
        assert_ne!(code.keys(), RecoveryCode::generate().keys());
    }
}
