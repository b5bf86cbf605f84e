//! Every frame that crosses the socket after the handshake.
//!
//! A request carries a number and gets exactly one `ok` or `error` with it; pushes carry none. Enums are
//! adjacently tagged (`type`, `data`), the one form that round-trips in both encodings. Here are the lists of
//! requests, replies and pushes; what they carry is in a file for each subject.

mod chat;
mod device;
mod info;
mod key;
mod message;
mod session;
mod user;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use self::chat::*;
pub use self::device::*;
pub use self::info::*;
pub use self::key::*;
pub use self::message::*;
pub use self::session::*;
pub use self::user::*;
use super::error::{ErrorCode, ErrorDetails};
use super::ids::RequestId;

/// The subprotocol of JSON text frames.
pub const SUBPROTOCOL_JSON: &str = "sealcast.v1.json";

/// The subprotocol of MessagePack binary frames.
pub const SUBPROTOCOL_MSGPACK: &str = "sealcast.v1.msgpack";

/// A frame from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFrame {
    /// Chosen by the client; its answer carries it.
    pub id: RequestId,
    /// What is asked.
    pub request: Request,
}

macro_rules! requests {
    ($($(#[$doc:meta])* $variant:ident($payload:ty) = $name:literal;)*) => {
        /// What a client asks.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "type", content = "data")]
        pub enum Request {
            $($(#[$doc])* #[serde(rename = $name)] $variant($payload),)*
        }

        impl Request {
            /// The `type` of every request.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// The request's `type`.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }
        }
    };
}

requests! {
    /// Proves who is there; the first request of a connection.
    Authenticate(Authenticate) = "authenticate";
    /// Says what is known of each chat; brings what is newer, then `live`.
    Resume(Resume) = "resume";
    /// Asks for a user by exact name.
    LookupUser(LookupUser) = "lookup_user";
    /// Lists one's own sessions.
    ListSessions(Nothing) = "list_sessions";
    /// Makes a pending session live.
    ApproveSession(ApproveSession) = "approve_session";
    /// Ends a session of one's own.
    RevokeSession(RevokeSession) = "revoke_session";
    /// Fetches what the approving session handed over; the one request of a session that was just approved.
    FetchHandover(Nothing) = "fetch_handover";
    /// Makes a chat.
    CreateChat(CreateChat) = "create_chat";
    /// Adds or removes a member, leaves, changes rights, owner or history policy, or makes all keys stale.
    ChangeMembership(ChangeMembership) = "change_membership";
    /// Ends a chat.
    DeleteChat(DeleteChat) = "delete_chat";
    /// Lists one's own chats.
    ListChats(Nothing) = "list_chats";
    /// Asks for the names of a chat's members; who they are the log itself says.
    ListMembers(ListMembers) = "list_members";
    /// Sends a message.
    Send(Box<Send>) = "send";
    /// Sends copies ahead that do not fit in the frame of their message.
    StageCopies(StageCopies) = "stage_copies";
    /// Reads a page of the log.
    History(History) = "history";
    /// Reads the entries of the log that are not messages, from the first on: what a newcomer folds.
    Events(Events) = "events";
    /// Fetches keys with one's own copies.
    Keys(Keys) = "keys";
    /// Says up to where this session lacks nothing.
    AdvanceCursor(AdvanceCursor) = "advance_cursor";
    /// Asks for an answer.
    Ping(Nothing) = "ping";
    /// Asks for users' chains of certificates and revocations.
    UserEvents(UserEvents) = "user_events";
    /// Names a session of one's own.
    SetLabel(SetLabel) = "set_label";
    /// Ends one's own account.
    DeleteAccount(DeleteAccount) = "delete_account";
    /// Asks for what one has set for oneself.
    FetchSettings(Nothing) = "fetch_settings";
    /// Says who may add one to chats.
    SetAddPolicy(SetAddPolicy) = "set_add_policy";
    /// Blocks a user, or no longer.
    SetBlock(SetBlock) = "set_block";
    /// Sends a signal to who is connected now.
    Signal(Signal) = "signal";
    /// Asks how far messages have been delivered.
    ListDeliveries(ListDeliveries) = "list_deliveries";
    /// Asks for copies that this session lacks.
    RequestKeys(RequestKeys) = "request_keys";
    /// Hands on further copies of keys.
    UploadCopies(UploadCopies) = "upload_copies";
    /// Says that a copy is bad.
    RefuseCopy(RefuseCopy) = "refuse_copy";
    /// Saves a chat's name and description.
    SetChatInfo(Box<SetChatInfo>) = "set_chat_info";
    /// Hands a chat's info key on.
    UploadInfoKeys(UploadInfoKeys) = "upload_info_keys";
    /// Asks for a chat's info key again.
    RequestInfoKey(RequestInfoKey) = "request_info_key";
}

/// A request or answer without fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Nothing {}

/// A map alone is read as nothing: what serde makes for a structure without fields takes an empty list too, and in
/// MessagePack any bytes.
impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Nothing;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Nothing, A::Error> {
                while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Nothing {})
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A frame from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The first frame of a connection.
    Hello(Hello),
    /// A request is done.
    Ok(Ok),
    /// A request is refused.
    Error(Error),
    /// A committed entry, live.
    Entry(Entry),
    /// A key with this session's copy; comes before the first entry that needs it.
    Key(Key),
    /// Committed entries, on catch-up.
    Page(Page),
    /// All chats have caught up; what comes now is new.
    Live(Nothing),
    /// A chat has ended.
    ChatDeleted(ChatDeleted),
    /// A chat is not one's own any more.
    ChatGone(ChatGone),
    /// This pending session is live: fetch the hand-over.
    Approved(Nothing),
    /// A session of this user asks to be approved.
    SessionPending(PendingSession),
    /// The server goes; come back after the time given.
    Bye(Bye),
    /// A signal of a session of the chat.
    Signal(Signal),
    /// A session has come further in a chat.
    Delivered(Delivered),
    /// Somebody lacks copies that this session may hand on.
    KeyRequested(KeyRequested),
    /// A copy was refused.
    CopyRefused(CopyRefused),
    /// What a chat is called, or its key has come.
    ChatInfo(Box<ChatInfoChanged>),
    /// Sessions lack an info key that this session may hand on.
    InfoKeyRequested(InfoKeyRequested),
}

/// A request is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ok {
    /// The request.
    pub id: RequestId,
    /// Its result.
    pub result: Reply,
}

/// A request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// The request; absent when it could not be read.
    pub id: Option<RequestId>,
    /// Why.
    pub code: ErrorCode,
    /// For a developer's eyes.
    pub message: String,
    /// Whether the same may succeed later.
    pub retryable: bool,
    /// What a client needs to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<ErrorDetails>>,
}

/// The result of a request, by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Reply {
    /// Done; nothing to tell.
    Done(Nothing),
    /// To `authenticate`.
    Authenticated(Authenticated),
    /// To `lookup_user`.
    User(UserInfo),
    /// To `list_sessions`.
    Sessions(Sessions),
    /// To `fetch_handover`.
    Handover(Handover),
    /// To `create_chat`, `change_membership` and `delete_chat`.
    Changed(Changed),
    /// To `list_chats`.
    Chats(Chats),
    /// To `list_members`.
    Members(MemberNames),
    /// To `send`.
    Sent(SendOk),
    /// To `history` and `events`.
    Page(Page),
    /// To `keys`.
    Keys(KeyList),
    /// To `user_events`.
    Chains(Chains),
    /// To `fetch_settings`.
    Settings(Settings),
    /// To `list_deliveries`.
    Deliveries(Deliveries),
}
