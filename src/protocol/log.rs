//! A chat's log: its entries and the hash that chains them (P3).

use serde::{Deserialize, Serialize};

use super::binary::{Hash, Signature};
use super::canonical::{Canonical, label};
use super::certificate::{SignedCertificate, SignedDeletion, SignedRevocation};
use super::envelope::Envelope;
use super::group_key::{SignedGeneration, SignedGenerationRefusal, UserKeyEntry};
use super::ids::{ChatId, Seq, SessionId, Timestamp, UserId};
use super::membership::SignedChange;
use super::strongbox::user_key_bytes;

/// One entry of a chat's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its place: 1, 2, 3 … without gaps.
    pub seq: Seq,
    /// When the server took it, by the database's clock.
    pub created_at: Timestamp,
    /// [`log_hash`] of the log up to and with this entry.
    pub log_hash: Hash,
    /// What happened.
    pub body: EntryBody,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum EntryBody {
    /// A revision of a message.
    Message(Envelope),
    /// A membership change.
    Membership(SignedChange),
    /// A session of a member becomes a recipient.
    SessionIn(SignedCertificate),
    /// A session of a member is a recipient no longer.
    SessionOut(SessionOut),
    /// The account of a member ends: they and their sessions go, and what they owned passes on by rule.
    AccountDeleted(SignedDeletion),
    /// The server's operator ended the account of a member: as [`EntryBody::AccountDeleted`], but nobody signs it. It is
    /// the server's word alone, and clients show it as such.
    AccountRemoved {
        /// The user.
        user_id: UserId,
    },
    /// A member has a user key, another one than before, or none any more.
    UserKey(UserKeyEntry),
    /// The chat has a new group key.
    Generation(SignedGeneration),
    /// A member found the newest group key bad.
    GenerationRefused(SignedGenerationRefusal),
}

/// Why a session is a recipient no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum SessionOut {
    /// Its user revoked it.
    Revoked(SignedRevocation),
    /// Its time ran out; nobody signs that, and it is valid when the entry is not older than the certificate's
    /// `expired_at`.
    Expired {
        /// The user.
        user_id: UserId,
        /// The session.
        session_id: SessionId,
    },
}

impl SessionOut {
    /// The session that goes.
    #[must_use]
    pub const fn session_id(&self) -> SessionId {
        match self {
            Self::Revoked(signed) => signed.revocation.session_id,
            Self::Expired { session_id, .. } => *session_id,
        }
    }
}

impl EntryBody {
    /// The signed bytes, and the signature over them (none for an expiry and for the removal of an account).
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> (Vec<u8>, Option<&Signature>) {
        match self {
            Self::Message(envelope) => (envelope.signed_bytes(chat_id), Some(&envelope.signature)),
            Self::Membership(signed) => (signed.change.signed_bytes(chat_id), Some(&signed.signature)),
            Self::SessionIn(signed) => (signed.certificate.signed_bytes(), Some(&signed.signature)),
            Self::SessionOut(SessionOut::Revoked(signed)) => {
                (signed.revocation.signed_bytes(), Some(&signed.signature))
            }
            Self::AccountDeleted(signed) => (signed.deletion.signed_bytes(), Some(&signed.signature)),
            Self::AccountRemoved { user_id } => (Canonical::new(label::ACCOUNT_REMOVAL).id(user_id.0).finish(), None),
            Self::UserKey(UserKeyEntry::Set(key)) => {
                (user_key_bytes(key.user_id, key.key_id, &key.public_key), Some(&key.signature))
            }
            Self::UserKey(UserKeyEntry::Withdrawn(signed)) => {
                (signed.withdrawal.signed_bytes(), Some(&signed.signature))
            }
            Self::Generation(signed) => (signed.generation.signed_bytes(chat_id), Some(&signed.signature)),
            Self::GenerationRefused(signed) => (signed.refusal.signed_bytes(chat_id), Some(&signed.signature)),
            Self::SessionOut(SessionOut::Expired { user_id, session_id }) => {
                (Canonical::new(label::EXPIRY).id(user_id.0).id(session_id.0).finish(), None)
            }
        }
    }

    /// The entry's digest, which goes into the log's hash: SHA-256 over label, signed bytes and signature
    /// (empty if none).
    #[must_use]
    pub fn digest(&self, chat_id: ChatId) -> Hash {
        let (signed_bytes, signature) = self.signed_bytes(chat_id);
        Canonical::new(label::LOG_ENTRY).bytes(&signed_bytes).bytes(signature.map_or(&[], AsRef::as_ref)).hash()
    }
}

/// The hash before the first entry: SHA-256 over label and chat.
#[must_use]
pub fn log_start(chat_id: ChatId) -> Hash {
    Canonical::new(label::LOG).id(chat_id.0).hash()
}

/// The hash of a log up to an entry: SHA-256 over label, chat, the hash before, seq, `created_at`, the entry's digest.
#[must_use]
pub fn log_hash(chat_id: ChatId, previous: &Hash, seq: Seq, created_at: Timestamp, digest: &Hash) -> Hash {
    Canonical::new(label::LOG_HASH)
        .id(chat_id.0)
        .bytes(previous.as_ref())
        .u64(seq.get())
        .u64(created_at.get())
        .bytes(digest.as_ref())
        .hash()
}

/// Makes the entry that follows.
#[must_use]
pub fn next_entry(
    chat_id: ChatId,
    previous_seq: Seq,
    previous_hash: &Hash,
    created_at: Timestamp,
    body: EntryBody,
) -> LogEntry {
    let seq = previous_seq.next();
    let log_hash = log_hash(chat_id, previous_hash, seq, created_at, &body.digest(chat_id));
    LogEntry { seq, created_at, log_hash, body }
}
