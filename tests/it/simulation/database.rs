//! The modelled database: tables, row locks, and what a transaction does to them when it commits.
//!
//! What is real in it: the head of a chat with the effect of each entry on epoch and roster version
//! ([`ChatHead`]), the membership state machine, and the writer's [`judge`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sealcast::protocol::binary::{Hash, IdentityKey, Signature, SigningKey};
use sealcast::protocol::certificate::{Certificate, SignedCertificate};
use sealcast::protocol::envelope::{Envelope, MessageKind};
use sealcast::protocol::fold::roster_hash;
use sealcast::protocol::ids::{ChatId, Counter, KeyId, MessageId, Place, Revision, Seq, SessionId, Timestamp, UserId};
use sealcast::protocol::keys::SignedAnnouncement;
use sealcast::protocol::log::{EntryBody, LogEntry, SessionOut, next_entry};
use sealcast::protocol::membership::{Membership, SignedChange};
use sealcast::store::batch::Item;
use sealcast::store::chats::ChatPosition;
use sealcast::store::head::ChatHead;
use sealcast::store::judgement::{
    Evidence, Locked, MessageName, NewestRevision, StoredKey, Verdict, judge, key_name, message_name, revision_of,
};
use sealcast::store::loaded::{LoadedChat, LoadedKey, LoadedMember, LoadedRecipient};
use sealcast::store::members::Requester;
use sealcast::store::revisions::MessageHead;
use sealcast::store::writer::Outcome;

use super::fold::{Fold, exchange_key};
use super::rules::Rule;

/// Entries of one page: few, so that catching up takes several.
pub const PAGE: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Live,
    Expired,
    Revoked,
}

#[derive(Debug, Clone)]
pub struct SessionRow {
    pub user_id: UserId,
    pub state: State,
    pub expired_at: u64,
}

#[derive(Debug, Clone)]
pub struct KeyRow {
    pub announcement: SignedAnnouncement,
    pub last_counter: u64,
    pub created_at: Timestamp,
    pub covered_version: Option<u64>,
    pub copies: BTreeSet<SessionId>,
    pub refused: BTreeSet<SessionId>,
}

#[derive(Debug)]
pub struct ChatRow {
    pub head: ChatHead,
    pub membership: Membership,
    pub log: Vec<LogEntry>,
    pub keys: BTreeMap<KeyId, KeyRow>,
    pub revisions: BTreeMap<(MessageId, u64), u64>,
    /// What the log says, by the rules of the tests.
    pub fold: Fold,
    /// The transaction that holds the row.
    pub locked_by: Option<u64>,
    /// Entries that a process had on their way when it died: nobody who is left knows of them.
    pub orphans: BTreeSet<u64>,
}

#[derive(Debug, Default)]
pub struct Database {
    pub chats: BTreeMap<ChatId, ChatRow>,
    pub sessions: BTreeMap<SessionId, SessionRow>,
    pub dropped: Option<Rule>,
    /// Grows with each crash: transactions of an older one are gone.
    pub crashes: u64,
    pub down_until: u64,
}

impl ChatRow {
    /// The newest entry that must be told without a next use of the chat: not one of a session (protocol, section 16), and
    /// not one that was committed after the death of the only process that knew of it.
    pub fn newest_told(&self) -> u64 {
        let may_wait = |entry: &&LogEntry| {
            matches!(entry.body, EntryBody::SessionIn(_) | EntryBody::SessionOut(_))
                || self.orphans.contains(&entry.seq.get())
        };
        let untold = self.log.iter().rev().take_while(may_wait).count();
        self.log.len() as u64 - untold as u64
    }
}

/// What a batch found under its locks, and means to write.
#[derive(Debug)]
pub struct Batch {
    pub verdicts: Vec<Verdict>,
    pub accepted: Vec<Arc<Item>>,
}

pub fn identity_key(user_id: UserId) -> IdentityKey {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(user_id.as_bytes());
    IdentityKey(bytes)
}

