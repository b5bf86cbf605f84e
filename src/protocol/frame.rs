//! Every frame that crosses the socket after the handshake.
//!
//! A request carries a number and gets exactly one `ok` or `error` with it; pushes carry none. Enums are
//! adjacently tagged (`type`, `data`), the one form that round-trips in both encodings.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, Hash, IdentityKey, Mac, Nonce, Signature, SigningKey};
use super::binary::{ExchangeKey, WrappedKey};
use super::canonical::{Canonical, label};
use super::certificate::{SignedCertificate, SignedRevocation};
use super::envelope::Envelope;
use super::error::{ErrorCode, ErrorDetails};
use super::ids::{ChatId, KeyId, Place, RequestId, Seq, SessionId, Timestamp, UserId};
use super::keys::{InfoKeyWrap, KeyCopy, SealedName, SignedAnnouncement};
use super::log::LogEntry;
use super::membership::SignedChange;
use super::username::Username;

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
    /// Adds or removes a member, or leaves.
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
}

/// A request or answer without fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// The login of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticate {
    /// The session.
    pub session_id: SessionId,
    /// Its signature over [`login_bytes`].
    pub signature: Signature,
}

/// What a session signs to log in: the server's nonce, the server's name, the session.
#[must_use]
pub fn login_bytes(nonce: &Nonce, server_name: &str, session_id: SessionId) -> Vec<u8> {
    Canonical::new(label::LOGIN).bytes(nonce.as_ref()).text(server_name).id(session_id.0).finish()
}

/// Where a session stands in its chats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// At most [`CURSORS_MAX`](super::limits::CURSORS_MAX). A chat that is not named starts at its user's join.
    pub cursors: Vec<Cursor>,
}

/// A place in a chat's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The chat.
    pub chat_id: ChatId,
    /// The seq up to which the session lacks nothing.
    pub seq: Seq,
}

/// A lookup by exact name; there is no other way to find a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupUser {
    /// The name.
    pub username: Username,
}

/// The approval of a pending session by a live one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveSession {
    /// The certificate of the pending session.
    pub certificate: SignedCertificate,
    /// Sealed to the pending session: identity key, info keys, anchors.
    pub handover: Blob,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeSession {
    /// Signed by the identity key or a live session of the same user.
    pub revocation: SignedRevocation,
}

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
    /// The signed `add`, `remove` or `leave`.
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

/// A request for the names of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMembers {
    /// The chat.
    pub chat_id: ChatId,
}

/// A message with all that lets every recipient open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// The chat.
    pub chat_id: ChatId,
    /// The message.
    pub envelope: Envelope,
    /// Its key, if the server does not have it yet.
    #[serde(default)]
    pub new_key: Option<NewKey>,
    /// Further copies of a key that the server has.
    #[serde(default)]
    pub add_copies: Vec<KeyCopy>,
}

/// A sender key that comes with its first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// What the session says of it.
    pub announcement: SignedAnnouncement,
    /// A copy for each recipient, unless they went ahead.
    pub copies: Vec<KeyCopy>,
    /// [`staged_hash`](super::keys::staged_hash) of all copies that went ahead in parts; then `copies` is empty.
    #[serde(default)]
    pub staged: Option<Hash>,
}

/// A part of a list of copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCopies {
    /// The chat.
    pub chat_id: ChatId,
    /// The key.
    pub key_id: KeyId,
    /// Which part this is: 0 up to `parts` - 1.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
    /// At most [`COPIES_PER_FRAME_MAX`](super::limits::COPIES_PER_FRAME_MAX).
    pub copies: Vec<KeyCopy>,
}

/// Which way a page goes from its seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To higher seqs.
    After,
    /// To lower seqs.
    Before,
}

/// A page of the log; entries are in ascending order whichever way it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The chat.
    pub chat_id: ChatId,
    /// Which way.
    pub direction: Direction,
    /// From here, itself not included.
    pub seq: Seq,
    /// At most this many entries, and at most [`PAGE_ENTRIES_MAX`](super::limits::PAGE_ENTRIES_MAX).
    pub limit: u32,
}

/// A page of the entries that are not messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The chat.
    pub chat_id: ChatId,
    /// Above this seq.
    pub after: Seq,
    /// Below this seq.
    pub before: Seq,
}

/// A request for keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The chat.
    pub chat_id: ChatId,
    /// At most [`KEYS_PER_REQUEST_MAX`](super::limits::KEYS_PER_REQUEST_MAX).
    pub key_ids: Vec<KeyId>,
}

/// How far a session has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvanceCursor {
    /// The chat.
    pub chat_id: ChatId,
    /// Never goes back: a lower one is answered `ok` and changes nothing.
    pub seq: Seq,
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
    /// This pending session is live: fetch the hand-over.
    Approved(Nothing),
    /// A session of this user asks to be approved.
    SessionPending(PendingSession),
    /// The server goes; come back after the time given.
    Bye(Bye),
}

