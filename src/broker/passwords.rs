//! The server's side of OPAQUE (RFC 9807): it evaluates, it compares, and it never learns a password.
//!
//! No type of the library leaves this file. Its long-term secrets are in the database, so that all nodes on one
//! database have the same and a restart changes nothing.

#[cfg(test)]
mod vectors;

use std::fmt;

use opaque_ke::key_exchange::tripledh::TripleDh;
use opaque_ke::ksf::Identity;
use opaque_ke::{
    CipherSuite, CredentialFinalization, CredentialRequest, Identifiers, RegistrationRequest, Ristretto255,
    ServerLogin, ServerLoginParameters, ServerRegistration, ServerSetup,
};
use rand_core_v06::OsRng;

use crate::protocol::binary::{Blob, CredentialId};
use crate::protocol::canonical::{Canonical, label};
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::password::{
    KE1_BYTES, KE3_BYTES, REGISTRATION_REQUEST_BYTES, credential_identifier, opaque_context,
};
use crate::protocol::strongbox::RECORD_BYTES;
use crate::protocol::username::Username;
use crate::store::StoreError;

/// The name of the secrets in the database.
pub const SECRET_NAME: &str = "opaque";

/// Bytes of the key from which the answers for unknown users follow, and the marks of what is counted.
const KEY_BYTES: usize = 32;

/// ristretto255-SHA512, 3DH. The stretching is the client's alone.
struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2_v10::Sha512>;
    type Ksf = Identity;
}

/// What the server needs for passwords.
pub struct Passwords {
    setup: ServerSetup<Suite>,
    key: [u8; KEY_BYTES],
    server_name: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("password secrets")
    }
}

/// A password as it is stored; another user's are never mixed with it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// OPAQUE's record.
    pub record: Vec<u8>,
    /// Drawn when the password was made.
    pub credential_id: CredentialId,
}

/// What a login by password is answered with.
#[derive(Debug)]
pub struct Answer {
    /// What its end is judged by; for the database alone.
    pub state: Vec<u8>,
    /// OPAQUE's KE2.
    pub message: Blob,
}

impl Passwords {
    /// Fresh secrets, as they are stored.
    #[must_use]
    pub fn fresh() -> Vec<u8> {
        let mut bytes = ServerSetup::<Suite>::new(&mut OsRng).serialize().to_vec();
        bytes.extend_from_slice(&random());
        bytes
    }

    /// Reads what [`Passwords::fresh`] made. Clients bind their passwords to the server's name.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is something else.
    pub fn read(bytes: &[u8], server_name: &str) -> Result<Self, StoreError> {
        let corrupt = || StoreError::Corrupt { what: "server_secrets.value" };
        let (setup, key) = bytes.split_last_chunk::<KEY_BYTES>().ok_or_else(corrupt)?;
        let setup = ServerSetup::deserialize(setup).map_err(|_| corrupt())?;
        Ok(Self { setup, key: *key, server_name: server_name.to_owned() })
    }

    /// Answers the first message of a new password. The credential is drawn here: whoever could choose it would have
    /// guesses evaluated that nobody counts.
    ///
    /// # Errors
    /// `malformed`.
    pub fn begin(&self, username: &Username, message: &Blob) -> Result<(CredentialId, Blob), Refusal> {
        check_length(message, REGISTRATION_REQUEST_BYTES)?;
        let request = RegistrationRequest::<Suite>::deserialize(message.as_ref()).map_err(|_| malformed())?;
        let credential_id = CredentialId(random());
        let identifier = credential_identifier(username, &credential_id);
        let answer = ServerRegistration::start(&self.setup, request, &identifier).map_err(|_| malformed())?;
        Ok((credential_id, Blob::from(answer.message.serialize().to_vec())))
    }

    /// Whether a record is one.
    ///
    /// # Errors
    /// `malformed`.
    pub fn check_record(&self, record: &Blob) -> Result<(), Refusal> {
        check_length(record, RECORD_BYTES)?;
        ServerRegistration::<Suite>::deserialize(record.as_ref()).map(|_| ()).map_err(|_| malformed())
    }

