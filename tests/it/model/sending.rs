//! From a session's message to its commit: judged by the real [`ChatState`] in the chat's actor, and again by the real
//! [`judge`] under the chat's row lock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sealcast::broker::chat::state::{ChatState, Decision, KeyLimits};
use sealcast::protocol::binary::{Signature, WrappedKey};
use sealcast::protocol::envelope::{Envelope, MessageKind, Seen};
use sealcast::protocol::frame::{NewKey, Send};
use sealcast::protocol::group_key::Archive;
use sealcast::protocol::ids::{ChatId, Counter, GenerationNo, Revision, Timestamp};
use sealcast::protocol::keys::KeyCopy;
use sealcast::protocol::log::next_entry;
use sealcast::protocol::verify::Verifier;
use sealcast::store::batch::Item;
use sealcast::store::judgement::{Evidence, Locked, StoredKey, Verdict, judge, key_name};
use sealcast::store::loaded::LoadedChat;
use sealcast::store::members::Requester;
use sealcast::store::writer::Outcome;

use super::people::{Chat, NOW, Session, chat_id, key_id, message_id, session_id, session_of, user_id, user_of};
use super::rules::Rule;
use super::set::Set;
use super::store::{KeyName, KeyRow, Store, announcement, number};

const LIMITS: KeyLimits =
    KeyLimits { messages_max: 1_000, messages_max_large: 1_000, recipients_large: 100, age_max_micros: 1_000_000 };

/// Says of every signature that it is good: nobody forges here.
struct Trusting;

impl Verifier for Trusting {
    fn key_bytes(&self) -> &[u8; 32] {
        &[0; 32]
    }

    fn verifies(&self, _: &[u8], _: &Signature) -> bool {
        true
    }
}

/// A message as its session makes it: under the key that it made at one view, for the recipients of the same view or of
/// the newest, with an archive for the generation of that or without. It may come in whenever it likes, so every view that
/// there ever was is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sending {
    pub chat: Chat,
    pub session: Session,
    pub made: usize,
    pub as_of: usize,
    pub archives: bool,
}

impl Sending {
    pub const fn key(&self) -> KeyName {
        (self.session, self.made)
    }
}

/// What the chat's actor was loaded from, and what it has accepted since.
#[derive(Debug, Clone)]
pub struct Belief {
    loaded: Arc<LoadedChat>,
    accepted: Vec<(Session, Arc<Send>)>,
}

impl Hash for Belief {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let chat = &self.loaded;
        (chat.last_seq, chat.epoch, chat.roster_version, chat.recovery, chat.generation_due).hash(hasher);
        chat.members.keys().for_each(|id| id.hash(hasher));
        chat.recipients.keys().for_each(|id| id.hash(hasher));
        for (id, key) in &chat.keys {
            (id, key.announcement.announcement.epoch, key.last_counter, &key.missing, key.archived).hash(hasher);
        }
        for (session, send) in &self.accepted {
            let wrapped = send.new_key.iter().flat_map(|new_key| &new_key.copies).chain(&send.add_copies);
            let archive = send.archive.as_ref().map(|archive| archive.generation);
            (session, send.envelope.key_id, send.envelope.counter, archive).hash(hasher);
            wrapped.for_each(|copy| copy.session_id.hash(hasher));
        }
    }
}

impl Belief {
    pub fn of(store: &Store, chat: Chat, dropped: Option<Rule>) -> Self {
        let mut loaded = store.load(chat);
        if dropped == Some(Rule::GenerationComesFirst) {
            loaded.generation_due = None;
        }
        Self { loaded: Arc::new(loaded), accepted: Vec::new() }
    }

    /// Whether a load might say something else by now.
    pub fn is_old(&self, store: &Store, chat: Chat) -> bool {
        let newest = &store.chats[chat].head;
        self.loaded.roster_version != newest.roster_version || !self.accepted.is_empty()
    }

    fn state(&self, chat: Chat) -> ChatState {
        let mut state = ChatState::new(chat_id(chat), LoadedChat::clone(&self.loaded), LIMITS);
        for (session, send) in &self.accepted {
            let decision = state.submit(Timestamp::saturating(NOW), who(*session), &Trusting, send, None);
            assert!(!matches!(decision, Decision::Refuse(_)), "what was accepted once is accepted again");
        }
        state
    }