fn number(value: u64) -> i64 {
    value as i64
}

/// What a reader is given of a log.
#[derive(Debug)]
pub struct Page {
    pub after: u64,
    pub entries: Vec<LogEntry>,
    pub more: bool,
}

impl Database {
    pub fn holds(&self, rule: Rule) -> bool {
        self.dropped != Some(rule)
    }

    pub fn lock(&mut self, tx: u64, chats: &[ChatId]) -> bool {
        let is_free = |chat_id: &ChatId| self.chats.get(chat_id).is_some_and(|chat| chat.locked_by.is_none());
        if !chats.iter().all(is_free) {
            return false;
        }
        for chat_id in chats {
            self.chats.get_mut(chat_id).unwrap().locked_by = Some(tx);
        }
        true
    }

    pub fn unlock(&mut self, tx: u64) {
        for chat in self.chats.values_mut().filter(|chat| chat.locked_by == Some(tx)) {
            chat.locked_by = None;
        }
    }

    /// The server goes and comes back: what had not committed never will.
    pub fn crash(&mut self, until: u64) {
        self.crashes += 1;
        self.down_until = until;
        self.chats.values_mut().for_each(|chat| chat.locked_by = None);
    }

    pub fn recipients(&self, chat_id: ChatId) -> BTreeMap<SessionId, UserId> {
        let members = &self.chats[&chat_id].membership.members;
        let is_in = |row: &SessionRow| row.state == State::Live && members.contains_key(&row.user_id);
        self.sessions.iter().filter(|(_, row)| is_in(row)).map(|(id, row)| (*id, row.user_id)).collect()
    }

    pub fn expiry_due(&self, chat_id: ChatId, now: u64) -> bool {
        let recipients = self.recipients(chat_id);
        self.holds(Rule::ExpiryIsJudged) && recipients.keys().any(|id| self.sessions[id].expired_at <= now)
    }

    pub fn chats_of(&self, user_id: UserId) -> Vec<ChatId> {
        let is_member = |chat: &ChatRow| chat.membership.members.contains_key(&user_id);
        self.chats.iter().filter(|(_, chat)| is_member(chat)).map(|(id, _)| *id).collect()
    }

    pub fn live_sessions(&self, user_id: UserId) -> Vec<SessionId> {
        let is_live = |row: &SessionRow| row.state == State::Live && row.user_id == user_id;
        self.sessions.iter().filter(|(_, row)| is_live(row)).map(|(id, _)| *id).collect()
    }

    /// Appends an entry that is not a message, as every transaction outside the writer does.
    pub fn append(&mut self, chat_id: ChatId, now: u64, body: EntryBody) -> u64 {
        let chat = self.chats.get_mut(&chat_id).unwrap();
        let before = chat.head.epoch;
        let (seq, hash) = (chat.head.last_seq, chat.head.log_hash);
        chat.head.now = Timestamp::saturating(now).max(chat.head.last_at);
        chat.head.last_at = chat.head.now;
        let entry = next_entry(chat_id, seq, &hash, chat.head.now, body.clone());
        let forgets = match &body {
            EntryBody::SessionOut(SessionOut::Expired { .. }) => Some(Rule::ExpiryRaisesEpoch),
            EntryBody::Membership(_) => Some(Rule::RemovalRaisesEpoch),
            _ => None,
        };
        chat.head.append(body);
        if forgets.is_some() && forgets == self.dropped {
            chat.head.epoch = before;
        }
        chat.fold.apply(&entry);
        chat.log.push(entry);
        self.seal(chat_id);
        self.chats[&chat_id].head.last_seq.get()
    }

    fn seal(&mut self, chat_id: ChatId) {
        let sessions: Vec<SessionId> = self.recipients(chat_id).into_keys().collect();
        let hash = roster_hash(sessions.into_iter().map(|id| (id, exchange_key(id))), None);
        self.chats.get_mut(&chat_id).unwrap().head.roster_hash = hash;
    }

