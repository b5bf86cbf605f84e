//! The client's side of OPAQUE (RFC 9807): a password becomes an export key, and nobody else ever sees the password.
//!
//! No type of the library leaves this file.

#[cfg(test)]
mod vectors;

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use opaque_ke::errors::InternalError;
use opaque_ke::generic_array::{ArrayLength, GenericArray};
use opaque_ke::key_exchange::tripledh::TripleDh;
use opaque_ke::ksf::Ksf;
use opaque_ke::{
    CipherSuite, ClientLogin, ClientLoginFinishParameters, ClientRegistration, ClientRegistrationFinishParameters,
    CredentialResponse, Identifiers, RegistrationResponse, Ristretto255,
};
use rand_core_v06::OsRng;
use zeroize::Zeroizing;

use super::cipher;
use super::error::OpenError;
use super::secret::Secret;
use crate::protocol::binary::Blob;
use crate::protocol::canonical::{Canonical, label};
use crate::protocol::password::{KE2_BYTES, REGISTRATION_RESPONSE_BYTES, opaque_context};
use crate::protocol::strongbox::Stretching;
use crate::protocol::username::Username;

/// Bytes of a password, at most.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// Characters of a password, at least.
pub const PASSWORD_LENGTH_MIN: usize = 8;

/// Bytes of Argon2's salt, which OPAQUE fixes at zero: the input is unique already. Source: RFC 9807 section 7.
const SALT: [u8; 16] = [0; 16];

/// A password.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password as it was typed.
    ///
    /// # Errors
    /// [`PasswordInvalid`] below [`PASSWORD_LENGTH_MIN`] characters or above [`PASSWORD_BYTES_MAX`] bytes.
    pub fn new(text: String) -> Result<Self, PasswordInvalid> {
        let text = Zeroizing::new(text);
        if text.chars().count() < PASSWORD_LENGTH_MIN || text.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordInvalid);
        }
        Ok(Self(text))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("password")
    }
}

/// Not a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has {PASSWORD_LENGTH_MIN} characters or more, and {PASSWORD_BYTES_MAX} bytes at most")]
pub struct PasswordInvalid;

/// Stretches with Argon2id (RFC 9106).
#[derive(Default)]
struct Argon2id(Option<Stretching>);

impl Ksf for Argon2id {
    fn hash<L: ArrayLength<u8>>(&self, input: GenericArray<u8, L>) -> Result<GenericArray<u8, L>, InternalError> {
        let Stretching { memory_kib, passes, lanes } = self.0.unwrap_or(Stretching::DEFAULT);
        let params = Params::new(memory_kib, passes, lanes, Some(input.len())).map_err(|_| InternalError::KsfError)?;
        let mut output = GenericArray::default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&input, &SALT, &mut output)
            .map_err(|_| InternalError::KsfError)?;
        Ok(output)
    }
}

struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2_v10::Sha512>;
    type Ksf = Argon2id;
}

/// Whose password it is, at which server: both are bound into it.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    /// The user's name.
    pub username: &'a Username,
    /// The server's name.
    pub server_name: &'a str,
}

impl<'a> Parties<'a> {
    fn identifiers(self) -> Identifiers<'a> {
        Identifiers { client: Some(self.username.as_str().as_bytes()), server: Some(self.server_name.as_bytes()) }
    }
}

/// A new password that waits for the server's answer.
pub struct NewPassword(ClientRegistration<Suite>);

impl fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("new password")
    }
}

impl NewPassword {
    /// Begins; gives the message for the server.
    ///
    /// # Errors
    /// [`OpenError`] if the library refuses the password.
    pub fn begin(password: &Password) -> Result<(Self, Blob), OpenError> {
        let started = ClientRegistration::start(&mut OsRng, password.bytes()).map_err(|_| OpenError)?;
        Ok((Self(started.state), Blob::from(started.message.serialize().to_vec())))
    }