    /// Answers the first message of a login. Who has no password, or is nobody, gets an answer by a record that is made
    /// up and always the same: the same work, and nothing to tell it by (RFC 9807 section 10.9).
    ///
    /// # Errors
    /// `malformed`.
    pub fn answer(&self, username: &Username, stored: Option<Stored>, message: &Blob) -> Result<Answer, Refusal> {
        check_length(message, KE1_BYTES)?;
        let request = CredentialRequest::<Suite>::deserialize(message.as_ref()).map_err(|_| malformed())?;
        let made_up = self.made_up(username);
        let stored = stored.unwrap_or(made_up);
        let record = ServerRegistration::deserialize(&stored.record).map_err(|_| corrupt())?;
        let identifier = credential_identifier(username, &stored.credential_id);
        let context = opaque_context();
        let parameters = self.parameters(username, &context);
        let answer = ServerLogin::start(&mut OsRng, &self.setup, Some(record), request, &identifier, parameters)
            .map_err(|_| malformed())?;
        let message = Blob::from(answer.message.serialize().to_vec());
        Ok(Answer { state: answer.state.serialize().to_vec(), message })
    }

    /// Checks the last message of a login.
    ///
    /// # Errors
    /// `malformed`, or `login_failed`.
    pub fn finish(&self, username: &Username, state: &[u8], message: &Blob) -> Result<(), Refusal> {
        check_length(message, KE3_BYTES)?;
        let message = CredentialFinalization::<Suite>::deserialize(message.as_ref()).map_err(|_| malformed())?;
        let login = ServerLogin::<Suite>::deserialize(state).map_err(|_| corrupt())?;
        let context = opaque_context();
        login.finish(message, self.parameters(username, &context)).map(|_| ()).map_err(|_| failed())
    }

    /// By what tries are counted: neither names nor addresses are to be found in the database.
    #[must_use]
    pub fn bucket(&self, purpose: &str, parts: &[&str]) -> Vec<u8> {
        let mut bytes = Canonical::new(label::TRIES).bytes(&self.key).text(purpose);
        for part in parts {
            bytes = bytes.text(part);
        }
        bytes.hash().as_ref().to_vec()
    }

    fn parameters<'a>(&'a self, username: &'a Username, context: &'a [u8]) -> ServerLoginParameters<'a, 'a> {
        ServerLoginParameters {
            context: Some(context),
            identifiers: Identifiers {
                client: Some(username.as_str().as_bytes()),
                server: Some(self.server_name.as_bytes()),
            },
        }
    }

    /// The record of somebody without one: any public key, a masking key of its own, an empty envelope.
    fn made_up(&self, username: &Username) -> Stored {
        let part = |purpose: &str, half: u64| {
            Canonical::new(purpose).bytes(&self.key).text(username.as_str()).u64(half).hash()
        };
        let mut record = self.setup.keypair().public().serialize().to_vec();
        record.extend_from_slice(part(label::FAKE_MASKING, 0).as_ref());
        record.extend_from_slice(part(label::FAKE_MASKING, 1).as_ref());
        record.resize(RECORD_BYTES, 0);
        Stored { record, credential_id: CredentialId(part(label::FAKE_CREDENTIAL, 0).0) }
    }
}

/// 32 bytes that nobody can foresee.
#[must_use]
pub fn random() -> [u8; 32] {
    use rand_core_v06::RngCore;
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// The one answer to whoever cannot log in.
#[must_use]
pub const fn failed() -> Refusal {
    Refusal::new(ErrorCode::LoginFailed, "the login is refused")
}

const fn malformed() -> Refusal {
    Refusal::new(ErrorCode::Malformed, "not a message of OPAQUE")
}

const fn corrupt() -> Refusal {
    Refusal::new(ErrorCode::Internal, "a stored value cannot be read")
}

fn check_length(message: &Blob, length: usize) -> Result<(), Refusal> {
    if message.len() == length { Ok(()) } else { Err(malformed()) }
}
