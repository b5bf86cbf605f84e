//! Frames about chats and their members.

use serde::{Deserialize, Serialize};

use crate::protocol::ids::{ChatId, Seq, UserId};
use crate::protocol::info::SignedInfo;
use crate::protocol::keys::{InfoKeyWrap, SealedName};
use crate::protocol::membership::SignedChange;
use crate::protocol::username::Username;

/// A new chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateChat {
    /// The chat.
    pub chat_id: ChatId,
    /// The signed `create`.
    pub change: SignedChange,
    /// The encrypted name.
    pub name: Option<SealedName>,
    /// The info key for the creator's sessions.
    pub info_keys: Vec<InfoKeyWrap>,
}

/// A change of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeMembership {
    /// The chat.
    pub chat_id: ChatId,
    /// The signed change; neither `create` nor `delete`.
    pub change: SignedChange,
    /// With `add`: the chat's info key for the newcomer's sessions.
    #[serde(default)]
    pub info_keys: Vec<InfoKeyWrap>,
}

/// The end of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteChat {
    /// The chat.
    pub chat_id: ChatId,
    /// The signed `delete`.
    pub change: SignedChange,
}

/// A membership change is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The seq of the change; 0 for a deletion, which leaves no log.
    pub seq: Seq,
    /// Whether this is the answer to a repeat.
    pub duplicate: bool,
}

/// A chat is not one's own any more, by the server's word: this user was removed, or the chat has ended, while its
/// entries were being caught up with. Whoever asks for it is told `unknown_chat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatGone {
    /// The chat.
    pub chat_id: ChatId,
}

/// A chat has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatDeleted {
    /// The chat.
    pub chat_id: ChatId,
    /// The owner's signed `delete`.
    pub change: SignedChange,
}

/// One's own chats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chats {
    /// In order of their ids.
    pub chats: Vec<ChatInfo>,
}

/// A chat as its member lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatInfo {
    /// The chat.
    pub chat_id: ChatId,
    /// The seq of the entry that made this user a member.
    pub joined_seq: Seq,
    /// The seq from which on this user may read: that of their joining, or under a shared history where that began.
    pub readable_from: Seq,
    /// The newest entry.
    pub last_seq: Seq,
    /// This session's cursor as the server keeps it.
    pub cursor: Seq,
    /// Messages of other users after the cursor, at most [`UNREAD_MAX`](crate::protocol::limits::UNREAD_MAX): the
    /// server's word, which cannot tell a text from a reaction or a receipt.
    #[serde(default)]
    pub unread: u64,
    /// The encrypted name that the chat was made with, as long as none was saved.
    pub name: Option<SealedName>,
    /// The name and description that were saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<SignedInfo>,
    /// The info key for this session.
    pub info_key: Option<InfoKeyWrap>,
}

/// A request for the names of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMembers {
    /// The chat.
    pub chat_id: ChatId,
}

/// The names of a chat's members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNames {
    /// In order of their ids.
    pub members: Vec<MemberName>,
}

/// The name of a member: the server's word, which a client pins to the identity key that the log gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberName {
    /// The user.
    pub user_id: UserId,
    /// The name in its normal form.
    pub username: Username,
}
