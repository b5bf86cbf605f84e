//! The rules of sending, as plain data: no actor, no clock, no I/O.
//!
//! [`ChatState`] is what one chat's actor believes; the commit checks the same again against the database.
//! Invariants: C1 a message is accepted only under a key of the current epoch whose copies are exactly the
//! recipients (P4, P5). C2 seqs and counters are handed out without gaps, in the order of acceptance. C3 a
//! refusal changes nothing.

mod signal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::protocol::binary::Hash;
use crate::protocol::envelope::{Envelope, MessageKind};
use crate::protocol::error::{ErrorCode, ErrorDetails, MissingReason, Refusal};
use crate::protocol::frame::{NewKey, Send, SendOk};
use crate::protocol::group_key::Archive;
use crate::protocol::ids::{ChatId, Counter, Epoch, GenerationNo, KeyId, Revision, Seq, SessionId, Timestamp, UserId};
use crate::protocol::keys::{KeyCopy, SignedAnnouncement};
use crate::protocol::limits::{ATTACHMENTS_MAX, COPIES_PER_FRAME_MAX, DATA_BYTES_MAX};
use crate::protocol::log::{EntryBody, LogEntry, next_entry};
use crate::protocol::verify::Verifier;
use crate::store::batch::Item;
use crate::store::loaded::{LoadedChat, LoadedKey, LoadedMember, LoadedRecipient};
use crate::store::members::{Requester, unknown_chat};
use crate::store::revisions::MessageHead;

/// The life of sender keys.
#[derive(Debug, Clone, Copy)]
pub struct KeyLimits {
    /// Messages of one key.
    pub messages_max: u64,
    /// The same in a chat with more recipients than `recipients_large`.
    pub messages_max_large: u64,
    /// Where larger chats begin.
    pub recipients_large: u64,
    /// Microseconds that a key may serve.
    pub age_max_micros: u64,
}

/// What is done with a message.
#[derive(Debug)]
pub enum Decision {
    /// It goes to the writer.
    Append(Box<Item>),
    /// Its key goes to the writer, and the message is refused: copies are missing.
    StoreKey(Box<Item>, Refusal),
    /// It is refused.
    Refuse(Refusal),
}

/// What became of a copy beside the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyChange {
    /// It is there.
    Stored,
    /// It was refused and is gone.
    Voided,
    /// It was refused for good: it stays, and its recipient is listed.
    GivenUp,
}

/// What a chat's actor believes.
#[derive(Debug)]
pub struct ChatState {
    chat_id: ChatId,
    last_seq: Seq,
    log_hash: Hash,
    last_time: Timestamp,
    epoch: Epoch,
    roster_version: Seq,
    roster_hash: Hash,
    members: BTreeMap<UserId, LoadedMember>,
    recipients: BTreeMap<SessionId, LoadedRecipient>,
    keys: HashMap<KeyId, LoadedKey>,
    key_of: HashMap<SessionId, KeyId>,
    unreachable: Vec<UserId>,
    recovery: Option<GenerationNo>,
    generation_due: Option<GenerationNo>,
    limits: KeyLimits,
}

impl ChatState {
    /// What the store says.
    #[must_use]
    pub fn new(chat_id: ChatId, loaded: LoadedChat, limits: KeyLimits) -> Self {
        let reachable: HashSet<UserId> = loaded.recipients.values().map(|recipient| recipient.user_id).collect();
        let is_out_of_reach =
            |(user_id, member): &(&UserId, &LoadedMember)| !reachable.contains(user_id) && !member.has_user_key;
        let unreachable = loaded.members.iter().filter(is_out_of_reach).map(|(user_id, _)| *user_id).collect();
        let key_of =
            loaded.keys.iter().map(|(key_id, key)| (key.announcement.announcement.session_id, *key_id)).collect();
        Self {
            chat_id,
            last_seq: loaded.last_seq,
            log_hash: loaded.log_hash,
            last_time: loaded.last_at,
            epoch: loaded.epoch,
            roster_version: loaded.roster_version,
            roster_hash: loaded.roster_hash,
            members: loaded.members,
            recipients: loaded.recipients,
            keys: loaded.keys.into_iter().collect(),
            key_of,
            unreachable,
            recovery: loaded.recovery,
            generation_due: loaded.generation_due,
            limits,
        }
    }

