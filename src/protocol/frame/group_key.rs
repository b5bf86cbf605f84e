//! Frames about group keys and archives.

use serde::{Deserialize, Serialize};

use crate::protocol::binary::WrappedKey;
use crate::protocol::generation_link::GenerationLink;
use crate::protocol::group_key::{Archive, GroupKeyWrap, SignedGeneration, SignedGenerationRefusal};
use crate::protocol::ids::{ChatId, GenerationNo, KeyId, UserKeyId};
use crate::protocol::info_seal::InfoKeySeal;
use crate::protocol::keys::SignedAnnouncement;

/// A new group key of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeGeneration {
    /// The chat.
    pub chat_id: ChatId,
    /// What its maker signs.
    pub generation: SignedGeneration,
    /// One for each member with a user key.
    pub wraps: Vec<GroupKeyWrap>,
}

/// The newest group key of a chat is bad: the next one is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefuseGeneration {
    /// The chat.
    pub chat_id: ChatId,
    /// What the refusing session signs.
    pub refusal: SignedGenerationRefusal,
}

/// A request for the group keys of a chat that were wrapped to one's own user keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchGroupKeys {
    /// The chat.
    pub chat_id: ChatId,
    /// Above this generation.
    pub after: GenerationNo,
}

/// Group keys for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupKeys {
    /// In order of the generation; at most [`GROUP_KEYS_PER_REQUEST_MAX`](crate::protocol::limits::GROUP_KEYS_PER_REQUEST_MAX).
    pub keys: Vec<OwnGroupKey>,
    /// Whether there are more.
    pub more: bool,
}

/// A group key as one user gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnGroupKey {
    /// The generation.
    pub generation: GenerationNo,
    /// The user key to which it is wrapped.
    pub key_id: UserKeyId,
    /// HPKE base mode, associated data [`group_key_aad`](crate::protocol::group_key::group_key_aad).
    pub key: WrappedKey,
    /// The chat's current info key sealed to the recovery key of this generation, if it was.
    pub info_key: Option<InfoKeySeal>,
}

/// Links between generations of a chat's group key, to be kept for newcomers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadLinks {
    /// The chat.
    pub chat_id: ChatId,
    /// Each of another generation; at most [`LINKS_PER_REQUEST_MAX`](crate::protocol::limits::LINKS_PER_REQUEST_MAX).
    pub links: Vec<GenerationLink>,
}

/// A request for links between those generations that this user may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchLinks {
    /// The chat.
    pub chat_id: ChatId,
    /// Above this generation.
    pub after: GenerationNo,
}

/// Links between generations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// In order of the generation; at most [`LINKS_PER_REQUEST_MAX`](crate::protocol::limits::LINKS_PER_REQUEST_MAX).
    pub links: Vec<GenerationLink>,
    /// Whether there are more.
    pub more: bool,
}

/// A request for archives of sender keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchArchives {
    /// The chat.
    pub chat_id: ChatId,
    /// At most [`ARCHIVES_PER_REQUEST_MAX`](crate::protocol::limits::ARCHIVES_PER_REQUEST_MAX).
    pub key_ids: Vec<KeyId>,
}

/// Archives of sender keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archives {
    /// Of those keys that exist in the chat and whose messages this user may read.
    pub keys: Vec<ArchivedKey>,
}

/// A sender key with its archives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedKey {
    /// What the sender's session says of it: whoever made an archive, what is in it is checked against this.
    pub announcement: SignedAnnouncement,
    /// The sender's own first.
    pub archives: Vec<Archive>,
    /// Whether some session of a member holds a copy: who lacks the key may ask for it.
    pub has_holder: bool,
}
