//! Backups of sessions' X25519 keys: what one session of a user hands another, so that the other opens what was made for
//! the first.
//!
//! Invariants: B1 no key with which a live session receives is ever in one: a session that hands its own on replaces it
//! in the same transaction. So whoever steals what a session was handed opens nothing that is sealed later. B2 what
//! opens must have the public half that the user's identity key certified for the session named.

use serde::{Deserialize, Serialize};

use super::binary::{ExchangeKey, Signature, SigningKey, WrappedKey};
use super::canonical::{Canonical, label};
use super::ids::{SessionId, UserId};
use super::verify::Verifier;

/// The X25519 private half of an older session, wrapped to another session of the same user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKeyBackup {
    /// Who may open it.
    pub session_id: SessionId,
    /// Whose key it is.
    pub backed_up_session_id: SessionId,
    /// Whose session that is, and the recipient too.
    pub backed_up_user_id: UserId,
    /// The public half, as a certificate of that session has it.
    pub backed_up_public_key: ExchangeKey,
    /// The private half by HPKE base mode; associated data [`SessionKeyBackup::aad`].
    pub key: WrappedKey,
    /// Who wrapped it.
    pub wrapped_by_session_id: SessionId,
    /// That session's signature over [`SessionKeyBackup::signed_bytes`].
    pub signature: Signature,
}

impl SessionKeyBackup {
    /// The signed bytes: user, backed-up session, its public key, wrapping session, recipient, wrapped key.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        self.fields(label::SESSION_KEY_BACKUP).bytes(self.key.as_ref()).finish()
    }

    /// Associated data of the wrap: user, backed-up session, its public key, wrapping session, recipient.
    #[must_use]
    pub fn aad(&self) -> Vec<u8> {
        self.fields(label::AAD_SESSION_KEY).finish()
    }

    /// Whether the wrapping session's key made the signature.
    #[must_use]
    pub fn verifies(&self, key: &SigningKey) -> bool {
        key.verifies(&self.signed_bytes(), &self.signature)
    }

    fn fields(&self, label: &str) -> Canonical {
        Canonical::new(label)
            .id(self.backed_up_user_id.0)
            .id(self.backed_up_session_id.0)
            .bytes(self.backed_up_public_key.as_ref())
            .id(self.wrapped_by_session_id.0)
            .id(self.session_id.0)
    }
}
