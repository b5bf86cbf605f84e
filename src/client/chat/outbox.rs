//! Decides what goes to the server for the messages that wait in one chat, one at a time and in order.
//!
//! Pure: no clock, no I/O. The states of the message at the head:
//!
//! ```text
//! draft --a generation is due: made first, fold to it; seal--> open --ok, or own entry seen in the log--> done
//!                  |  \--no answer, storage_unavailable, rate_limited, internal--> open: the same bytes again
//!                  |--refused, mendable--> refused --fold to seq, mend--> open
//!                  \--refused for good--> failed
//! ```
//!
//! Invariants: O1 an open frame's signed bytes never change. O2 a new seal comes only after a refusal. O3 the
//! next message waits until the head is done or failed, so counters are used in order.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::generations;
use super::log::ChatLog;
use super::own_key::{KeyLimits, OwnSenderKey, Parcel};
use crate::client::error::SendError;
use crate::client::keyring::Me;
use crate::crypto::message;
use crate::protocol::binary::{Blob, Hash, Signature};
use crate::protocol::envelope::{Envelope, MessageKind, Seen};
use crate::protocol::error::{ErrorCode, ErrorDetails, MissingReason};
use crate::protocol::fold::ChatFold;
use crate::protocol::frame::{MakeGeneration, Send, SendOk, StageCopies};
use crate::protocol::ids::{ChatId, Counter, Epoch, KeyId, MessageId, Revision, Seq, SessionId, Timestamp};
use crate::protocol::keys::PreviousKey;
use crate::protocol::limits::DATA_BYTES_MAX;

/// Refusals of one message before it is given up: far above what a chat whose members change all the time brings.
const REFUSALS_MAX: u32 = 256;

/// Times that a later counter is waited out: with the pauses in between some seconds, well above a commit.
const GAPS_MAX: u32 = 8;

/// Results that the log has not shown yet, at most.
const ANSWERED_MAX: usize = 1_024;

/// Bytes that encryption adds to a body: nonce and tag.
const SEAL_BYTES: usize = 12 + 16;

/// What an outbox judges by.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) log: &'a mut ChatLog,
    pub(crate) me: &'a Me,
    pub(crate) limits: KeyLimits,
    pub(crate) now: Timestamp,
}

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing waits.
    Idle,
    /// The log must be folded to here first.
    Fold(Until),
    /// The group key that is due is made first.
    Generate(Box<MakeGeneration>),
    /// These copies go ahead.
    Stage(Box<StageCopies>),
    /// This frame goes, once the outbox is kept safely.
    Send(Box<Send>),
    /// The message cannot be sent.
    Fail(Name, SendError),
}

/// Up to where the log must be folded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Until {
    pub(crate) seq: Seq,
    pub(crate) epoch: Epoch,
}

/// What a refusal leads to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Ask for the next step.
    Again,
    /// The same bytes again, after a while.
    Later(Option<u64>),
    /// It had been committed before.
    Done(Box<SendOk>),
    /// It will never be.
    Fail(SendError),
}

/// A revision of a message: what waits, and is waited for.
pub(crate) type Name = (MessageId, Revision);

/// Something to be sent.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: MessageKind,
    pub(crate) message_id: MessageId,
    pub(crate) revision: Revision,
    /// Empty in a deletion.
    pub(crate) body: Vec<u8>,
    /// A read mark: a newer one takes the place of one that waits.
    pub(crate) is_receipt: bool,
}

impl Draft {
    /// A message.
    pub(crate) const fn message(message_id: MessageId, body: Vec<u8>) -> Self {
        let revision = Revision::saturating(0);
        Self { kind: MessageKind::Message, message_id, revision, body, is_receipt: false }
    }

    pub(crate) const fn name(&self) -> Name {
        (self.message_id, self.revision)
    }
}

