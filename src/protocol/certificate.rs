//! The user's chain: certificates and revocations of sessions, each signing its place and what went before.
//!
//! A chat's log shows the same certificates and revocations again as `session_in` and `session_out`.

use serde::{Deserialize, Serialize};

use super::binary::{ExchangeKey, Hash, IdentityKey, Signature, SigningKey};
use super::canonical::{Canonical, label};
use super::ids::{Place, SessionId, Timestamp, UserId};
use super::verify::Verifier;

/// What a user's identity key says of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The user.
    pub user_id: UserId,
    /// The place in the user's chain; the first is 1.
    pub place: Place,
    /// The hash of the entry before; [`chain_start`] at place 1.
    pub previous: Hash,
    /// The session.
    pub session_id: SessionId,
    /// The session's X25519 key.
    pub public_key: ExchangeKey,
    /// The session's Ed25519 key.
    pub signing_public_key: SigningKey,
    /// When it was made, by its maker's clock.
    pub created_at: Timestamp,
    /// When the session expires, by the database's clock.
    pub expired_at: Timestamp,
}

impl Certificate {
    /// The signed bytes: user, place, previous, session, X25519 key, Ed25519 key, `created_at`, `expired_at`.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        Canonical::new(label::CERTIFICATE)
            .id(self.user_id.0)
            .u64(self.place.get())
            .bytes(self.previous.as_ref())
            .id(self.session_id.0)
            .bytes(self.public_key.as_ref())
            .bytes(self.signing_public_key.as_ref())
            .u64(self.created_at.get())
            .u64(self.expired_at.get())
            .finish()
    }
}

/// A certificate with the identity key's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCertificate {
    /// What is signed.
    pub certificate: Certificate,
    /// The identity key's signature over [`Certificate::signed_bytes`].
    pub signature: Signature,
}

impl SignedCertificate {
    /// Checks the signature and both public keys.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong; it is always its maker's fault.
    pub fn verify(&self, identity_key: &IdentityKey) -> Result<(), CertificateError> {
        if !self.certificate.public_key.is_sound() || !self.certificate.signing_public_key.is_sound() {
            return Err(CertificateError::UnsoundKey);
        }
        if self.certificate.expired_at <= self.certificate.created_at {
            return Err(CertificateError::NoLifetime);
        }
        if !identity_key.verifies(&self.certificate.signed_bytes(), &self.signature) {
            return Err(CertificateError::Signature);
        }
        Ok(())
    }

    /// The hash that the next entry of the chain signs.
    #[must_use]
    pub fn chain_hash(&self) -> Hash {
        chain_hash(&self.certificate.signed_bytes(), &self.signature)
    }
}

/// Why a certificate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A key that is not canonical or of small order.
    #[error("a public key is not canonical or of small order")]
    UnsoundKey,
    /// It expires before it is made.
    #[error("expired_at is not after created_at")]
    NoLifetime,
    /// The identity key did not sign it.
    #[error("the signature is not the identity key's")]
    Signature,
}

/// Who revokes a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Revoker {
    /// The user's identity key.
    Identity,
    /// A live session of the same user.
    Session(SessionId),
}

/// The end of a session by its user's will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The user.
    pub user_id: UserId,
    /// The place in the user's chain.
    pub place: Place,
    /// The hash of the entry before.
    pub previous: Hash,
    /// The session that ends.
    pub session_id: SessionId,
    /// Who signs.
    pub revoker: Revoker,
    /// When it was made, by its maker's clock.
    pub created_at: Timestamp,
}

impl Revocation {
    /// The signed bytes: user, place, previous, session, revoking session (empty for the identity key), `created_at`.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let revoker: &[u8] = match &self.revoker {
            Revoker::Identity => &[],
            Revoker::Session(session_id) => session_id.as_bytes(),
        };
        Canonical::new(label::REVOCATION)
            .id(self.user_id.0)
            .u64(self.place.get())
            .bytes(self.previous.as_ref())
            .id(self.session_id.0)
            .bytes(revoker)
            .u64(self.created_at.get())
            .finish()
    }
}

/// A revocation with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRevocation {
    /// What is signed.
    pub revocation: Revocation,
    /// By the identity key or the revoking session, over [`Revocation::signed_bytes`].
    pub signature: Signature,
}

impl SignedRevocation {
    /// The hash that the next entry of the chain signs.
    #[must_use]
    pub fn chain_hash(&self) -> Hash {
        chain_hash(&self.revocation.signed_bytes(), &self.signature)
    }
}

/// The end of an account, the last entry of its user's chain.
///
/// Chats that the user owned pass on by rule; see [`Membership::heir`](super::membership::Membership::heir).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The user.
    pub user_id: UserId,
    /// The place in the user's chain.
    pub place: Place,
    /// The hash of the entry before.
    pub previous: Hash,
    /// When it was made, by its maker's clock.
    pub created_at: Timestamp,
}

impl Deletion {
    /// The signed bytes: user, place, previous, `created_at`.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        Canonical::new(label::ACCOUNT_DELETION)
            .id(self.user_id.0)
            .u64(self.place.get())
            .bytes(self.previous.as_ref())
            .u64(self.created_at.get())
            .finish()
    }
}

/// A deletion with the identity key's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedDeletion {
    /// What is signed.
    pub deletion: Deletion,
    /// The identity key's signature over [`Deletion::signed_bytes`].
    pub signature: Signature,
}

impl SignedDeletion {
    /// Whether the identity key made the signature.
    #[must_use]
    pub fn verifies(&self, identity_key: &IdentityKey) -> bool {
        identity_key.verifies(&self.deletion.signed_bytes(), &self.signature)
    }

    /// The hash of the chain with this entry.
    #[must_use]
    pub fn chain_hash(&self) -> Hash {
        chain_hash(&self.deletion.signed_bytes(), &self.signature)
    }
}

/// One entry of a user's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum UserEvent {
    /// A session is certified.
    Certificate(SignedCertificate),
    /// A session is revoked.
    Revocation(SignedRevocation),
    /// The account ends.
    Deletion(SignedDeletion),
}

impl UserEvent {
    /// Its place in the chain.
    #[must_use]
    pub const fn place(&self) -> Place {
        match self {
            Self::Certificate(signed) => signed.certificate.place,
            Self::Revocation(signed) => signed.revocation.place,
            Self::Deletion(signed) => signed.deletion.place,
        }
    }

    /// The hash that it names as that of the entry before.
    #[must_use]
    pub const fn previous(&self) -> Hash {
        match self {
            Self::Certificate(signed) => signed.certificate.previous,
            Self::Revocation(signed) => signed.revocation.previous,
            Self::Deletion(signed) => signed.deletion.previous,
        }
    }

    /// The hash of the chain with this entry.
    #[must_use]
    pub fn chain_hash(&self) -> Hash {
        match self {
            Self::Certificate(signed) => signed.chain_hash(),
            Self::Revocation(signed) => signed.chain_hash(),
            Self::Deletion(signed) => signed.chain_hash(),
        }
    }
}

/// The hash before the first entry of a user's chain: SHA-256 over label and user.
#[must_use]
pub fn chain_start(user_id: UserId) -> Hash {
    Canonical::new(label::USER_CHAIN).id(user_id.0).hash()
}

fn chain_hash(signed_bytes: &[u8], signature: &Signature) -> Hash {
    Canonical::new(label::USER_EVENT).bytes(signed_bytes).bytes(signature.as_ref()).hash()
}