    /// Lets the actor judge a message; gives what goes to the writer, unless it is refused.
    pub fn submit(&mut self, store: &Store, sending: Sending, send: Send, dropped: Option<Rule>) -> Option<Item> {
        let mut send = send;
        if dropped == Some(Rule::KeyCarriesItsEpoch)
            && let Some(new_key) = &mut send.new_key
        {
            new_key.announcement.announcement.epoch = store.chats[sending.chat].head.epoch;
        }
        let is_archived = send.archive.is_some();
        if dropped == Some(Rule::ArchiveIsCounted) {
            send.archive = send.archive.or_else(|| self.loaded.recovery.map(archive));
        }
        let mut state = self.state(sending.chat);
        let now = Timestamp::saturating(NOW);
        let mut item = match state.submit(now, who(sending.session), &Trusting, &send, None) {
            Decision::Append(item) | Decision::StoreKey(item, _) => *item,
            Decision::Refuse(_) => return None,
        };
        item.archive = item.archive.filter(|_| is_archived);
        self.accepted.push((sending.session, Arc::new(send)));
        Some(item)
    }
}

fn who(session: Session) -> Requester {
    Requester { user_id: user_id(user_of(session)), session_id: session_id(session) }
}

/// A message, or a key with copies alone, between the actor and its commit.
#[derive(Debug, Clone)]
pub struct InFlight {
    pub key: KeyName,
    pub item: Arc<Item>,
    pub held: Held,
}

/// For whom a key has been wrapped with a message, and to which generations sealed: whether or not it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    pub wrapped_for: Set,
    pub sealed_to: BTreeSet<u64>,
}

impl Hash for InFlight {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let item = &self.item;
        (self.key, &self.held, item.previous, item.epoch, item.roster_version, item.counter).hash(hasher);
        (item.entry.is_some(), item.new_key.is_some(), copies_of(item), archived_by(item)).hash(hasher);
        item.new_key.as_ref().map(|new_key| new_key.announcement.epoch).hash(hasher);
    }
}

fn copies_of(item: &Item) -> Set {
    Set::of(item.copies.iter().map(|copy| session_of(copy.session_id)))
}

fn archived_by(item: &Item) -> Option<u64> {
    item.archive.as_ref().map(|archive| archive.generation.get())
}

fn archive(generation: GenerationNo) -> Archive {
    Archive { generation, key: WrappedKey([0; 80]) }
}

/// Makes the frame, with the key if neither the store nor what is on its way has it, else with the copies that it lacks.
pub fn frame(store: &Store, in_flight: &[InFlight], sending: Sending) -> (Send, Held) {
    let Sending { chat, session, as_of, archives, .. } = sending;
    let row = &store.chats[chat];
    let (made, view) = (&row.views[sending.made], &row.views[as_of]);
    let stored = row.keys.get(&sending.key());
    let on_its_way = || in_flight.iter().filter(|other| other.key == sending.key());
    let sent = on_its_way().filter(|other| other.item.entry.is_some()).count() as u64;
    let counter = stored.map_or(0, |key| key.last_counter) + sent + 1;
    let is_known = stored.is_some() || on_its_way().next().is_some();
    let copies = on_its_way().map(|other| copies_of(&other.item)).fold(Set::default(), Set::with);
    let copies = copies.with(stored.map_or(Set::default(), |key| key.copies));
    let key_id = key_id(session, sending.made);
    let wrap = |set: Set| -> Vec<KeyCopy> {
        set.iter().map(|session| KeyCopy { session_id: session_id(session), key: WrappedKey([0; 80]) }).collect()
    };
    let generation = view.generation().filter(|_| archives);
    let mut sealed_to: BTreeSet<u64> = generation.iter().map(|number| number.get()).collect();
    let (new_key, add_copies, wrapped_for) = if is_known {
        let lacking = view.recipients().without(copies);
        (None, wrap(lacking), lacking)
    } else {
        let announcement = announcement(sending.key(), made.epoch().get());
        let new_key = NewKey { announcement, copies: wrap(view.recipients()), staged: None };
        sealed_to.extend(made.generation().map(GenerationNo::get));
        (Some(new_key), Vec::new(), made.recipients().with(view.recipients()))
    };
    let envelope = Envelope {
        kind: MessageKind::Message,
        message_id: message_id(session, sending.made, counter),
        revision: Revision::default(),
        sender_id: user_id(user_of(session)),
        sender_session_id: session_id(session),
        key_id: Some(key_id),
        counter: Counter::saturating(counter),
        roster_hash: view.folded.fold.roster_hash(),
        seen: Seen { seq: view.seq, log_hash: view.log_hash },
        attachments: Vec::new(),
        data: Some(vec![0; 28].into()),
        purged: None,
        signature: Signature([0; 64]),
    };
    let archive = generation.map(archive);
    (Send { chat_id: chat_id(chat), envelope, new_key, add_copies, archive }, Held { wrapped_for, sealed_to })
}

