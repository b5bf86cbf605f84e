//! Frames about group secrets.

use serde::{Deserialize, Serialize};

use crate::protocol::binary::Blob;
use crate::protocol::group_secret::{SecretAction, SignedSecret, SignedSecretDeletion};
use crate::protocol::ids::{ChatId, GenerationNo, Revision, SecretId, SecretLogNo, Seq, SessionId, Timestamp, UserId};

/// A new revision of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSecret {
    /// The chat.
    pub chat_id: ChatId,
    /// What its maker signs.
    pub secret: SignedSecret,
    /// The ciphertext of the value.
    pub value: Blob,
}

/// The end of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSecret {
    /// The chat.
    pub chat_id: ChatId,
    /// What is signed.
    pub deletion: SignedSecretDeletion,
}

/// A request for a chat's secrets without their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSecrets {
    /// The chat.
    pub chat_id: ChatId,
    /// Behind this one; from the first on if it is none.
    pub after: Option<SecretId>,
}

/// A chat's secrets, a page in order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Those that are there.
    pub secrets: Vec<ListedSecret>,
    /// Those that were deleted; only the newest 1,000 of a chat are told.
    pub deleted: Vec<SignedSecretDeletion>,
    /// The chat's newest entry: with it the signers are known.
    pub last_seq: Seq,
    /// The newest entry by which a member ceased to be one; 0 if there is none. A secret that was changed before is
    /// known to who is gone.
    pub removal_seq: Seq,
    /// Who can open the generations of the page.
    pub openers: Vec<Openers>,
    /// Whether there are more.
    pub more: bool,
}

/// A secret in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedSecret {
    /// Its newest revision.
    pub secret: SignedSecret,
    /// Who set it last; besides a manager, only they delete it.
    pub writer_id: UserId,
    /// When it was set last, by the database's clock.
    pub changed_at: Timestamp,
    /// The generation of what the newest revision was made of, while that is kept.
    pub kept_generation: Option<GenerationNo>,
}

/// Members who hold a wrap of a generation's group key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Openers {
    /// The generation.
    pub generation: GenerationNo,
    /// Some of them, at most 10; without any, what is sealed under the generation is lost.
    pub users: Vec<UserId>,
}

/// A request for one secret with its value. It is noted in the log of the chat's secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSecret {
    /// The chat.
    pub chat_id: ChatId,
    /// The secret.
    pub secret_id: SecretId,
}

/// A secret with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// The chat's newest entry: with it the signers are known.
    pub last_seq: Seq,
    /// The newest revision.
    pub current: SealedRevision,
    /// What it was made of, until a second member has opened both.
    pub kept: Option<SealedRevision>,
}

/// A revision with the ciphertext of its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRevision {
    /// The revision.
    pub secret: SignedSecret,
    /// The ciphertext of the value.
    pub value: Blob,
}

/// Says that a resealed revision says the same as what it was made of, which need not be kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmSecret {
    /// The chat.
    pub chat_id: ChatId,
    /// The secret.
    pub secret_id: SecretId,
    /// The resealed revision.
    pub revision: Revision,
}

/// A request for what was done with a chat's secrets, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSecretLog {
    /// The chat.
    pub chat_id: ChatId,
    /// Before this one; the newest if it is none.
    pub before: Option<SecretLogNo>,
}

/// What was done with a chat's secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretLog {
    /// The newest first.
    pub entries: Vec<SecretLogEntry>,
    /// Whether there are older ones.
    pub more: bool,
}

/// One thing that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretLogEntry {
    /// Its number, which grows.
    pub number: SecretLogNo,
    /// The secret.
    pub secret_id: SecretId,
    /// Who.
    pub user_id: UserId,
    /// With which session.
    pub session_id: SessionId,
    /// What.
    pub action: SecretAction,
    /// The revision that was made, read or confirmed.
    pub revision: Revision,
    /// When, by the database's clock.
    pub created_at: Timestamp,
}

/// A secret was set, sealed again or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretChanged {
    /// The chat.
    pub chat_id: ChatId,
    /// The secret.
    pub secret_id: SecretId,
    /// Its newest revision.
    pub revision: Revision,
}
