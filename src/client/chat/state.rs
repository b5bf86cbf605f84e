//! Everything of one chat that a profile keeps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::asked::Asked;
use super::info::Info;
use super::log::{self, ChatLog, Content, MessageTaken, Taken};
use super::outbox::Outbox;
use super::reading::Reading;
use super::received_keys::ReceivedKeys;
use super::seen_secrets::SeenSecrets;
use super::signals::Heard;
use crate::client::failure::VerificationFailure;
use crate::client::keyring::{Anchor, Left, Me};
use crate::crypto::Secret;
use crate::protocol::binary::{Blob, Hash};
use crate::protocol::envelope::{Envelope, MessageKind, Seen};
use crate::protocol::frame::SendOk;
use crate::protocol::ids::{InfoKeyId, KeyId, MessageId, Seq, SessionId, Timestamp};
use crate::protocol::log::{EntryBody, LogEntry};

/// Results of sends that wait for their entry to be compared with, at most.
const PROMISED_MAX: usize = 1_024;

/// Bytes of messages that wait for their keys, at most; the oldest go first, and are read from the log again.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Messages that wait for their keys.
#[derive(Debug, Clone, Default)]
struct Waiting {
    messages: VecDeque<Locked>,
    bytes: usize,
}

/// A message that was judged in all but its content.
#[derive(Debug, Clone)]
struct Locked {
    seq: Seq,
    created_at: Timestamp,
    envelope: Envelope,
    first: Option<Seq>,
    by_manager: bool,
    /// This session was a recipient, so it should have a copy of the key.
    is_for_us: bool,
}

impl Waiting {
    fn put(&mut self, message: Locked) {
        if message.envelope.data.is_none() {
            return;
        }
        self.bytes += Self::size(&message.envelope);
        self.messages.push_back(message);
        while self.bytes > WAITING_BYTES_MAX
            && let Some(oldest) = self.messages.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(Self::size(&oldest.envelope));
        }
    }

    /// Takes out what a newer revision has overtaken.
    fn overtake(&mut self, message_id: MessageId) {
        self.messages.retain(|waiting| waiting.envelope.message_id != message_id);
        self.count();
    }

    fn count(&mut self) {
        self.bytes = self.messages.iter().map(|waiting| Self::size(&waiting.envelope)).sum();
    }

    /// A message's share of the bound, with what surrounds its data.
    fn size(envelope: &Envelope) -> usize {
        envelope.data.as_ref().map_or(0, Blob::len) + 512
    }
}

/// One chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chat {
    pub(crate) log: ChatLog,
    pub(crate) keys: ReceivedKeys,
    pub(crate) outbox: Outbox,
    pub(crate) info_keys: BTreeMap<InfoKeyId, Secret>,
    pub(crate) title: Option<String>,
    /// What else is known of the title.
    #[serde(default)]
    pub(crate) info: Info,
    /// How far this user has read.
    #[serde(default)]
    pub(crate) reading: Reading,
    /// The newest revisions of group secrets that were shown.
    #[serde(default)]
    pub(crate) secrets: SeenSecrets,
    /// Log hashes that the server named when it took a message, for entries that have not come yet.
    #[serde(skip)]
    promised: BTreeMap<Seq, Hash>,
    /// The cursor that the server was told.
    #[serde(skip)]
    pub(crate) told: Seq,
    /// Signals of a moment ago.
    #[serde(skip)]
    pub(crate) heard: Heard,
    /// How far other sessions have come, by the server's word.
    #[serde(skip)]
    pub(crate) delivered: BTreeMap<SessionId, Seq>,
    /// Messages that could not be opened for want of a copy, in order of their seq.
    #[serde(skip)]
    waiting: Waiting,
    /// Keys that were asked for.
    #[serde(skip)]
    pub(crate) asked: Asked,
}

impl Chat {
    pub(crate) fn new(log: ChatLog) -> Self {
        Self {
            log,
            keys: ReceivedKeys::default(),
            outbox: Outbox::default(),
            info_keys: BTreeMap::new(),
            title: None,
            info: Info::default(),
            reading: Reading::default(),
            secrets: SeenSecrets::default(),
            promised: BTreeMap::new(),
            told: Seq::default(),
            heard: Heard::default(),
            delivered: BTreeMap::new(),
            waiting: Waiting::default(),
            asked: Asked::default(),
        }
    }

    /// Takes the next entry; of one's own messages the outbox hears too.
    ///
    /// # Errors
    /// A failure that breaks the chain; then nothing has changed.
    pub(crate) fn take(&mut self, entry: &LogEntry, me: &Me) -> Result<Taken, VerificationFailure> {
        let taken = self.log.take(entry, &mut self.keys, me)?;
        if matches!(taken, Taken::Duplicate) {
            return Ok(taken);
        }
        self.note_loss(entry.seq, &taken);
        if let Some(promised) = self.promised.remove(&entry.seq)
            && promised != entry.log_hash
        {
            return Ok(Taken::Refused(VerificationFailure::Fork { seq: entry.seq }));
        }
        if let (Taken::Message(message), EntryBody::Message(envelope)) = (&taken, &entry.body) {
            let is_locked = matches!(
                message.content,
                Ok(Content::NotForUs) | Err(VerificationFailure::NoCopy | VerificationFailure::BadCopy)
            );
            if message.kind != MessageKind::Message {
                self.waiting.overtake(message.message_id);
            }
            if is_locked {
                self.waiting.put(Locked {
                    seq: entry.seq,
                    created_at: entry.created_at,
                    envelope: envelope.clone(),
                    first: message.first,
                    by_manager: message.by_manager,
                    is_for_us: !matches!(message.content, Ok(Content::NotForUs)),
                });
            }
        }
        Ok(taken)
    }