/// Judges what waits for a chat under its row's lock; gives what may be committed, in order.
pub fn judge_waiting(store: &Store, chat: Chat, waiting: &[InFlight], dropped: Option<Rule>) -> Vec<InFlight> {
    let row = &store.chats[chat];
    let head = &row.head;
    let mut waiting = waiting.to_vec();
    let locked = Locked {
        last_seq: number(head.last_seq.get()),
        log_hash: head.log_hash,
        epoch: number(head.epoch.get()),
        roster_version: number(head.roster_version.get()),
        expiry_due: store.expiry_due(chat) && dropped != Some(Rule::ExpiryIsJudged),
    };
    let mut evidence = Evidence { chats: HashMap::from([(chat_id(chat), locked)]), ..Evidence::default() };
    for other in &waiting {
        if let (Some(name), Some(key)) = (key_name(&other.item), row.keys.get(&other.key)) {
            let stored = StoredKey {
                sender_session_id: session_id(other.key.0).0,
                epoch: number(key.epoch),
                last_counter: number(key.last_counter),
                was_covered: key.covered_version == Some(head.roster_version.get()),
            };
            evidence.keys.insert(name, stored);
        }
    }
    if dropped == Some(Rule::CommitLooksAgain) {
        take_their_word(store, chat, &mut waiting, &mut evidence);
    }
    let items: Vec<Arc<Item>> = waiting.iter().map(|other| Arc::clone(&other.item)).collect();
    let mut uncovered: HashSet<ChatId> = HashSet::new();
    loop {
        let mut copy = evidence.clone();
        let verdicts = judge(&items, &mut copy, HashSet::new(), &uncovered);
        let is_accepted = |(_, verdict): &(_, Verdict)| *verdict == Verdict::Done(Outcome::Committed);
        let accepted: Vec<InFlight> =
            waiting.iter().cloned().zip(verdicts).filter(is_accepted).map(|(other, _)| other).collect();
        let counts = !matches!(dropped, Some(Rule::CommitCountsCopies | Rule::CommitLooksAgain));
        if !counts || !uncovered.is_empty() || is_covered(store, chat, &accepted, &copy, dropped) {
            return accepted;
        }
        uncovered.insert(chat_id(chat));
    }
}

/// The rule that is dropped: items go behind what is in the log, whatever they were judged by.
fn take_their_word(store: &Store, chat: Chat, waiting: &mut [InFlight], evidence: &mut Evidence) {
    let head = &store.chats[chat].head;
    let (mut seq, mut hash) = (head.last_seq, head.log_hash);
    for other in waiting {
        let mut item = Item::clone(&other.item);
        (item.previous, item.previous_hash, item.epoch, item.roster_version) =
            (seq, hash, head.epoch, head.roster_version);
        if let Some(entry) = item.entry.take() {
            let entry = next_entry(chat_id(chat), seq, &hash, entry.created_at, entry.body);
            (seq, hash) = (entry.seq, entry.log_hash);
            item.entry = Some(entry);
        }
        if let Some(key) = key_name(&item).and_then(|name| evidence.keys.get_mut(&name)) {
            key.epoch = number(head.epoch.get());
        }
        other.item = Arc::new(item);
    }
}