    /// The newest entry, committed or on its way.
    #[must_use]
    pub const fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// Whether a session is a recipient.
    #[must_use]
    pub fn is_recipient(&self, session_id: SessionId) -> bool {
        self.recipients.contains_key(&session_id)
    }

    /// How many sessions are recipients.
    #[must_use]
    pub fn recipient_count(&self) -> usize {
        self.recipients.len()
    }

    /// What a key's session says of it.
    #[must_use]
    pub fn announcement(&self, key_id: KeyId) -> Option<&SignedAnnouncement> {
        self.keys.get(&key_id).map(|key| &key.announcement)
    }

    /// Judges a message, and if it is accepted gives it its place in the log.
    ///
    /// `signing_key` is the sending session's, `now` the database's clock. `target` is the message that is edited
    /// or deleted, as the store has it while no revision of it is on its way.
    pub fn submit<V: Verifier>(
        &mut self,
        now: Timestamp,
        who: Requester,
        signing_key: &V,
        send: &Send,
        target: Option<&MessageHead>,
    ) -> Decision {
        match self.judge(now, who, signing_key, send, target) {
            Ok(accepted) => Decision::Append(Box::new(self.accept(now, send, accepted))),
            Err(Rejection::Refused(refusal)) => Decision::Refuse(refusal),
            Err(Rejection::CopiesMissing(stored, refusal)) => {
                Decision::StoreKey(Box::new(self.store_key(now, send, *stored)), refusal)
            }
        }
    }

    /// The answer to a message that was committed.
    #[must_use]
    pub fn sent(&self, entry: &LogEntry) -> SendOk {
        let key_id = match &entry.body {
            EntryBody::Message(envelope) => envelope.key_id,
            _ => None,
        };
        let refused = key_id.and_then(|key_id| self.keys.get(&key_id)).map_or_else(Vec::new, |key| {
            let is_final = |(session_id, is_final): &(&SessionId, &bool)| **is_final && self.is_recipient(**session_id);
            key.refused.iter().filter(is_final).map(|(session_id, _)| *session_id).collect()
        });
        SendOk { unreachable: self.unreachable.clone(), refused, ..SendOk::of(entry) }
    }

    /// Takes note of copies that were stored, voided or given up beside the messages. What does not concern a
    /// current key of a recipient changes nothing.
    pub fn copy_changed(&mut self, key_id: KeyId, session_id: SessionId, change: CopyChange) {
        if !self.is_recipient(session_id) {
            return;
        }
        let Some(key) = self.keys.get_mut(&key_id) else { return };
        match change {
            CopyChange::Stored => {
                key.missing.remove(&session_id);
                key.refused.remove(&session_id);
            }
            CopyChange::Voided => {
                key.missing.insert(session_id);
                key.refused.insert(session_id, false);
            }
            CopyChange::GivenUp => {
                key.refused.insert(session_id, true);
            }
        }
    }

