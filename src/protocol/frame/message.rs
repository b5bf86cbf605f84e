//! Frames about messages and the log: sent, delivered, read in pages; signals, which leave no trace.

use serde::{Deserialize, Serialize};

use crate::protocol::binary::Hash;
use crate::protocol::envelope::Envelope;
use crate::protocol::group_key::Archive;
use crate::protocol::ids::{ChatId, KeyId, Seq, SessionId, Timestamp, UserId};
use crate::protocol::keys::{KeyCopy, SignedAnnouncement};
use crate::protocol::log::LogEntry;
use crate::protocol::signal::SignalEnvelope;

use super::key::OwnKey;

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
    /// The key sealed to the chat's recovery key, if that is a recipient and the server does not have it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
}

/// A sender key that comes with its first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// What the session says of it.
    pub announcement: SignedAnnouncement,
    /// A copy for each recipient, unless they went ahead.
    pub copies: Vec<KeyCopy>,
    /// [`staged_hash`](crate::protocol::keys::staged_hash) of all copies that went ahead in parts; then `copies` is empty.
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
    /// At most [`COPIES_PER_FRAME_MAX`](crate::protocol::limits::COPIES_PER_FRAME_MAX).
    pub copies: Vec<KeyCopy>,
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
    /// Members without any live session and without a user key.
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
    /// At most this many entries, and at most [`PAGE_ENTRIES_MAX`](crate::protocol::limits::PAGE_ENTRIES_MAX).
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

/// A signal to the sessions that are connected now: typing, presence. It has no place in the log, is never stored,
/// and is dropped rather than repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The chat.
    pub chat_id: ChatId,
    /// The signal.
    pub signal: SignalEnvelope,
}

/// A request for how far messages have been delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDeliveries {
    /// The chat.
    pub chat_id: ChatId,
}

/// How far a chat's recipients have come: the server's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliveries {
    /// One for each recipient, in order of the sessions' ids.
    pub deliveries: Vec<Delivery>,
}

impl Deliveries {
    /// Up to where everything has been delivered to all sessions of a user; none if no session is the user's.
    #[must_use]
    pub fn of_user(&self, user_id: UserId) -> Option<Seq> {
        self.deliveries.iter().filter(|delivery| delivery.user_id == user_id).map(|delivery| delivery.seq).min()
    }
}

/// How far one session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// The seq up to which it said that it lacks nothing.
    pub seq: Seq,
}

/// A session has come further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The chat.
    pub chat_id: ChatId,
    /// Who, and how far.
    pub delivery: Delivery,
}
