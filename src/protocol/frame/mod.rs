//! Every frame that crosses the socket after the handshake.
//!
//! A request carries a number and gets exactly one `ok` or `error` with it; pushes carry none. Enums are
//! adjacently tagged (`type`, `data`), the one form that round-trips in both encodings. Here are the lists of
//! requests, replies and pushes; what they carry is in a file for each subject.

mod backup;
mod chat;
mod device;
mod friends;
mod group_key;
mod info;
mod key;
mod message;
mod profile;
mod secret;
mod session;
mod user;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use self::backup::*;
pub use self::chat::*;
pub use self::device::*;
pub use self::friends::*;
pub use self::group_key::*;
pub use self::info::*;
pub use self::key::*;
pub use self::message::*;
pub use self::profile::*;
pub use self::secret::*;
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
    /// Makes the group key that is due.
    MakeGeneration(MakeGeneration) = "make_generation";
    /// Says that the newest group key is bad.
    RefuseGeneration(RefuseGeneration) = "refuse_generation";
    /// Fetches group keys for one's own user keys.
    FetchGroupKeys(FetchGroupKeys) = "fetch_group_keys";
    /// Links generations of the group key to those before them.
    UploadLinks(UploadLinks) = "upload_links";
    /// Fetches links between generations.
    FetchLinks(FetchLinks) = "fetch_links";
    /// Fetches archives of sender keys.
    FetchArchives(FetchArchives) = "fetch_archives";
    /// Hands replaced keys of one's own sessions on to another of them.
    UploadBackups(UploadBackups) = "upload_backups";
    /// Fetches the keys of older sessions that were handed to this one.
    FetchBackups(Nothing) = "fetch_backups";
    /// Saves one's own profile.
    SetProfile(Box<SetProfile>) = "set_profile";
    /// Asks for a user's profile.
    FetchProfile(FetchProfile) = "fetch_profile";
    /// Hands one's own info key on.
    UploadProfileKeys(UploadProfileKeys) = "upload_profile_keys";
    /// Asks for a user's info key again.
    RequestProfileKey(RequestProfileKey) = "request_profile_key";
    /// Asks for users' active user keys.
    FetchUserKeys(FetchUserKeys) = "fetch_user_keys";
    /// Gives shares of one's recovery code to friends, in place of those that were given before.
    SetShares(Box<SetShares>) = "set_shares";
    /// Fetches one's own set of shares, or the share of another's that one holds.
    FetchShare(FetchShare) = "fetch_share";
    /// Lists requests for recovery: of one's own account, and of those of whom one holds a share.
    ListRecoveryRequests(Nothing) = "list_recovery_requests";
    /// Gives a share to a request.
    ReleaseShare(Box<ReleaseShare>) = "release_share";
    /// Ends a request for recovery of one's own account.
    CancelRecoveryRequest(CancelRecoveryRequest) = "cancel_recovery_request";
    /// Makes, changes or reseals a group secret.
    SetSecret(Box<SetSecret>) = "set_secret";
    /// Ends a group secret.
    DeleteSecret(DeleteSecret) = "delete_secret";
    /// Lists a chat's secrets without their values.
    ListSecrets(ListSecrets) = "list_secrets";
    /// Fetches a group secret.
    FetchSecret(FetchSecret) = "fetch_secret";
    /// Says that a resealed secret is the same as before.
    ConfirmSecret(ConfirmSecret) = "confirm_secret";
    /// Asks what was done with a chat's secrets.
    FetchSecretLog(FetchSecretLog) = "fetch_secret_log";
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
    /// Keys of older sessions were handed to this one: fetch them.
    BackupsReady(Nothing),
    /// A profile was saved, or its key has come.
    ProfileChanged(ProfileChanged),
    /// Readers lack one's own info key.
    ProfileKeyRequested(ProfileKeyRequested),
    /// Somebody asks to recover this user's account, or that of a friend whose share this user holds.
    RecoveryRequested(RecoveryRequest),
    /// Such a request has been cancelled.
    RecoveryCancelled(RecoveryCancelled),
    /// A secret of a chat was set, sealed again or deleted.
    SecretChanged(SecretChanged),
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
    /// To `create_chat`, `change_membership`, `delete_chat`, `make_generation` and `refuse_generation`.
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
    /// To `fetch_group_keys`.
    GroupKeys(GroupKeys),
    /// To `fetch_links`.
    Links(Links),
    /// To `fetch_archives`.
    Archives(Archives),
    /// To `upload_backups`.
    BackupsStored(BackupsStored),
    /// To `fetch_backups`.
    Backups(Backups),
    /// To `fetch_profile`.
    Profile(Box<ShownProfile>),
    /// To `fetch_user_keys`.
    UserKeys(UserKeys),
    /// To `fetch_share`.
    Share(Box<Share>),
    /// To `list_recovery_requests`.
    RecoveryRequests(RecoveryRequests),
    /// To `list_secrets`.
    Secrets(Secrets),
    /// To `fetch_secret`.
    Secret(Box<SealedSecret>),
    /// To `fetch_secret_log`.
    SecretLog(SecretLog),
}