    fn judge<V: Verifier>(
        &self,
        now: Timestamp,
        who: Requester,
        signing_key: &V,
        send: &Send,
        target: Option<&MessageHead>,
    ) -> Result<Option<Accepted>, Rejection> {
        let envelope = &send.envelope;
        let Some(member) = self.members.get(&who.user_id) else { return Err(unknown_chat().into()) };
        if !self.is_recipient(who.session_id) {
            return Err(unknown_chat().into());
        }
        if envelope.sender_id != who.user_id || envelope.sender_session_id != who.session_id {
            return refuse(ErrorCode::BadSignature, "the sender is not the session that is logged in");
        }
        if !member.can_write && envelope.kind != MessageKind::Delete {
            return refuse(ErrorCode::CannotWrite, "may not send messages here");
        }
        let key_id = check_shape(send)?;
        check_copies_bound(send)?;
        if envelope.seen.seq > self.last_seq {
            let details = ErrorDetails { seq: Some(self.last_seq), ..ErrorDetails::default() };
            return Err(Refusal::with(ErrorCode::AheadOfLog, "the log is not that long", details).into());
        }
        if envelope.kind != MessageKind::Message {
            judge_revision(who, member, envelope, target)?;
            // What purges data is not left to the recipients to check.
            if !signing_key.verifies(&envelope.signed_bytes(self.chat_id), &envelope.signature) {
                return refuse(ErrorCode::BadSignature, "the signature of the edit or deletion does not verify");
            }
        }
        let Some(key_id) = key_id else {
            self.check_roster(envelope)?;
            return Ok(None);
        };
        self.check_generation()?;
        let mut accepted = match &send.new_key {
            Some(new_key) => self.judge_new_key(who, signing_key, key_id, new_key, &send.add_copies)?,
            None => self.judge_old_key(who, key_id, &send.add_copies)?,
        };
        self.judge_archive(&mut accepted, send.archive.as_ref())?;
        self.judge_age(now, &accepted)?;
        if !accepted.missing.is_empty() || !self.is_archived(&accepted) {
            return Err(self.copies_missing(accepted, envelope.seen.seq));
        }
        self.check_roster(envelope)?;
        if envelope.counter != accepted.last_counter.next() {
            let details = ErrorDetails { counter: Some(accepted.last_counter.next()), ..ErrorDetails::default() };
            return Err(Refusal::with(ErrorCode::CounterGap, "the counter is not the next", details).into());
        }
        Ok(Some(accepted))
    }

    fn check_generation(&self) -> Result<(), Rejection> {
        let Some(generation) = self.generation_due else { return Ok(()) };
        let details = ErrorDetails { generation: Some(generation), ..self.as_of_now() };
        Err(Refusal::with(ErrorCode::GroupKeyDue, "the group key must be made first", details).into())
    }

    /// Takes an archive, which must be sealed to the recovery key that receives now.
    fn judge_archive(&self, accepted: &mut Accepted, archive: Option<&Archive>) -> Result<(), Rejection> {
        let Some(archive) = archive else { return Ok(()) };
        if self.recovery != Some(archive.generation) {
            let message = "an archive for a recovery key that is no recipient";
            return Err(Refusal::with(ErrorCode::RecipientsChanged, message, self.as_of_now()).into());
        }
        // An archive that is there stays: the first counts.
        if accepted.archived != Some(archive.generation) {
            accepted.archived = Some(archive.generation);
            accepted.archive = Some(archive.clone());
        }
        Ok(())
    }

    /// Whether the recovery key, if it receives, has the key.
    fn is_archived(&self, accepted: &Accepted) -> bool {
        self.recovery.is_none() || accepted.archived == self.recovery
    }

    fn check_roster(&self, envelope: &Envelope) -> Result<(), Rejection> {
        if envelope.roster_hash == self.roster_hash {
            return Ok(());
        }
        let details = self.as_of_now();
        Err(Refusal::with(ErrorCode::RosterChanged, "the roster hash is not the current one", details).into())
    }

    fn judge_new_key<V: Verifier>(
        &self,
        who: Requester,
        signing_key: &V,
        key_id: KeyId,
        new_key: &NewKey,
        add_copies: &[KeyCopy],
    ) -> Result<Accepted, Rejection> {
        let announcement = &new_key.announcement.announcement;
        if announcement.key_id != key_id || announcement.session_id != who.session_id {
            return refuse(ErrorCode::BadSignature, "the announcement is of another key or session");
        }
        if !signing_key.verifies(&announcement.signed_bytes(self.chat_id), &new_key.announcement.signature) {
            return refuse(ErrorCode::BadSignature, "the announcement's signature does not verify");
        }
        self.check_epoch(announcement.epoch)?;
        let copies: Vec<KeyCopy> = new_key.copies.iter().chain(add_copies).cloned().collect();
        if let Some(stored) = self.keys.get(&key_id) {
            if stored.announcement != new_key.announcement {
                return refuse(ErrorCode::KeyExists, "a key of that id exists with other bytes");
            }
            return self.with_copies(Accepted::of_stored(key_id, stored), copies);
        }
        let missing = self.recipients.keys().copied().collect();
        let accepted = Accepted {
            key_id,
            new_key: Some(new_key.announcement.clone()),
            last_counter: Counter::default(),
            created_at: None,
            missing,
            copies: Vec::new(),
            archived: None,
            archive: None,
        };
        self.with_copies(accepted, copies)
    }