/// A message, edit or deletion that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Item {
    #[serde(default = "message")]
    kind: MessageKind,
    message_id: MessageId,
    #[serde(default)]
    revision: Revision,
    #[serde(default)]
    is_receipt: bool,
    body: Blob,
    sealed: Option<Envelope>,
    /// The sealed frame may have been sent, and no definite answer came.
    is_open: bool,
    refusals: u32,
    /// The frame may have left this machine; so counts every one that was found sealed in a profile.
    #[serde(skip, default = "found_sealed")]
    has_left: bool,
    /// Times the server named a later counter than this frame's, which the log does not explain.
    #[serde(skip)]
    gaps: u32,
}

const fn found_sealed() -> bool {
    true
}

const fn message() -> MessageKind {
    MessageKind::Message
}

impl Item {
    const fn name(&self) -> Name {
        (self.message_id, self.revision)
    }
}

/// The messages that wait in one chat, and this session's sender key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outbox {
    items: VecDeque<Item>,
    key: Option<OwnSenderKey>,
    /// The newest key before that the server has.
    previous: Option<PreviousKey>,
    until: Until,
    /// Recipients that the server named and this log must know by then.
    asked: Vec<SessionId>,
    /// The newest revisions that the server has taken and the log has not shown yet.
    #[serde(skip)]
    answered: BTreeMap<MessageId, Revision>,
    #[serde(skip)]
    parts_staged: u32,
}