    /// Takes a session out of all chats of its user, whose rows are locked.
    pub fn end_session(&mut self, session_id: SessionId, now: u64, out: SessionOut, state: State) -> Vec<ChatId> {
        let user_id = self.sessions[&session_id].user_id;
        self.sessions.get_mut(&session_id).unwrap().state = state;
        let chats = self.chats_of(user_id);
        for chat_id in &chats {
            self.append(*chat_id, now, EntryBody::SessionOut(out.clone()));
        }
        chats
    }

    pub fn certificate(&self, session_id: SessionId) -> SignedCertificate {
        let row = &self.sessions[&session_id];
        let certificate = Certificate {
            user_id: row.user_id,
            place: Place::saturating(1),
            previous: Hash([0; 32]),
            session_id,
            public_key: exchange_key(session_id),
            signing_public_key: SigningKey([0; 32]),
            created_at: Timestamp::default(),
            expired_at: Timestamp::saturating(row.expired_at),
        };
        SignedCertificate { certificate, signature: Signature([0; 64]) }
    }

    pub fn found(&mut self, chat_id: ChatId, signed: SignedChange, now: u64) {
        let owner = signed.change.actor.user_id;
        let membership = Membership::create(chat_id, &signed).unwrap();
        let fold = Fold::new(chat_id);
        let head = ChatHead::new(chat_id, owner, fold.log_hash, Timestamp::saturating(now));
        let row = ChatRow {
            head,
            membership,
            log: Vec::new(),
            keys: BTreeMap::new(),
            revisions: BTreeMap::new(),
            fold,
            locked_by: None,
            orphans: BTreeSet::new(),
        };
        self.chats.insert(chat_id, row);
        self.append(chat_id, now, EntryBody::Membership(signed));
        for session_id in self.live_sessions(owner) {
            let certificate = self.certificate(session_id);
            self.append(chat_id, now, EntryBody::SessionIn(certificate));
        }
    }

    /// Writes a membership change that was judged.
    pub fn change(&mut self, chat_id: ChatId, signed: &SignedChange, membership: Membership, now: u64) -> u64 {
        let target = signed.change.target.user_id;
        let was_in = self.chats[&chat_id].membership.members.contains_key(&target);
        let chat = self.chats.get_mut(&chat_id).unwrap();
        chat.membership = membership;
        let is_in = chat.membership.members.contains_key(&target);
        let seq = self.append(chat_id, now, EntryBody::Membership(signed.clone()));
        let sessions = self.live_sessions(target);
        if is_in && !was_in {
            for session_id in sessions {
                let certificate = self.certificate(session_id);
                self.append(chat_id, now, EntryBody::SessionIn(certificate));
            }
        } else if was_in && !is_in {
            let keys = &mut self.chats.get_mut(&chat_id).unwrap().keys;
            keys.values_mut().for_each(|key| key.copies.retain(|id| !sessions.contains(id)));
        }
        seq
    }