/// What a server says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// For one login, on this connection.
    pub nonce: Nonce,
    /// What clients pin and sign.
    pub server_name: String,
    /// The server's version.
    pub server_version: String,
    /// The database's clock.
    pub time: Timestamp,
    /// Seconds within which the login must come.
    pub login_timeout_s: u64,
    /// Seconds between the server's pings; silence of twice that ends the connection.
    pub ping_interval_s: u64,
    /// Messages that one sender key may carry, in a chat of so many recipients as `key_recipients_large` and fewer.
    pub key_messages_max: u64,
    /// The same in larger chats.
    pub key_messages_max_large: u64,
    /// Where larger chats begin.
    pub key_recipients_large: u64,
    /// Seconds that one sender key may serve.
    pub key_age_max_s: u64,
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
}

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated {
    /// The user.
    pub user_id: UserId,
    /// `pending` or `live`.
    pub state: SessionState,
}

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Waits for approval.
    Pending,
    /// May do everything.
    Live,
    /// Its time ran out.
    Expired,
    /// Its user ended it.
    Revoked,
}

/// A user as another sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// The user.
    pub user_id: UserId,
    /// The name in its normal form.
    pub username: Username,
    /// The identity key, which clients pin.
    pub identity_key: IdentityKey,
    /// Certificates of the live sessions.
    pub sessions: Vec<SignedCertificate>,
}

/// One's own sessions and the head of one's own chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Every session that is not pending.
    pub sessions: Vec<SessionInfo>,
    /// Those that wait for approval.
    pub pending: Vec<PendingSession>,
    /// The place of the newest entry of the chain.
    pub place: Place,
    /// Its hash.
    pub hash: Hash,
}

/// One session of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its certificate.
    pub certificate: SignedCertificate,
    /// Its state.
    pub state: SessionState,
    /// When it was last connected, by the database's clock.
    pub last_seen_at: Option<Timestamp>,
}

/// A session that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSession {
    /// The session.
    pub session_id: SessionId,
    /// Its X25519 key.
    pub public_key: ExchangeKey,
    /// Its Ed25519 key.
    pub signing_public_key: SigningKey,
    /// HMAC-SHA-256 under the link code's secret over [`link_bytes`]: the server cannot make it.
    pub proof: Mac,
    /// When it asked.
    pub created_at: Timestamp,
}

/// What the link code authenticates: user, session, both public keys.
#[must_use]
pub fn link_bytes(
    user_id: UserId,
    session_id: SessionId,
    public_key: &ExchangeKey,
    signing_public_key: &SigningKey,
) -> Vec<u8> {
    Canonical::new(label::LINK)
        .id(user_id.0)
        .id(session_id.0)
        .bytes(public_key.as_ref())
        .bytes(signing_public_key.as_ref())
        .finish()
}

/// What a new session gets from the one that approved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The new session's certificate.
    pub certificate: SignedCertificate,
    /// Sealed to the new session.
    pub handover: Blob,
}

/// A membership change is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The seq of the change; 0 for a deletion, which leaves no log.
    pub seq: Seq,
    /// Whether this is the answer to a repeat.
    pub duplicate: bool,
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
    /// The newest entry.
    pub last_seq: Seq,
    /// This session's cursor as the server keeps it.
    pub cursor: Seq,
    /// The encrypted name.
    pub name: Option<SealedName>,
    /// The name's info key for this session.
    pub info_key: Option<InfoKeyWrap>,
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

/// A message is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOk {
    /// Its place.
    pub seq: Seq,
    /// Its time, by the database's clock.
    pub created_at: Timestamp,
    /// The log's hash with it.
    pub log_hash: Hash,
    /// Whether this is the answer to a repeat.
    pub duplicate: bool,
    /// Members without any live session.
    pub unreachable: Vec<UserId>,
    /// Sessions that refused their copy for good.
    pub refused: Vec<SessionId>,
}

impl SendOk {
    /// The result of the message of an entry: committed just now, everybody reached.
    #[must_use]
    pub const fn of(entry: &LogEntry) -> Self {
        Self {
            seq: entry.seq,
            created_at: entry.created_at,
            log_hash: entry.log_hash,
            duplicate: false,
            unreachable: Vec::new(),
            refused: Vec::new(),
        }
    }
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The chat.
    pub chat_id: ChatId,
    /// The entry.
    pub entry: LogEntry,
}

/// A sender key with one recipient's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The chat.
    pub chat_id: ChatId,
    /// The key.
    pub key: OwnKey,
}

/// A sender key as one recipient gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnKey {
    /// What the sender's session says of it.
    pub announcement: SignedAnnouncement,
    /// The copy for this session; absent if there is none.
    pub key: Option<WrappedKey>,
}

/// Keys by request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// Those that exist in the chat.
    pub keys: Vec<OwnKey>,
}

/// A range of a chat's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The chat.
    pub chat_id: ChatId,
    /// The range covered is above this seq …
    pub after: Seq,
    /// … up to and with this one; nothing of what was asked for is missing in between.
    pub up_to: Seq,
    /// Whether there is more that way.
    pub more: bool,
    /// In ascending order.
    pub entries: Vec<LogEntry>,
    /// The keys of the messages among them, with this session's copies.
    pub keys: Vec<OwnKey>,
}

/// A chat has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatDeleted {
    /// The chat.
    pub chat_id: ChatId,
    /// The owner's signed `delete`.
    pub change: SignedChange,
}

/// The server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Milliseconds to wait before coming back; spread over all sessions.
    pub retry_after_ms: u64,
}