    /// Opens messages whose keys have come since: those that verified, each with its place and time.
    pub(crate) fn open_waiting(&mut self, me: &Me) -> Vec<(Seq, Timestamp, MessageTaken)> {
        let mut opened = Vec::new();
        if !self.keys.take_news() || self.waiting.messages.is_empty() {
            return opened;
        }
        let chat_id = self.log.fold().chat_id();
        let keys = &mut self.keys;
        self.waiting.messages.retain(|Locked { seq, created_at, envelope, first, by_manager, .. }| {
            let (Some(key_id), Some(data)) = (envelope.key_id, &envelope.data) else { return false };
            if !keys.has_copy(key_id) {
                return true;
            }
            let Ok(secret) = keys.secret(chat_id, key_id, me) else { return true };
            let content = log::open(chat_id, envelope, &secret, data);
            let taken = MessageTaken {
                message_id: envelope.message_id,
                sender_id: envelope.sender_id,
                sender_session_id: envelope.sender_session_id,
                kind: envelope.kind,
                revision: envelope.revision,
                first: *first,
                by_manager: *by_manager,
                content,
            };
            opened.push((*seq, *created_at, taken));
            false
        });
        self.waiting.count();
        opened
    }

    /// Keys without which messages for this session cannot be opened.
    pub(crate) fn lacking(&self) -> BTreeSet<KeyId> {
        let waiting = self.waiting.messages.iter().filter(|waiting| waiting.is_for_us);
        let waiting = waiting.filter_map(|waiting| waiting.envelope.key_id);
        waiting.filter(|key_id| !self.keys.has_copy(*key_id)).collect()
    }

    /// Keys of every message that waits to be opened.
    pub(crate) fn locked(&self) -> BTreeSet<KeyId> {
        self.waiting.messages.iter().filter_map(|waiting| waiting.envelope.key_id).collect()
    }

    /// Whether this entry is a message of this very session that verified.
    pub(crate) fn is_own(message: &MessageTaken, me: &Me) -> bool {
        message.sender_session_id == me.session_id && message.content.is_ok()
    }

    /// Compares the result of a send with the log, now or when its entry comes.
    pub(crate) fn promise(&mut self, sent: &SendOk) -> Result<(), VerificationFailure> {
        self.expect(Seen { seq: sent.seq, log_hash: sent.log_hash })
    }

    fn expect(&mut self, place: Seen) -> Result<(), VerificationFailure> {
        let Seen { seq, log_hash } = place;
        match self.log.hash_at(seq) {
            Some(hash) if hash != log_hash => Err(VerificationFailure::Fork { seq }),
            Some(_) => Ok(()),
            None => {
                if seq > self.log.head().seq && self.promised.len() < PROMISED_MAX {
                    self.promised.insert(seq, log_hash);
                }
                Ok(())
            }
        }
    }

    /// How far the log has come, for the day that the chat is shown again; none while its hash is not known.
    pub(crate) fn left(&self) -> Option<Left> {
        let membership = self.log.fold().membership();
        let left = Left {
            place: self.log.head(),
            epoch: self.log.fold().epoch(),
            change_no: membership.head,
            change_hash: membership.hash,
        };
        (!self.log.is_adrift()).then_some(left)
    }

    /// The chat was known before: nothing is sent until its log has come to where it was, and it must be the same log.
    ///
    /// # Errors
    /// It is another one.
    pub(crate) fn go_on_from(&mut self, left: &Left) -> Result<(), VerificationFailure> {
        self.outbox.hold_until(left.place.seq, left.epoch);
        self.expect(left.place)
    }

    /// What a new session of the same user needs to begin here.
    pub(crate) fn anchor(&mut self) -> Anchor {
        Anchor {
            chat_id: self.log.fold().chat_id(),
            place: self.log.head(),
            roster_hash: self.log.roster_hash(),
            epoch: self.log.fold().epoch(),
            info_keys: self.info_keys.clone(),
        }
    }
}

/// Whether an entry is what made this user a member.
pub(crate) fn is_own_joining(entry: &LogEntry, me: &Me) -> bool {
    use crate::protocol::membership::Change;
    let EntryBody::Membership(signed) = &entry.body else { return false };
    let target = &signed.change.target;
    let is_joining = matches!(signed.change.change, Change::Create | Change::Add { .. });
    is_joining && target.user_id == me.user_id && target.identity_key == me.identity_key
}