    pub fn load(&self, chat_id: ChatId, since: Option<u64>, now: u64) -> LoadedChat {
        let chat = &self.chats[&chat_id];
        let recipients = self.recipients(chat_id);
        let members = chat.membership.members.iter().map(|(user_id, member)| {
            let loaded = LoadedMember {
                can_write: member.can_write,
                joined_seq: member.joined_seq,
                joined_at: chat.log[member.joined_seq.get() as usize - 1].created_at,
                can_manage: member.can_manage,
                readable_from: member.readable_from,
                has_user_key: false,
            };
            (*user_id, loaded)
        });
        let mut newest: BTreeMap<SessionId, (Timestamp, KeyId)> = BTreeMap::new();
        for (key_id, key) in &chat.keys {
            if key.announcement.announcement.epoch == chat.head.epoch {
                let place = newest.entry(key.announcement.announcement.session_id).or_insert((key.created_at, *key_id));
                *place = (*place).max((key.created_at, *key_id));
            }
        }
        let keys = newest.into_values().map(|(_, key_id)| {
            let key = &chat.keys[&key_id];
            let lacks = |id: &&SessionId| !key.copies.contains(*id);
            let is_covered = key.covered_version == Some(chat.head.roster_version.get());
            let missing: BTreeSet<SessionId> =
                if is_covered { BTreeSet::new() } else { recipients.keys().filter(lacks).copied().collect() };
            let refused = key.refused.iter().filter(|id| !key.copies.contains(id)).map(|id| (*id, false)).collect();
            let loaded = LoadedKey {
                announcement: key.announcement.clone(),
                last_counter: Counter::saturating(key.last_counter),
                created_at: key.created_at,
                missing,
                archived: None,
                refused,
            };
            (key_id, loaded)
        });
        let loaded_recipients = recipients
            .iter()
            .map(|(id, user_id)| (*id, LoadedRecipient { user_id: *user_id, public_key: exchange_key(*id) }));
        let news: &[LogEntry] = since.map_or(&[], |since| &chat.log[chat.log.len().min(since as usize)..]);
        LoadedChat {
            last_seq: chat.head.last_seq,
            log_hash: chat.head.log_hash,
            last_at: chat.head.last_at,
            epoch: chat.head.epoch,
            roster_version: chat.head.roster_version,
            roster_hash: chat.head.roster_hash,
            expiry_due: self.expiry_due(chat_id, now),
            members: members.collect(),
            recipients: loaded_recipients.collect(),
            recovery: None,
            generation_due: None,
            keys: keys.collect(),
            since: (news.len() as u64 <= PAGE * 2).then(|| news.to_vec()),
        }
    }

    pub fn find(&self, chat_id: ChatId, message_id: MessageId, revision: Revision) -> Option<&LogEntry> {
        let chat = self.chats.get(&chat_id)?;
        let seq = chat.revisions.get(&(message_id, revision.get()))?;
        chat.log.get(*seq as usize - 1)
    }

    pub fn message_head(&self, chat_id: ChatId, message_id: MessageId) -> Option<MessageHead> {
        let chat = &self.chats[&chat_id];
        let range = chat.revisions.range((message_id, 0)..=(message_id, u64::MAX));
        let ((_, revision), newest) = range.clone().next_back()?;
        let first = *range.clone().next()?.1;
        let newest = envelope(&chat.log[*newest as usize - 1])?;
        Some(MessageHead {
            sender_id: envelope(&chat.log[first as usize - 1])?.sender_id,
            first_seq: Seq::saturating(first),
            revision: Revision::saturating(*revision),
            is_deleted: newest.kind == MessageKind::Delete,
        })
    }

    /// The newest entry of a chat, for its members' live sessions.
    pub fn newest_seq(&self, who: Requester, chat_id: ChatId) -> Option<Seq> {
        self.page(who, chat_id, 0).map(|_| self.chats[&chat_id].head.last_seq)
    }

    /// Entries after a place as a session may read them; none if it is a stranger.
    pub fn page(&self, who: Requester, chat_id: ChatId, after: u64) -> Option<Page> {
        let chat = &self.chats[&chat_id];
        let member = chat.membership.members.get(&who.user_id)?;
        if self.sessions[&who.session_id].state != State::Live {
            return None;
        }
        let after = after.max(member.readable_from.get() - 1).min(chat.head.last_seq.get());
        let end = (after + PAGE).min(chat.head.last_seq.get());
        let entries = chat.log[after as usize..end as usize].to_vec();
        Some(Page { after, entries, more: end < chat.head.last_seq.get() })
    }

    pub fn positions(&self, who: Requester) -> Vec<ChatPosition> {
        let of = |(chat_id, chat): (&ChatId, &ChatRow)| {
            let member = chat.membership.members.get(&who.user_id)?;
            let joined_seq = member.joined_seq;
            Some(ChatPosition { chat_id: *chat_id, joined_seq, last_seq: chat.head.last_seq })
        };
        self.chats.iter().filter_map(of).collect()
    }