impl Outbox {
    /// Puts a message behind those that wait.
    ///
    /// # Errors
    /// [`SendError::TooLarge`].
    pub(crate) fn push(&mut self, draft: Draft) -> Result<(), SendError> {
        let size_max = DATA_BYTES_MAX - SEAL_BYTES;
        if draft.body.len() > size_max {
            return Err(SendError::TooLarge { size: draft.body.len(), size_max });
        }
        if draft.is_receipt
            && let Some(waiting) = self.items.iter_mut().find(|item| item.is_receipt && item.sealed.is_none())
        {
            waiting.body = Blob::from(draft.body);
            return Ok(());
        }
        let item = Item {
            kind: draft.kind,
            message_id: draft.message_id,
            revision: draft.revision,
            is_receipt: draft.is_receipt,
            body: Blob::from(draft.body),
            sealed: None,
            is_open: false,
            refusals: 0,
            has_left: false,
            gaps: 0,
        };
        self.items.push_back(item);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn contains(&self, name: Name) -> bool {
        self.items.iter().any(|item| item.name() == name)
    }

    pub(crate) fn head(&self) -> Option<Name> {
        self.items.front().map(Item::name)
    }

    /// Whether anything of a message waits.
    pub(crate) fn waits(&self, message_id: MessageId) -> bool {
        self.items.iter().any(|item| item.message_id == message_id)
    }

    /// The revision after the newest of a message that waits, or that the server has taken and the log has not
    /// shown yet; none if there is no such.
    pub(crate) fn next_revision(&self, message_id: MessageId) -> Option<Revision> {
        let waiting = self.items.iter().filter(|item| item.message_id == message_id).map(|item| item.revision);
        waiting.chain(self.answered.get(&message_id).copied()).max().map(Revision::next)
    }

    /// Seals nothing until the log has come to a place.
    pub(crate) fn hold_until(&mut self, seq: Seq, epoch: Epoch) {
        self.until = Until { seq: self.until.seq.max(seq), epoch: self.until.epoch.max(epoch) };
    }

    /// Takes out everything that waits, for good; says of each message whether it left and no answer came.
    pub(crate) fn drain(&mut self) -> Vec<(Name, bool)> {
        self.items.drain(..).map(|item| (item.name(), item.is_open && item.has_left)).collect()
    }

    /// This session's sender key, if a signal may go under it.
    pub(crate) fn live_key(&self, fold: &ChatFold, limits: &KeyLimits, now: Timestamp) -> Option<&OwnSenderKey> {
        self.key.as_ref().filter(|key| key.covers(fold, limits, now))
    }

    /// Takes out what waits of a message, but for what may be on its way. Gives what was taken out.
    pub(crate) fn withdraw(&mut self, message_id: MessageId) -> Vec<Name> {
        let is_withdrawn = |item: &Item| item.message_id == message_id && !item.is_open;
        let withdrawn = self.items.iter().filter(|item| is_withdrawn(item)).map(Item::name).collect();
        self.items.retain(|item| !is_withdrawn(item));
        withdrawn
    }

    /// The head is kept and leaves now.
    pub(crate) fn leaving(&mut self) {
        if let Some(item) = self.items.front_mut() {
            item.has_left = true;
        }
    }

    /// Takes the head out although it is sealed, unless it may have left: it could not be kept.
    pub(crate) fn give_up(&mut self, name: Name) -> bool {
        let is_here = self.items.front().is_some_and(|item| item.name() == name && !item.has_left);
        if is_here {
            self.items.pop_front();
        }
        is_here
    }

    /// Says what is to be done, and makes it ready.
    pub(crate) fn next(&mut self, context: &mut Context<'_>) -> Step {
        let Some(item) = self.items.front() else { return Step::Idle };
        let (name, is_deletion) = (item.name(), item.kind == MessageKind::Delete);
        if !item.is_open {
            let is_folded = context.log.head().seq >= self.until.seq && context.log.fold().epoch() >= self.until.epoch;
            if !is_folded {
                return Step::Fold(self.until);
            }
            if let Some(generation) = generations::make(context.log.fold(), context.me) {
                return Step::Generate(Box::new(generation));
            }
            if let Err(error) = self.seal_head(context) {
                self.items.pop_front();
                return Step::Fail(name, error);
            }
        }
        let chat_id = context.log.fold().chat_id();
        if is_deletion {
            let Some(envelope) = self.items.front().and_then(|item| item.sealed.clone()) else { return Step::Idle };
            let (new_key, add_copies, archive) = (None, Vec::new(), None);
            return Step::Send(Box::new(Send { chat_id, envelope, new_key, add_copies, archive }));
        }
        let Some(key) = &self.key else { return Step::Idle };
        if let Some(part) = key.part(context.log, self.parts_staged) {
            return Step::Stage(Box::new(part));
        }
        let Some(envelope) = self.items.front().and_then(|item| item.sealed.clone()) else { return Step::Idle };
        let Parcel { new_key, add_copies, archive } = key.parcel();
        Step::Send(Box::new(Send { chat_id, envelope, new_key, add_copies, archive }))
    }

    /// A part of the copies has arrived.
    pub(crate) fn staged(&mut self) {
        self.parts_staged = self.parts_staged.saturating_add(1);
    }

    /// The connection was lost: what was staged on it may be gone.
    pub(crate) fn disconnected(&mut self) {
        self.parts_staged = 0;
    }

    /// The server has committed a message. Returns whether it was the head that waited.
    pub(crate) fn committed(&mut self, name: Name) -> bool {
        if self.head() != Some(name) {
            return false;
        }
        if self.answered.len() < ANSWERED_MAX {
            self.answered.insert(name.0, name.1);
        }
        let envelope = self.items.pop_front().and_then(|item| item.sealed);
        if let (Some(envelope), Some(key)) = (envelope, &mut self.key)
            && envelope.key_id == Some(key.key_id())
        {
            key.stored();
            key.next = key.next.max(envelope.counter.next());
        }
        self.parts_staged = 0;
        true
    }

    /// A message of this session is in the log. Returns whether it was the head that waited.
    pub(crate) fn seen_in_log(&mut self, envelope: &Envelope) -> bool {
        if let Some(key) = &mut self.key
            && envelope.key_id == Some(key.key_id())
        {
            key.next = key.next.max(envelope.counter.next());
        }
        let name = (envelope.message_id, envelope.revision);
        let was_head = self.committed(name);
        if self.answered.get(&name.0).is_some_and(|answered| *answered <= name.1) {
            self.answered.remove(&name.0);
        }
        was_head
    }

    /// The server has refused the generation that the head waits for: somebody else's came first, or the members or
    /// their user keys are others by now.
    pub(crate) fn generation_refused(&mut self, code: ErrorCode, details: &ErrorDetails) -> Verdict {
        if matches!(code, ErrorCode::StorageUnavailable | ErrorCode::RateLimited | ErrorCode::Internal) {
            return Verdict::Later(details.retry_after_ms);
        }
        let Some(item) = self.items.front_mut() else { return Verdict::Again };
        item.refusals += 1;
        if item.refusals > REFUSALS_MAX {
            self.items.pop_front();
            return Verdict::Fail(SendError::GaveUp { code });
        }
        match code {
            ErrorCode::GroupKeyExists | ErrorCode::RosterChanged | ErrorCode::EventConflict => {
                self.until.seq = self.until.seq.max(details.seq.unwrap_or_default());
                Verdict::Again
            }
            _ => {
                self.items.pop_front();
                Verdict::Fail(SendError::Refused { code })
            }
        }
    }

    /// The server has refused the head.
    pub(crate) fn refused(&mut self, code: ErrorCode, details: &ErrorDetails) -> Verdict {
        if matches!(code, ErrorCode::StorageUnavailable | ErrorCode::RateLimited | ErrorCode::Internal) {
            return Verdict::Later(details.retry_after_ms);
        }
        let Some(item) = self.items.front_mut() else { return Verdict::Again };
        let sealed_counter = item.sealed.as_ref().map_or(Counter::default(), |sealed| sealed.counter);
        let is_used = self.key.as_ref().is_some_and(|key| key.next > sealed_counter);
        let is_ahead = details.counter.is_some_and(|counter| counter > sealed_counter);
        if code == ErrorCode::CounterGap && is_ahead && !is_used && item.gaps < GAPS_MAX {
            // What holds the counter is most likely this very frame, sent before on a connection that was lost
            // and still on its way to the log: this is no definite answer.
            item.gaps += 1;
            return Verdict::Later(details.retry_after_ms);
        }
        item.is_open = false;
        item.refusals += 1;
        self.parts_staged = 0;
        if item.refusals > REFUSALS_MAX {
            self.items.pop_front();
            return Verdict::Fail(SendError::GaveUp { code });
        }
        self.until.seq = self.until.seq.max(details.seq.unwrap_or_default());
        match code {
            ErrorCode::RosterChanged | ErrorCode::GroupKeyDue => return Verdict::Again,
            ErrorCode::EditConflict if let Some(revision) = details.revision => {
                self.items.pop_front();
                return Verdict::Fail(SendError::EditConflict { revision });
            }
            ErrorCode::UnknownMessage => {
                self.items.pop_front();
                return Verdict::Fail(SendError::UnknownMessage);
            }
            // An edit of this very session took the number, so this one was not made.
            ErrorCode::IdReused if item.kind != MessageKind::Message => {
                let revision = item.revision.next();
                self.items.pop_front();
                return Verdict::Fail(SendError::EditConflict { revision });
            }
            ErrorCode::IdReused if let Some(stored) = details.stored.clone() => {
                // Whether this frame's or an earlier seal's counter was used is for the log to say.
                self.until.seq = self.until.seq.max(stored.seq);
                self.items.pop_front();
                return Verdict::Done(Box::new(stored));
            }
            _ => {}
        }
        let Some(key) = &mut self.key else {
            self.items.pop_front();
            return Verdict::Fail(SendError::Refused { code });
        };
        match code {
            ErrorCode::CopiesMissing => {
                key.lacks(&details.missing);
                if details.reason == Some(MissingReason::Recovery) {
                    key.lacks_archive();
                }
                self.asked.clone_from(&details.missing);
            }
            ErrorCode::RecipientsChanged => {}
            ErrorCode::KeyStale => {
                key.retire();
                self.until.epoch = self.until.epoch.max(details.epoch.unwrap_or_default());
            }
            ErrorCode::KeySpent | ErrorCode::KeyExists => key.retire(),
            ErrorCode::UnknownKey => key.lost(),
            // Unless the log has shown the counter used by then, only a new key is safe (K4): a counter that
            // the server names and nobody has seen would be a gap to every receiver.
            ErrorCode::CounterGap if is_used => {}
            ErrorCode::CounterGap => key.retire(),
            _ => {
                self.items.pop_front();
                return Verdict::Fail(SendError::Refused { code });
            }
        }
        Verdict::Again
    }

    /// Seals the head for the fold of this moment, keeping of an earlier seal what still fits.
    fn seal_head(&mut self, context: &mut Context<'_>) -> Result<(), SendError> {
        let me = context.me;
        let roster_hash = context.log.roster_hash();
        let head = context.log.head();
        let fold = context.log.fold();
        let Some(member) = fold.membership().members.get(&me.user_id) else { return Err(SendError::NotMember) };
        let is_deletion = self.items.front().is_some_and(|item| item.kind == MessageKind::Delete);
        if !member.can_write && !is_deletion {
            return Err(SendError::Refused { code: ErrorCode::CannotWrite });
        }
        if !fold.recipients().contains_key(&me.session_id) {
            return Err(SendError::NotRecipient);
        }
        // Only the roster of exactly that place can tell a ghost from somebody who has left since.
        let ghost = self.asked.iter().copied().find(|session_id| !fold.recipients().contains_key(session_id));
        if let Some(session_id) = ghost
            && (fold.roster_version()..=head.seq).contains(&self.until.seq)
        {
            // The next message asks anew: the ghost may be gone.
            self.asked.clear();
            return Err(SendError::GhostRecipient { session_id });
        }
        self.asked.clear();
        if is_deletion {
            let Some(item) = self.items.front_mut() else { return Ok(()) };
            item.seal(None, fold.chat_id(), roster_hash, head, me);
            return Ok(());
        }
        let is_usable = self.key.as_ref().is_some_and(|key| key.is_usable(fold, &context.limits, context.now));
        if !is_usable {
            if let Some(old) = &self.key
                && (old.is_stored() || old.next.get() > 1)
            {
                self.previous = Some(old.as_previous());
            }
            self.key = Some(OwnSenderKey::generate(fold, me, self.previous, context.now));
        }
        let (Some(key), Some(item)) = (&mut self.key, self.items.front_mut()) else { return Ok(()) };
        key.cover(fold, me);
        let (key_id, counter) = (key.key_id(), key.next);
        let chat_id = fold.chat_id();
        let fits = |sealed: &Envelope| sealed.key_id == Some(key_id) && sealed.counter == counter;
        let data = match item.sealed.take().filter(fits) {
            Some(sealed) if sealed.roster_hash == roster_hash => {
                item.sealed = Some(sealed);
                item.is_open = true;
                return Ok(());
            }
            Some(Envelope { data: Some(data), .. }) => data,
            _ => {
                let place = message::Place {
                    chat_id,
                    message_id: item.message_id,
                    revision: item.revision,
                    counter,
                    sender: me.session_id,
                    key_id,
                };
                let data = message::seal(&key.secret, &place, item.body.as_ref()).map_err(|_| SendError::Sealing)?;
                Blob::from(data)
            }
        };
        item.seal(Some((key_id, counter, data)), chat_id, roster_hash, head, me);
        Ok(())
    }
}

impl Item {
    /// Signs the frame that goes; a deletion has neither key nor data.
    fn seal(
        &mut self,
        content: Option<(KeyId, Counter, Blob)>,
        chat_id: ChatId,
        roster_hash: Hash,
        seen: Seen,
        me: &Me,
    ) {
        let (key_id, counter, data) = match content {
            Some((key_id, counter, data)) => (Some(key_id), counter, Some(data)),
            None => (None, Counter::default(), None),
        };
        let mut envelope = Envelope {
            kind: self.kind,
            message_id: self.message_id,
            revision: self.revision,
            sender_id: me.user_id,
            sender_session_id: me.session_id,
            key_id,
            counter,
            roster_hash,
            seen,
            attachments: Vec::new(),
            data,
            purged: None,
            signature: Signature([0; 64]),
        };
        envelope.signature = me.secrets.sign(&envelope.signed_bytes(chat_id));
        self.sealed = Some(envelope);
        self.is_open = true;
    }
}