    fn judge_old_key(&self, who: Requester, key_id: KeyId, add_copies: &[KeyCopy]) -> Result<Accepted, Rejection> {
        let Some(stored) = self.keys.get(&key_id) else {
            // Whether it never was or is of an older epoch, a new key mends it; the epoch says which.
            let details =
                ErrorDetails { epoch: Some(self.epoch), seq: Some(self.roster_version), ..ErrorDetails::default() };
            return Err(Refusal::with(ErrorCode::KeyStale, "no such key in the current epoch", details).into());
        };
        if stored.announcement.announcement.session_id != who.session_id {
            return refuse(ErrorCode::UnknownKey, "the key is not this session's");
        }
        self.check_epoch(stored.announcement.announcement.epoch)?;
        self.with_copies(Accepted::of_stored(key_id, stored), add_copies.to_vec())
    }

    fn check_epoch(&self, epoch: Epoch) -> Result<(), Rejection> {
        if epoch == self.epoch {
            return Ok(());
        }
        let details =
            ErrorDetails { epoch: Some(self.epoch), seq: Some(self.roster_version), ..ErrorDetails::default() };
        Err(Refusal::with(ErrorCode::KeyStale, "the key is of another epoch", details).into())
    }

    /// Counts copies against the recipients: none too many, and which are still missing.
    fn with_copies(&self, mut accepted: Accepted, copies: Vec<KeyCopy>) -> Result<Accepted, Rejection> {
        let mut seen = HashSet::with_capacity(copies.len());
        let extra: Vec<SessionId> =
            copies.iter().map(|copy| copy.session_id).filter(|session_id| !self.is_recipient(*session_id)).collect();
        if !extra.is_empty() {
            let details = ErrorDetails { extra, ..self.as_of_now() };
            return Err(Refusal::with(
                ErrorCode::RecipientsChanged,
                "a copy for somebody who is no recipient",
                details,
            )
            .into());
        }
        for copy in copies {
            if !seen.insert(copy.session_id) {
                return refuse(ErrorCode::Malformed, "two copies for one session");
            }
            // A copy that is there stays: the first counts.
            if accepted.missing.remove(&copy.session_id) {
                accepted.copies.push(copy);
            }
        }
        Ok(accepted)
    }

    fn judge_age(&self, now: Timestamp, accepted: &Accepted) -> Result<(), Rejection> {
        let is_large = self.recipients.len() as u64 > self.limits.recipients_large;
        let messages_max = if is_large { self.limits.messages_max_large } else { self.limits.messages_max };
        if accepted.last_counter.get() >= messages_max {
            return Err(Refusal::limit(ErrorCode::KeySpent, "the key has carried enough messages", messages_max).into());
        }
        Ok(self.judge_serving_time(now, accepted)?)
    }

    fn judge_serving_time(&self, now: Timestamp, accepted: &Accepted) -> Result<(), Refusal> {
        let is_old = accepted
            .created_at
            .is_some_and(|created_at| now.get().saturating_sub(created_at.get()) > self.limits.age_max_micros);
        if is_old {
            let limit = self.limits.age_max_micros / 1_000_000;
            return Err(Refusal::limit(ErrorCode::KeySpent, "the key has served long enough", limit));
        }
        Ok(())
    }

    fn copies_missing(&self, accepted: Accepted, seen: Seq) -> Rejection {
        let details = ErrorDetails {
            missing: accepted.missing.iter().copied().collect(),
            reason: Some(self.missing_reason(&accepted, seen)),
            ..self.as_of_now()
        };
        let refusal = Refusal::with(ErrorCode::CopiesMissing, "recipients without a copy of the key", details);
        if accepted.new_key.is_none() && accepted.copies.is_empty() && accepted.archive.is_none() {
            return refusal.into();
        }
        Rejection::CopiesMissing(Box::new(accepted), refusal)
    }