    /// Locks what is free of a batch's chats, and judges it by the real rules.
    pub fn begin_batch(&mut self, tx: u64, items: &mut [Arc<Item>], now: u64) -> Batch {
        let mut evidence = Evidence::default();
        let mut present: HashSet<MessageName> = HashSet::new();
        for item in items.iter() {
            let chat_id = item.chat_id;
            let is_known = evidence.chats.contains_key(&chat_id);
            if !is_known {
                let is_held = self.chats[&chat_id].locked_by.is_some();
                if is_held && self.holds(Rule::CommitLocks) {
                    continue;
                }
                if !is_held {
                    self.chats.get_mut(&chat_id).unwrap().locked_by = Some(tx);
                }
                let head = &self.chats[&chat_id].head;
                let row = Locked {
                    last_seq: number(head.last_seq.get()),
                    log_hash: head.log_hash,
                    epoch: number(head.epoch.get()),
                    roster_version: number(head.roster_version.get()),
                    expiry_due: self.expiry_due(chat_id, now),
                };
                evidence.chats.insert(chat_id, row);
            }
            let chat = &self.chats[&chat_id];
            if let (Some(name), Some(key)) = (key_name(item), item.key_id.and_then(|id| chat.keys.get(&id))) {
                let row = StoredKey {
                    sender_session_id: key.announcement.announcement.session_id.0,
                    epoch: number(key.announcement.announcement.epoch.get()),
                    last_counter: number(key.last_counter),
                    was_covered: key.covered_version == Some(chat.head.roster_version.get()),
                };
                evidence.keys.insert(name, row);
            }
            if let Some((_, id, revision)) = message_name(item) {
                if chat.revisions.contains_key(&(MessageId(id), revision as u64)) {
                    present.insert((chat_id.0, id, revision));
                }
                if let Some((_, id, _)) = revision_of(item)
                    && let Some(head) = self.message_head(chat_id, MessageId(id))
                {
                    let newest = NewestRevision { revision: number(head.revision.get()), is_deleted: head.is_deleted };
                    evidence.newest.insert((chat_id.0, id), newest);
                }
            }
        }
        if !self.holds(Rule::CommitLooksAgain) {
            self.take_their_word(items, &mut evidence);
        }
        self.judge_with_copies(items, evidence, present)
    }

    /// The rule that is dropped: items go behind what is in the log, whatever they were judged by.
    fn take_their_word(&self, items: &mut [Arc<Item>], evidence: &mut Evidence) {
        let mut ends: HashMap<ChatId, (u64, Hash)> = HashMap::new();
        for item in items.iter_mut() {
            let Some(row) = evidence.chats.get_mut(&item.chat_id) else { continue };
            let head = &self.chats[&item.chat_id].head;
            let (seq, hash) = ends.entry(item.chat_id).or_insert((head.last_seq.get(), head.log_hash));
            let mut moved = Item::clone(item);
            (moved.previous, moved.previous_hash) = (Seq::saturating(*seq), *hash);
            if let Some(entry) = moved.entry.take() {
                let entry = next_entry(item.chat_id, moved.previous, hash, entry.created_at, entry.body);
                (*seq, *hash) = (entry.seq.get(), entry.log_hash);
                moved.entry = Some(entry);
            }
            moved.epoch = head.epoch;
            moved.roster_version = head.roster_version;
            row.expiry_due = false;
            if let Some(key) = key_name(item).and_then(|name| evidence.keys.get_mut(&name)) {
                key.epoch = row.epoch;
                key.was_covered = true;
            }
            *item = Arc::new(moved);
        }
    }

