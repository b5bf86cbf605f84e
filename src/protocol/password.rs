//! The bodies of the HTTP requests about passwords and recovery codes. JSON only.
//!
//! OPAQUE (RFC 9807) with ristretto255-SHA512, HKDF-SHA-512, HMAC-SHA-512, 3DH; its messages are carried as the
//! RFC serialises them. The server never learns a password, nor anything by which it could be guessed without the
//! server's own secrets.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, CredentialId, ExchangeKey, Hash, IdentityKey, Nonce, Signature, SigningKey};
use super::canonical::{Canonical, label};
use super::ids::{LoginId, Place, SessionId, Timestamp, UserId};
use super::profile::OwnKeyWrap;
use super::strongbox::{Stretching, Strongbox, StrongboxUpload};
use super::username::Username;

/// Where a new password begins.
pub const PASSWORDS_PATH: &str = "/v1/passwords";

/// Where a login by password begins.
pub const LOGINS_PATH: &str = "/v1/logins";

/// Where it ends.
pub const LOGINS_FINISH_PATH: &str = "/v1/logins/finish";

/// Where a login by recovery code begins.
pub const RECOVERIES_PATH: &str = "/v1/recoveries";

/// Where it ends.
pub const RECOVERIES_FINISH_PATH: &str = "/v1/recoveries/finish";

/// Where what a password protects is replaced.
pub const STRONGBOXES_PATH: &str = "/v1/strongboxes";

/// Bytes of OPAQUE's `RegistrationRequest`.
pub const REGISTRATION_REQUEST_BYTES: usize = 32;

/// Bytes of OPAQUE's `RegistrationResponse`.
pub const REGISTRATION_RESPONSE_BYTES: usize = 64;

/// Bytes of OPAQUE's KE1.
pub const KE1_BYTES: usize = 96;

/// Bytes of OPAQUE's KE2.
pub const KE2_BYTES: usize = 320;

/// Bytes of OPAQUE's KE3.
pub const KE3_BYTES: usize = 64;

/// The credential identifier of OPAQUE: name and credential. A credential is drawn anew for each password, so nobody
/// can have it evaluated before it is the one by which guesses are counted.
#[must_use]
pub fn credential_identifier(username: &Username, credential_id: &CredentialId) -> Vec<u8> {
    Canonical::new(label::CREDENTIAL).text(username.as_str()).bytes(credential_id.as_ref()).finish()
}

/// The context of OPAQUE's key exchange.
#[must_use]
pub fn opaque_context() -> Vec<u8> {
    Canonical::new(label::OPAQUE_CONTEXT).finish()
}

/// The first message of a new password. Nothing is stored for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginPassword {
    /// The name.
    pub username: String,
    /// OPAQUE's `RegistrationRequest`.
    pub message: Blob,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordBegun {
    /// Fresh; goes into the strongbox.
    pub credential_id: CredentialId,
    /// OPAQUE's `RegistrationResponse`.
    pub message: Blob,
}

/// The first message of a login by password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginLogin {
    /// The name, in any case.
    pub username: String,
    /// OPAQUE's KE1.
    pub message: Blob,
}

/// The answer to it, the same in form for every name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginBegun {
    /// The login.
    pub login_id: LoginId,
    /// OPAQUE's KE2.
    pub message: Blob,
    /// How the password is stretched.
    pub stretching: Stretching,
}

/// The keys of a session that a login makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSession {
    /// The new session.
    pub session_id: SessionId,
    /// Its X25519 key.
    pub public_key: ExchangeKey,
    /// Its Ed25519 key.
    pub signing_public_key: SigningKey,
}

/// The last message of a login by password. A login that has begun takes one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishLogin {
    /// The login.
    pub login_id: LoginId,
    /// OPAQUE's KE3.
    pub message: Blob,
    /// The session to be made; absent when what the password protects is all that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<NewSession>,
    /// The session of the user's that asks, when none is to be made: once it is revoked, the user key goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_session: Option<SessionId>,
}

/// The login is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedIn {
    /// The user.
    pub user_id: UserId,
    /// The identity key, as the server says; what is opened must be its private half.
    pub identity_key: IdentityKey,
    /// What the password protects.
    pub strongbox: Strongbox,
    /// The place of the newest entry of the user's chain.
    pub place: Place,
    /// Its hash.
    pub hash: Hash,
    /// Whether the active user key was withdrawn: whoever has opened the strongbox makes a new one.
    #[serde(default)]
    pub is_withdrawn: bool,
    /// When the pending session is forgotten unless it certifies itself, by the database's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// To a session that is made: the user's info key, sealed to a user key of the strongbox, if there is a profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_key: Option<OwnKeyWrap>,
}

/// The first message of a login by recovery code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginRecovery {
    /// The name, in any case.
    pub username: String,
}

/// The answer to it, the same in form for every name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryBegun {
    /// The login.
    pub login_id: LoginId,
    /// What is to be signed.
    pub nonce: Nonce,
}

/// The last message of a login by recovery code. A login that has begun takes one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishRecovery {
    /// The login.
    pub login_id: LoginId,
    /// By the recovery code's Ed25519 key, over [`recovery_login_bytes`].
    pub signature: Signature,
    /// The session to be made; absent when what the code opens is all that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<NewSession>,
    /// The session of the user's that asks, when none is to be made: once it is revoked, the user key goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_session: Option<SessionId>,
}

/// What a recovery code signs to log in: nonce, server's name, session and its two keys (each empty without one).
#[must_use]
pub fn recovery_login_bytes(nonce: &Nonce, server_name: &str, session: Option<&NewSession>) -> Vec<u8> {
    Canonical::new(label::RECOVERY_LOGIN)
        .bytes(nonce.as_ref())
        .text(server_name)
        .bytes(session.map_or(&[], |session| session.session_id.as_bytes()))
        .bytes(session.map_or(&[], |session| session.public_key.as_ref()))
        .bytes(session.map_or(&[], |session| session.signing_public_key.as_ref()))
        .finish()
}

/// Replaces the password and all that it protects. The same request again gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceStrongbox {
    /// The user.
    pub user_id: UserId,
    /// The next version, signed by the identity key: who can sign it had opened the one before.
    pub upload: StrongboxUpload,
}

/// It is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrongboxReplaced {
    /// The version that holds now.
    pub version: u64,
}