    /// Why copies are missing: whether any of those who lack one has refused what was there; else whether any of those
    /// users of whom no session has one joined after the key was made, or, of a key that is not stored, after what its
    /// maker had seen.
    fn missing_reason(&self, accepted: &Accepted, seen: Seq) -> MissingReason {
        if accepted.missing.is_empty() {
            return MissingReason::Recovery;
        }
        let refused = self.keys.get(&accepted.key_id).map(|key| &key.refused);
        if accepted.missing.iter().any(|session_id| refused.is_some_and(|refused| refused.contains_key(session_id))) {
            return MissingReason::Refused;
        }
        let is_newcomer = |member: &LoadedMember| match accepted.created_at {
            Some(created_at) => member.joined_at >= created_at,
            None => member.joined_seq > seen,
        };
        let has_copy = |(session_id, _): &(&SessionId, &LoadedRecipient)| !accepted.missing.contains(session_id);
        let reached: HashSet<UserId> =
            self.recipients.iter().filter(has_copy).map(|(_, recipient)| recipient.user_id).collect();
        let missing = accepted.missing.iter().filter_map(|session_id| self.recipients.get(session_id));
        let mut without = missing.map(|recipient| recipient.user_id).filter(|user_id| !reached.contains(user_id));
        if without.any(|user_id| self.members.get(&user_id).is_some_and(is_newcomer)) {
            MissingReason::NewMember
        } else {
            MissingReason::NewSession
        }
    }

    /// The place in the log that an answer takes into account.
    fn as_of_now(&self) -> ErrorDetails {
        ErrorDetails { seq: Some(self.roster_version), epoch: Some(self.epoch), ..ErrorDetails::default() }
    }

    fn accept(&mut self, now: Timestamp, send: &Send, accepted: Option<Accepted>) -> Item {
        let previous = (self.last_seq, self.log_hash);
        // Time never goes back within a log, though two nodes' estimates of the clock may differ a little.
        self.last_time = self.last_time.max(now);
        let body = EntryBody::Message(send.envelope.clone());
        let entry = next_entry(self.chat_id, previous.0, &previous.1, self.last_time, body);
        self.last_seq = entry.seq;
        self.log_hash = entry.log_hash;
        let counter = send.envelope.counter;
        if let Some(accepted) = &accepted {
            self.remember(now, accepted, counter);
        }
        self.item(send, accepted, previous, counter, Some(entry))
    }

    fn store_key(&mut self, now: Timestamp, send: &Send, accepted: Accepted) -> Item {
        let counter = accepted.last_counter;
        self.remember(now, &accepted, counter);
        self.item(send, Some(accepted), (self.last_seq, self.log_hash), counter, None)
    }

    fn remember(&mut self, now: Timestamp, accepted: &Accepted, counter: Counter) {
        if let Some(announcement) = &accepted.new_key {
            let session_id = announcement.announcement.session_id;
            // A session has one current key in a chat: a newer one replaces it.
            if let Some(older) = self.key_of.insert(session_id, accepted.key_id) {
                self.keys.remove(&older);
            }
            let key = LoadedKey {
                announcement: announcement.clone(),
                last_counter: counter,
                created_at: now,
                missing: accepted.missing.clone(),
                archived: accepted.archived,
                refused: BTreeMap::new(),
            };
            self.keys.insert(accepted.key_id, key);
        } else if let Some(key) = self.keys.get_mut(&accepted.key_id) {
            key.last_counter = counter;
            key.missing.clone_from(&accepted.missing);
            key.archived = accepted.archived;
        }
    }

    fn item(
        &self,
        send: &Send,
        accepted: Option<Accepted>,
        (previous, previous_hash): (Seq, Hash),
        counter: Counter,
        entry: Option<LogEntry>,
    ) -> Item {
        let (key_id, new_key, copies, archive) = match accepted {
            Some(accepted) => (Some(accepted.key_id), accepted.new_key, accepted.copies, accepted.archive),
            None => (None, None, Vec::new(), None),
        };
        Item {
            chat_id: self.chat_id,
            previous,
            previous_hash,
            epoch: self.epoch,
            roster_version: self.roster_version,
            key_id,
            counter,
            sender_session_id: send.envelope.sender_session_id,
            entry,
            new_key,
            copies,
            archive,
        }
    }
}