    fn judge_with_copies(&mut self, items: &[Arc<Item>], evidence: Evidence, present: HashSet<MessageName>) -> Batch {
        let mut uncovered = HashSet::new();
        loop {
            let mut copy = evidence.clone();
            let verdicts = judge(items, &mut copy, present.clone(), &uncovered);
            let is_accepted = |(_, verdict): &(_, &Verdict)| **verdict == Verdict::Done(Outcome::Committed);
            let accepted: Vec<Arc<Item>> =
                items.iter().zip(&verdicts).filter(is_accepted).map(|(item, _)| Arc::clone(item)).collect();
            let more = self.uncovered(&accepted, &copy);
            if more.is_empty() || !self.holds(Rule::CommitCountsCopies) || !self.holds(Rule::CommitLooksAgain) {
                return Batch { verdicts, accepted };
            }
            uncovered.extend(more);
        }
    }

    /// Chats with a message whose key's copies, with those of the batch, are not the recipients.
    fn uncovered(&self, accepted: &[Arc<Item>], evidence: &Evidence) -> HashSet<ChatId> {
        let mut copies: BTreeMap<(ChatId, KeyId), BTreeSet<SessionId>> = BTreeMap::new();
        for item in accepted {
            let Some(key_id) = item.key_id else { continue };
            let known = || self.chats[&item.chat_id].keys.get(&key_id).map(|key| key.copies.clone());
            let all = copies.entry((item.chat_id, key_id)).or_insert_with(|| known().unwrap_or_default());
            all.extend(item.copies.iter().map(|copy| copy.session_id));
        }
        let lacks = |item: &&Arc<Item>| {
            let (Some(name), Some(key_id)) = (key_name(item), item.key_id) else { return false };
            let is_known = item.copies.is_empty() && evidence.keys.get(&name).is_some_and(|key| key.was_covered);
            let has = &copies[&(item.chat_id, key_id)];
            !is_known && item.entry.is_some() && self.recipients(item.chat_id).keys().any(|id| !has.contains(id))
        };
        accepted.iter().filter(lacks).map(|item| item.chat_id).collect()
    }

    /// Writes what a batch accepted. The chats were locked since it was judged.
    pub fn commit_item(&mut self, item: &Item) {
        let recipients = self.recipients(item.chat_id);
        let chat = self.chats.get_mut(&item.chat_id).unwrap();
        if let Some(key_id) = item.key_id {
            if let Some(new_key) = &item.new_key {
                let row = KeyRow {
                    announcement: new_key.clone(),
                    last_counter: 0,
                    created_at: item.entry.as_ref().map_or(chat.head.last_at, |entry| entry.created_at),
                    covered_version: None,
                    copies: BTreeSet::new(),
                    refused: BTreeSet::new(),
                };
                chat.keys.entry(key_id).or_insert(row);
            }
            if let Some(key) = chat.keys.get_mut(&key_id) {
                key.copies.extend(item.copies.iter().map(|copy| copy.session_id));
                item.copies.iter().for_each(|copy| {
                    key.refused.remove(&copy.session_id);
                });
                key.last_counter = item.counter.get();
                if recipients.keys().all(|id| key.copies.contains(id)) {
                    key.covered_version = Some(chat.head.roster_version.get());
                }
            }
        }
        let Some(entry) = &item.entry else { return };
        if let Some(envelope) = envelope(entry) {
            chat.revisions.insert((envelope.message_id, envelope.revision.get()), entry.seq.get());
        }
        chat.head.last_seq = entry.seq;
        chat.head.log_hash = entry.log_hash;
        chat.head.last_at = entry.created_at;
        chat.fold.apply(entry);
        chat.log.push(entry.clone());
    }

    /// A recipient refuses its copy: it goes, and its key is covered no longer.
    pub fn void_copy(&mut self, chat_id: ChatId, key_id: KeyId, session_id: SessionId) -> bool {
        let chat = self.chats.get_mut(&chat_id).unwrap();
        let Some(key) = chat.keys.get_mut(&key_id) else { return false };
        if key.refused.contains(&session_id) || !key.copies.remove(&session_id) {
            return false;
        }
        key.refused.insert(session_id);
        key.covered_version = None;
        true
    }
}

pub fn envelope(entry: &LogEntry) -> Option<&Envelope> {
    match &entry.body {
        EntryBody::Message(envelope) => Some(envelope),
        _ => None,
    }
}
