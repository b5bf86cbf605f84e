//! Frames about what chats are called: saved, shown, and their keys handed on.

use serde::{Deserialize, Serialize};

use crate::protocol::ids::{ChatId, GenerationNo, InfoKeyId, Seq, SessionId};
use crate::protocol::info::SignedInfo;
use crate::protocol::info_seal::InfoKeySeal;
use crate::protocol::keys::{InfoKeyWrap, SealedName};

/// Saves a chat's name and description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetChatInfo {
    /// The chat.
    pub chat_id: ChatId,
    /// What it is called from now on, signed by the session that asks.
    pub info: SignedInfo,
    /// Under a new key: that key for the chat's recipients, the asking session among them; at most
    /// [`INFO_KEY_WRAPS_PER_CHAT_MAX`](crate::protocol::limits::INFO_KEY_WRAPS_PER_CHAT_MAX), those who are left out
    /// are asked for. Empty under the current key.
    pub info_keys: Vec<InfoKeyWrap>,
    /// Under a new key: that key for the current recovery key, if there is one.
    pub seal: Option<InfoKeySeal>,
}

/// Hands a chat's current info key on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadInfoKeys {
    /// The chat.
    pub chat_id: ChatId,
    /// At most [`INFO_KEY_WRAPS_PER_CHAT_MAX`](crate::protocol::limits::INFO_KEY_WRAPS_PER_CHAT_MAX).
    pub info_keys: Vec<InfoKeyWrap>,
    /// The same key for the current recovery key.
    pub seal: Option<InfoKeySeal>,
}

/// Asks for a chat's info key again: the wrap that this session was given, if any, is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestInfoKey {
    /// The chat.
    pub chat_id: ChatId,
}

/// What a chat is called, pushed to each of its recipients when it changes, and to who is given the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatInfoChanged {
    /// The chat.
    pub chat_id: ChatId,
    /// The newest entry when this was read: who wraps and signs here is known by then.
    pub last_seq: Seq,
    /// The name that the chat was made with, as long as none was saved.
    pub name: Option<SealedName>,
    /// What was saved.
    pub info: Option<SignedInfo>,
    /// The info key for this session, if there is a wrap of it.
    pub info_key: Option<InfoKeyWrap>,
}

/// Sessions or the recovery key lack an info key that this session may hand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoKeyRequested {
    /// The chat.
    pub chat_id: ChatId,
    /// The newest entry when this was read: the sessions are recipients by then.
    pub last_seq: Seq,
    /// The current key.
    pub key_id: InfoKeyId,
    /// Who lacks it; at most
    /// [`INFO_KEY_WRAPS_PER_CHAT_MAX`](crate::protocol::limits::INFO_KEY_WRAPS_PER_CHAT_MAX).
    pub session_ids: Vec<SessionId>,
    /// The generation to whose recovery key it is to be sealed, if it is to be.
    pub generation: Option<GenerationNo>,
}