    /// Ends; gives the record for the server and the cipher key. Takes as long as the stretching does.
    ///
    /// # Errors
    /// [`OpenError`] if the answer is none.
    pub fn finish(
        self,
        password: &Password,
        parties: Parties<'_>,
        stretching: Stretching,
        answer: &Blob,
    ) -> Result<(Blob, Secret), OpenError> {
        if answer.len() != REGISTRATION_RESPONSE_BYTES {
            return Err(OpenError);
        }
        let answer = RegistrationResponse::deserialize(answer.as_ref()).map_err(|_| OpenError)?;
        let stretch = Argon2id(Some(stretching));
        let parameters = ClientRegistrationFinishParameters::new(parties.identifiers(), Some(&stretch));
        let done = self.0.finish(&mut OsRng, password.bytes(), answer, parameters).map_err(|_| OpenError)?;
        let export = Zeroizing::new(done.export_key.to_vec());
        Ok((Blob::from(done.message.serialize().to_vec()), cipher_key(&export)))
    }
}

/// A login that waits for the server's answer.
pub struct Login(ClientLogin<Suite>);

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("login")
    }
}

impl Login {
    /// Begins; gives KE1.
    ///
    /// # Errors
    /// [`OpenError`] if the library refuses the password.
    pub fn begin(password: &Password) -> Result<(Self, Blob), OpenError> {
        let started = ClientLogin::start(&mut OsRng, password.bytes()).map_err(|_| OpenError)?;
        Ok((Self(started.state), Blob::from(started.message.serialize().to_vec())))
    }

    /// Ends; gives KE3 and the cipher key. Takes as long as the stretching does.
    ///
    /// # Errors
    /// [`OpenError`]: a wrong password, an unknown user, another server; nobody can tell which.
    pub fn finish(
        self,
        password: &Password,
        parties: Parties<'_>,
        stretching: Stretching,
        answer: &Blob,
    ) -> Result<(Blob, Secret), OpenError> {
        if answer.len() != KE2_BYTES || !stretching.is_sound() {
            return Err(OpenError);
        }
        let answer = CredentialResponse::deserialize(answer.as_ref()).map_err(|_| OpenError)?;
        let (context, stretch) = (opaque_context(), Argon2id(Some(stretching)));
        let parameters = ClientLoginFinishParameters::new(Some(&context), parties.identifiers(), Some(&stretch));
        let done = self.0.finish(&mut OsRng, password.bytes(), answer, parameters).map_err(|_| OpenError)?;
        let export = Zeroizing::new(done.export_key.to_vec());
        Ok((Blob::from(done.message.serialize().to_vec()), cipher_key(&export)))
    }
}

fn cipher_key(export: &[u8]) -> Secret {
    cipher::derive(export, &Canonical::new(label::KDF_EXPORT).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_bounded_and_print_nothing() {
        assert_eq!(Password::new("seven77".to_owned()).unwrap_err(), PasswordInvalid);
        assert_eq!(Password::new("x".repeat(PASSWORD_BYTES_MAX + 1)).unwrap_err(), PasswordInvalid);
        let password = Password::new("ünïcödé!".to_owned()).unwrap();
        assert_eq!(format!("{password:?}"), "password");
    }

    #[test]
    fn stretching_is_argon2id_with_the_salt_of_the_rfc() {
        let stretch = Argon2id(Some(Stretching { memory_kib: 8 * 1024, passes: 1, lanes: 1 }));
        let input = GenericArray::<u8, opaque_ke::generic_array::typenum::U64>::from([7; 64]);
        let mut expected = [0; 64];
        let params = Params::new(8 * 1024, 1, 1, Some(64)).unwrap();
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon.hash_password_into(&[7; 64], &[0; 16], &mut expected).unwrap();
        assert_eq!(stretch.hash(input).unwrap().as_slice(), &expected);
        assert_ne!(Argon2id(None).hash(input).unwrap().as_slice(), &expected);
    }
}
