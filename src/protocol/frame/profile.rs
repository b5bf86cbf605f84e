//! Frames about users' profiles: saved, fetched, and their keys handed on.

use serde::{Deserialize, Serialize};

use super::session::Cursor;
use crate::protocol::ids::{InfoKeyId, Revision, SessionId, UserId};
use crate::protocol::profile::{OwnKeyWrap, ProfileKeyWrap, SignedProfile};
use crate::protocol::strongbox::PublicUserKey;

/// Saves one's own profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetProfile {
    /// What the profile says from now on, signed by the session that asks.
    pub profile: SignedProfile,
    /// Under a new key: that key for its readers, the asking session among them; at most
    /// [`PROFILE_KEY_WRAPS_MAX`](crate::protocol::limits::PROFILE_KEY_WRAPS_MAX), those who are left out are asked for.
    /// Empty under the current key.
    pub keys: Vec<ProfileKeyWrap>,
    /// Under a new key: that key for the user's own user key, if there is one.
    pub own_key: Option<OwnKeyWrap>,
}

/// Hands one's own current info key on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadProfileKeys {
    /// At most [`PROFILE_KEY_WRAPS_MAX`](crate::protocol::limits::PROFILE_KEY_WRAPS_MAX).
    pub keys: Vec<ProfileKeyWrap>,
}

/// Asks for a user's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchProfile {
    /// Whose.
    pub user_id: UserId,
}

/// Asks for a user's info key again: the wrap that this session was given, if any, is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestProfileKey {
    /// Whose.
    pub user_id: UserId,
}

/// A user's profile, as a reader is given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownProfile {
    /// Whose it is.
    pub user_id: UserId,
    /// What was saved last; none if nothing was, or nothing is for this reader.
    pub profile: Option<SignedProfile>,
    /// Its info key for this session, if there is a wrap of it.
    pub key: Option<ProfileKeyWrap>,
    /// Of one's own: the user key to which the next info key is sealed, if there is one.
    pub user_key: Option<PublicUserKey>,
}

/// A profile that this session may read was saved, or its key has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileChanged {
    /// Whose.
    pub user_id: UserId,
    /// The newest revision, by the server's word.
    pub revision: Revision,
}

/// Readers lack one's own info key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileKeyRequested {
    /// The current key.
    pub key_id: InfoKeyId,
    /// Who lacks it; at most [`PROFILE_KEY_WRAPS_MAX`](crate::protocol::limits::PROFILE_KEY_WRAPS_MAX).
    pub session_ids: Vec<SessionId>,
    /// Chats in which they are, and how far the logs of these had come: the sessions are recipients by then.
    pub chats: Vec<Cursor>,
}
