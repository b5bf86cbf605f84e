//! Everything of one chat that a profile keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::log::{ChatLog, MessageTaken, Taken};
use super::outbox::Outbox;
use super::received_keys::ReceivedKeys;
use super::signals::Heard;
use crate::client::failure::VerificationFailure;
use crate::client::keyring::{Anchor, Me};
use crate::crypto::{Secret, name, wrap};
use crate::protocol::binary::Hash;
use crate::protocol::frame::{ChatInfo, SendOk};
use crate::protocol::ids::{InfoKeyId, Seq, SessionId};
use crate::protocol::log::{EntryBody, LogEntry};
use crate::protocol::verify::Verifier;

/// Results of sends that wait for their entry to be compared with, at most.
const PROMISED_MAX: usize = 1_024;

/// One chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chat {
    pub(crate) log: ChatLog,
    pub(crate) keys: ReceivedKeys,
    pub(crate) outbox: Outbox,
    pub(crate) info_keys: BTreeMap<InfoKeyId, Secret>,
    pub(crate) title: Option<String>,
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
}

impl Chat {
    pub(crate) fn new(log: ChatLog) -> Self {
        Self {
            log,
            keys: ReceivedKeys::default(),
            outbox: Outbox::default(),
            info_keys: BTreeMap::new(),
            title: None,
            promised: BTreeMap::new(),
            told: Seq::default(),
            heard: Heard::default(),
            delivered: BTreeMap::new(),
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
        if let Some(promised) = self.promised.remove(&entry.seq)
            && promised != entry.log_hash
        {
            return Ok(Taken::Refused(VerificationFailure::Fork { seq: entry.seq }));
        }
        Ok(taken)
    }

    /// Whether this entry is a message of this very session that verified.
    pub(crate) fn is_own(message: &MessageTaken, me: &Me) -> bool {
        message.sender_session_id == me.session_id && message.content.is_ok()
    }

    /// Compares the result of a send with the log, now or when its entry comes.
    pub(crate) fn promise(&mut self, sent: &SendOk) -> Result<(), VerificationFailure> {
        match self.log.hash_at(sent.seq) {
            Some(hash) if hash != sent.log_hash => Err(VerificationFailure::Fork { seq: sent.seq }),
            Some(_) => Ok(()),
            None => {
                if sent.seq > self.log.head().seq && self.promised.len() < PROMISED_MAX {
                    self.promised.insert(sent.seq, sent.log_hash);
                }
                Ok(())
            }
        }
    }

    /// Opens the chat's title with a key that is known or comes along. Returns whether something new was learnt.
    pub(crate) fn learn_title(&mut self, info: &ChatInfo, me: &Me) -> bool {
        let chat_id = self.log.fold().chat_id();
        let mut has_learnt = false;
        if let Some(wrapped) = &info.info_key
            && wrapped.session_id == me.session_id
            && !self.info_keys.contains_key(&wrapped.key_id)
            && self
                .log
                .signing_key(wrapped.wrapped_by_session_id)
                .is_some_and(|key| key.verifies(&wrapped.signed_bytes(chat_id), &wrapped.signature))
            && let Ok(secret) = wrap::open_info_key(wrapped, chat_id, (me.session_id, &me.secrets))
        {
            self.info_keys.insert(wrapped.key_id, secret);
            has_learnt = true;
        }
        let Some(sealed) = &info.name else { return has_learnt };
        let Some(secret) = self.info_keys.get(&sealed.key_id) else { return has_learnt };
        let title = name::open(secret, chat_id, sealed).ok();
        if title.is_some() && title != self.title {
            self.title = title;
            has_learnt = true;
        }
        has_learnt
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