/// A message that may be appended, and what that does to its key.
#[derive(Debug)]
struct Accepted {
    key_id: KeyId,
    /// Set when the store does not have the key yet.
    new_key: Option<SignedAnnouncement>,
    last_counter: Counter,
    created_at: Option<Timestamp>,
    /// Recipients without a copy, after `copies`.
    missing: BTreeSet<SessionId>,
    copies: Vec<KeyCopy>,
    /// The generation to whose recovery key it is archived, with `archive`.
    archived: Option<GenerationNo>,
    archive: Option<Archive>,
}

impl Accepted {
    fn of_stored(key_id: KeyId, stored: &LoadedKey) -> Self {
        Self {
            key_id,
            new_key: None,
            last_counter: stored.last_counter,
            created_at: Some(stored.created_at),
            missing: stored.missing.clone(),
            copies: Vec::new(),
            archived: stored.archived,
            archive: None,
        }
    }
}

#[derive(Debug)]
enum Rejection {
    Refused(Refusal),
    CopiesMissing(Box<Accepted>, Refusal),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn refuse<T>(code: ErrorCode, message: &'static str) -> Result<T, Rejection> {
    Err(Refusal::new(code, message).into())
}

/// Judges an edit or deletion by the message it is of. Who may not do it learns nothing of the message.
fn judge_revision(
    who: Requester,
    member: &LoadedMember,
    envelope: &Envelope,
    target: Option<&MessageHead>,
) -> Result<(), Rejection> {
    let is_deletion = envelope.kind == MessageKind::Delete;
    let may_revise = |target: &&MessageHead| {
        let is_own = target.sender_id == who.user_id;
        let is_visible = target.first_seq >= member.readable_from && !target.is_deleted;
        is_visible && (is_own || is_deletion && member.can_manage)
    };
    let Some(target) = target.filter(may_revise) else {
        return refuse(ErrorCode::UnknownMessage, "no such message, or not this user's to change");
    };
    let next = target.revision.next();
    if envelope.revision == next {
        return Ok(());
    }
    let details = ErrorDetails { revision: Some(next), ..ErrorDetails::default() };
    Err(Refusal::with(ErrorCode::EditConflict, "the revision is not the next", details).into())
}

/// Checks what a message consists of; gives its key, which only a deletion lacks.
fn check_shape(send: &Send) -> Result<Option<KeyId>, Rejection> {
    let envelope = &send.envelope;
    let is_first = envelope.revision == Revision::default();
    if is_first != (envelope.kind == MessageKind::Message) || envelope.purged.is_some() {
        return refuse(
            ErrorCode::Malformed,
            "a message has revision 0, an edit or deletion a later one, none is purged",
        );
    }
    if envelope.attachments.len() > ATTACHMENTS_MAX {
        return Err(Refusal::limit(ErrorCode::TooLarge, "too many attachments", ATTACHMENTS_MAX as u64).into());
    }
    if !envelope.attachments.is_empty() {
        return refuse(ErrorCode::Malformed, "no such attachment");
    }
    if envelope.kind == MessageKind::Delete {
        let is_bare = envelope.key_id.is_none() && envelope.data.is_none() && envelope.counter == Counter::default();
        if !is_bare || send.new_key.is_some() || !send.add_copies.is_empty() || send.archive.is_some() {
            return refuse(ErrorCode::Malformed, "a deletion has no key, no counter, no data and no copies");
        }
        return Ok(None);
    }
    let (Some(key_id), Some(data)) = (envelope.key_id, &envelope.data) else {
        return refuse(ErrorCode::Malformed, "a message has a key and data");
    };
    if data.len() > DATA_BYTES_MAX {
        return Err(Refusal::limit(ErrorCode::TooLarge, "the data is too large", DATA_BYTES_MAX as u64).into());
    }
    Ok(Some(key_id))
}

fn check_copies_bound(send: &Send) -> Result<(), Rejection> {
    // A list that went ahead in parts has been put together and bounded before.
    let inline = match &send.new_key {
        Some(new_key) if new_key.staged.is_none() => new_key.copies.len(),
        _ => 0,
    };
    if inline + send.add_copies.len() > COPIES_PER_FRAME_MAX {
        let message = "too many copies in one frame: send them ahead in parts";
        return Err(Refusal::limit(ErrorCode::TooLarge, message, COPIES_PER_FRAME_MAX as u64).into());
    }
    Ok(())
}