/// Whether the copies of all keys that messages use are, with those that come with them, the recipients, and their
/// archives reach the generation that receives: the statement `COVER_KEYS`, which the writer runs for keys that are not
/// known to be covered.
fn is_covered(store: &Store, chat: Chat, accepted: &[InFlight], evidence: &Evidence, dropped: Option<Rule>) -> bool {
    let recipients = store.recipients(chat);
    let generation = store.chats[chat].head.recovery_key().map(|key| key.generation.get());
    let generation = generation.filter(|_| dropped != Some(Rule::ArchiveIsCounted));
    accepted.iter().filter(|other| other.item.entry.is_some()).all(|other| {
        let was_covered =
            key_name(&other.item).and_then(|name| evidence.keys.get(&name)).is_some_and(|key| key.was_covered);
        let stored = store.chats[chat].keys.get(&other.key);
        let of_key = || accepted.iter().filter(|more| more.key == other.key).map(|more| &more.item);
        let copies =
            of_key().map(|item| copies_of(item)).fold(stored.map_or(Set::default(), |key| key.copies), Set::with);
        let is_archived = generation.is_none_or(|number| {
            stored.is_some_and(|key| key.archived.contains(&number))
                || of_key().any(|item| archived_by(item) == Some(number))
        });
        let is_unchanged = other.item.copies.is_empty() && other.item.archive.is_none();
        was_covered && is_unchanged || copies == recipients && is_archived
    })
}

impl Store {
    /// Writes what may be committed.
    pub fn commit(&mut self, chat: Chat, accepted: &InFlight) {
        let recipients = self.recipients(chat);
        let row = &mut self.chats[chat];
        let item = &accepted.item;
        let stored_at = row.head.last_seq.get();
        let key = row.keys.entry(accepted.key).or_insert_with(|| KeyRow {
            epoch: item.new_key.as_ref().map_or(0, |new_key| new_key.announcement.epoch.get()),
            last_counter: 0,
            first_seq: None,
            stored_at,
            covered_version: None,
            copies: Set::default(),
            refused: Set::default(),
            wrapped_for: Set::default(),
            archived: BTreeSet::new(),
            sealed_to: BTreeSet::new(),
        });
        key.copies = key.copies.with(copies_of(item));
        key.refused = key.refused.without(copies_of(item));
        key.wrapped_for = key.wrapped_for.with(accepted.held.wrapped_for);
        key.archived.extend(archived_by(item));
        key.sealed_to.extend(&accepted.held.sealed_to);
        key.last_counter = item.counter.get();
        let generation = row.head.recovery_key().map(|key| key.generation.get());
        if key.copies == recipients && generation.is_none_or(|number| key.archived.contains(&number)) {
            key.covered_version = Some(row.head.roster_version.get());
        }
        let Some(entry) = &item.entry else { return };
        key.first_seq = key.first_seq.or(Some(entry.seq.get()));
        row.head.last_seq = entry.seq;
        row.head.log_hash = entry.log_hash;
        row.hashes.push(entry.log_hash);
    }

    /// A recipient refuses its copy of a key: it goes, and the key is covered no longer.
    pub fn void_copy(&mut self, chat: Chat, key: KeyName, session: Session) {
        let Some(key) = self.chats[chat].keys.get_mut(&key) else { return };
        key.copies = key.copies.without(Set::of([session]));
        key.refused = key.refused.with(Set::of([session]));
        key.covered_version = None;
    }

    /// What an honest session sends next: under its newest key of the epoch that it knows, or a new one.
    pub fn honest(&self, chat: Chat, session: Session) -> Sending {
        let newest = self.chats[chat].views.len() - 1;
        let current = self.current_keys(chat).into_iter().find(|(of, _)| *of == session);
        let made = current.map_or(newest, |(_, view)| view);
        let archives = self.chats[chat].views[newest].generation().is_some();
        Sending { chat, session, made, as_of: newest, archives }
    }
}
