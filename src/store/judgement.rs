//! The rules of a commit, as plain data: what the locked rows allow (P4, P5).
//!
//! Chat actors judge the same before; these rules are the ones that count. No I/O.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::batch::Item;
use super::rows::bigint;
use super::writer::Outcome;
use crate::protocol::binary::Hash;
use crate::protocol::envelope::{Envelope, MessageKind};
use crate::protocol::ids::ChatId;
use crate::protocol::log::EntryBody;

/// What is to be said of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is over.
    Done(Outcome),
    /// Its chat's row is locked by somebody else: try again soon.
    Busy,
}

/// A chat's row under its lock, as the items of this batch move it on.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The newest entry.
    pub last_seq: i64,
    /// The log's hash with it.
    pub log_hash: Hash,
    /// The epoch.
    pub epoch: i64,
    /// The seq of the last entry that changed the recipients.
    pub roster_version: i64,
    /// Whether an expiry waits to be written down.
    pub expiry_due: bool,
}

/// A key by its chat and id: the ids are their makers' choice, so two chats may use the same one.
pub type KeyName = (Uuid, Uuid);

/// The key that an item uses.
#[must_use]
pub fn key_name(item: &Item) -> Option<KeyName> {
    item.key_id.map(|key_id| (item.chat_id.0, key_id.0))
}

/// A revision of a message by its chat, id and number.
pub type MessageName = (Uuid, Uuid, i64);

pub(super) fn envelope(item: &Item) -> Option<&Envelope> {
    match item.entry.as_ref().map(|entry| &entry.body) {
        Some(EntryBody::Message(envelope)) => Some(envelope),
        _ => None,
    }
}

/// The revision that an item writes.
#[must_use]
pub fn message_name(item: &Item) -> Option<MessageName> {
    envelope(item).map(|envelope| (item.chat_id.0, envelope.message_id.0, bigint(envelope.revision)))
}

/// The message that an item edits or deletes, and the revision that this makes.
#[must_use]
pub fn revision_of(item: &Item) -> Option<MessageName> {
    message_name(item).filter(|_| envelope(item).is_some_and(|envelope| envelope.kind != MessageKind::Message))
}

/// The newest revision of a message, as the items of this batch move it on.
#[derive(Debug, Clone)]
pub struct NewestRevision {
    /// Its number.
    pub revision: i64,
    /// Whether it is a deletion.
    pub is_deleted: bool,
}

/// A stored key, as the items of this batch move it on.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// Whose it is.
    pub sender_session_id: Uuid,
    /// The epoch that its maker signed.
    pub epoch: i64,
    /// The counter of its newest message.
    pub last_counter: i64,
    /// Whether the store knew before this batch that its copies are the recipients; else it counts them.
    pub was_covered: bool,
}

/// What a batch is judged by, read under the locks.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The chats whose rows are locked.
    pub chats: HashMap<ChatId, Locked>,
    /// The keys of the batch that are stored.
    pub keys: HashMap<KeyName, StoredKey>,
    /// By chat and message: of those that the batch edits or deletes.
    pub newest: HashMap<(Uuid, Uuid), NewestRevision>,
}

/// Judges items against what the locked rows say (P4, P5).
///
/// `present` are messages that are in the log; those that are accepted join them, or one id twice in one batch
/// would fail the batch as a whole.
pub fn judge(
    items: &[Arc<Item>],
    evidence: &mut Evidence,
    mut present: HashSet<MessageName>,
    uncovered: &HashSet<ChatId>,
) -> Vec<Verdict> {
    let mut stopped: HashSet<ChatId> = HashSet::new();
    let mut verdicts = Vec::with_capacity(items.len());
    let Evidence { chats, keys, newest } = evidence;
    for item in items {
        let verdict = match chats.get_mut(&item.chat_id) {
            None => Verdict::Busy,
            Some(_) if stopped.contains(&item.chat_id) => Verdict::Done(Outcome::Conflict),
            Some(_) if uncovered.contains(&item.chat_id) => Verdict::Done(Outcome::Conflict),
            Some(chat) => Verdict::Done(judge_item(item, chat, keys, newest, &mut present)),
        };
        if matches!(verdict, Verdict::Done(outcome) if outcome != Outcome::Committed) {
            stopped.insert(item.chat_id);
        }
        verdicts.push(verdict);
    }
    verdicts
}

fn judge_item(
    item: &Item,
    chat: &mut Locked,
    keys: &mut HashMap<KeyName, StoredKey>,
    newest: &mut HashMap<(Uuid, Uuid), NewestRevision>,
    present: &mut HashSet<MessageName>,
) -> Outcome {
    let is_current = chat.last_seq == bigint(item.previous)
        && chat.log_hash == item.previous_hash
        && chat.epoch == bigint(item.epoch)
        && chat.roster_version == bigint(item.roster_version)
        && !chat.expiry_due;
    if !is_current {
        return Outcome::Conflict;
    }
    let message = message_name(item);
    let revised = revision_of(item);
    match revised {
        Some((chat_id, message_id, revision)) => {
            let before = newest.get(&(chat_id, message_id));
            if before.is_none_or(|before| before.is_deleted || before.revision + 1 != revision) {
                return Outcome::Conflict;
            }
        }
        None if message.is_some_and(|message| present.contains(&message)) => return Outcome::IdTaken,
        None => {}
    }
    if let Some(name) = key_name(item)
        && let Err(outcome) = judge_key(item, name, chat, keys)
    {
        return outcome;
    }
    if let (Some((chat_id, message_id, revision)), Some(envelope)) = (revised, envelope(item)) {
        let is_deleted = envelope.kind == MessageKind::Delete;
        newest.insert((chat_id, message_id), NewestRevision { revision, is_deleted });
    }
    if let Some(entry) = &item.entry {
        chat.last_seq = bigint(entry.seq);
        chat.log_hash = entry.log_hash;
    }
    present.extend(message);
    Outcome::Committed
}

/// Judges the use of a key, and takes its counter.
fn judge_key(item: &Item, name: KeyName, chat: &Locked, keys: &mut HashMap<KeyName, StoredKey>) -> Result<(), Outcome> {
    let counter = bigint(item.counter);
    match (&item.new_key, keys.get_mut(&name)) {
        (Some(_), Some(_)) => Err(Outcome::KeyTaken),
        (Some(new_key), None) => {
            if bigint(new_key.announcement.epoch) != chat.epoch {
                return Err(Outcome::Conflict);
            }
            let key = StoredKey {
                sender_session_id: item.sender_session_id.0,
                epoch: chat.epoch,
                last_counter: counter,
                was_covered: false,
            };
            keys.insert(name, key);
            Ok(())
        }
        (None, None) => Err(Outcome::Conflict),
        (None, Some(key)) => {
            let is_usable = key.sender_session_id == item.sender_session_id.0
                && key.epoch == chat.epoch
                && (item.entry.is_none() || key.last_counter + 1 == counter);
            if !is_usable {
                return Err(Outcome::Conflict);
            }
            key.last_counter = counter;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::binary::Signature;
    use crate::protocol::envelope::Seen;
    use crate::protocol::ids::{Counter, Epoch, KeyId, MessageId, Revision, Seq, SessionId, Timestamp, UserId};
    use crate::protocol::keys::{Announcement, SignedAnnouncement};
    use crate::protocol::log::LogEntry;

    const EPOCH: u64 = 3;
    const ROSTER: u64 = 7;

    fn item(chat_id: ChatId, key_id: KeyId, previous: u64, counter: u64, session: SessionId) -> Item {
        Item {
            chat_id,
            previous: Seq::saturating(previous),
            previous_hash: hash_of(previous),
            epoch: Epoch::saturating(EPOCH),
            roster_version: Seq::saturating(ROSTER),
            key_id: Some(key_id),
            counter: Counter::saturating(counter),
            sender_session_id: session,
            entry: None,
            new_key: None,
            copies: Vec::new(),
            archive: None,
        }
    }

    fn hash_of(seq: u64) -> Hash {
        Hash([u8::try_from(seq).unwrap(); 32])
    }

    fn locked() -> Locked {
        Locked {
            last_seq: 9,
            log_hash: hash_of(9),
            epoch: EPOCH as i64,
            roster_version: ROSTER as i64,
            expiry_due: false,
        }
    }

    fn stored(session: SessionId) -> StoredKey {
        StoredKey { sender_session_id: session.0, epoch: EPOCH as i64, last_counter: 4, was_covered: true }
    }

    /// Judges one item against a chat and a key that something was done to.
    fn verdict(change: impl FnOnce(&mut Locked, &mut StoredKey, &mut Item)) -> Verdict {
        let (chat_id, key_id, session) = (ChatId::generate(), KeyId::generate(), SessionId::generate());
        let (mut chat, mut key, mut item) = (locked(), stored(session), item(chat_id, key_id, 9, 4, session));
        change(&mut chat, &mut key, &mut item);
        let keys = HashMap::from([((chat_id.0, key_id.0), key)]);
        let mut evidence = Evidence { chats: HashMap::from([(chat_id, chat)]), keys, ..Evidence::default() };
        judge(&[Arc::new(item)], &mut evidence, HashSet::new(), &HashSet::new())[0]
    }

    #[test]
    fn p5_what_was_judged_by_another_epoch_roster_or_place_is_not_committed() {
        assert_eq!(verdict(|_, _, _| {}), Verdict::Done(Outcome::Committed));
        let changes: [fn(&mut Locked, &mut StoredKey, &mut Item); 7] = [
            |chat, _, _| chat.epoch += 1,
            |chat, _, _| chat.roster_version += 1,
            |chat, _, _| chat.last_seq += 1,
            |chat, _, _| chat.log_hash = hash_of(8),
            |chat, _, _| chat.expiry_due = true,
            |_, key, _| key.epoch -= 1,
            |_, key, _| key.sender_session_id = SessionId::generate().0,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_eq!(verdict(change), Verdict::Done(Outcome::Conflict), "change {index}");
        }
    }

    #[test]
    fn a_chat_that_somebody_else_holds_is_busy_and_a_failure_stops_its_own_chat_alone() {
        let (held, broken, good) = (ChatId::generate(), ChatId::generate(), ChatId::generate());
        let (key_id, session) = (KeyId::generate(), SessionId::generate());
        let items: Vec<Arc<Item>> = [(held, 9), (broken, 8), (good, 9), (broken, 9), (good, 9)]
            .map(|(chat_id, previous)| Arc::new(item(chat_id, key_id, previous, 4, session)))
            .into();
        let chats = HashMap::from([(broken, locked()), (good, locked())]);
        let keys = HashMap::from([broken, good].map(|chat_id| ((chat_id.0, key_id.0), stored(session))));
        let mut evidence = Evidence { chats, keys, ..Evidence::default() };
        let verdicts = judge(&items, &mut evidence, HashSet::new(), &HashSet::new());
        let (done, conflict) = (Verdict::Done(Outcome::Committed), Verdict::Done(Outcome::Conflict));
        assert_eq!(verdicts, [Verdict::Busy, conflict, done, conflict, done]);
    }

    /// A message, an edit or a deletion without a key, as the next entry of a chat.
    fn revision(chat_id: ChatId, message_id: MessageId, previous: u64, revision: u64, kind: MessageKind) -> Item {
        let envelope = Envelope {
            kind,
            message_id,
            revision: Revision::saturating(revision),
            sender_id: UserId::generate(),
            sender_session_id: SessionId::generate(),
            key_id: None,
            counter: Counter::default(),
            roster_hash: Hash([0; 32]),
            seen: Seen { seq: Seq::default(), log_hash: Hash([0; 32]) },
            attachments: Vec::new(),
            data: None,
            purged: None,
            signature: Signature([0; 64]),
        };
        let entry = LogEntry {
            seq: Seq::saturating(previous + 1),
            created_at: Timestamp::default(),
            log_hash: hash_of(previous + 1),
            body: EntryBody::Message(envelope),
        };
        let unused = item(chat_id, KeyId::generate(), previous, 0, SessionId::generate());
        Item { key_id: None, entry: Some(entry), ..unused }
    }

    #[test]
    fn only_the_revision_after_the_newest_is_committed_and_none_after_a_deletion() {
        let (chat_id, message_id) = (ChatId::generate(), MessageId::generate());
        let (edit, delete) = (MessageKind::Edit, MessageKind::Delete);
        let verdicts = |newest: Option<(i64, bool)>, revisions: &[(u64, MessageKind)]| {
            let items: Vec<Arc<Item>> = revisions
                .iter()
                .zip(9..)
                .map(|((number, kind), previous)| Arc::new(revision(chat_id, message_id, previous, *number, *kind)))
                .collect();
            let newest = newest.map(|(revision, is_deleted)| NewestRevision { revision, is_deleted });
            let newest = newest.into_iter().map(|newest| ((chat_id.0, message_id.0), newest)).collect();
            let mut evidence = Evidence { chats: HashMap::from([(chat_id, locked())]), newest, ..Evidence::default() };
            judge(&items, &mut evidence, HashSet::new(), &HashSet::new())
        };
        let (done, conflict) = (Verdict::Done(Outcome::Committed), Verdict::Done(Outcome::Conflict));
        assert_eq!(verdicts(Some((3, false)), &[(4, edit), (5, edit), (6, delete)]), [done, done, done]);
        assert_eq!(verdicts(Some((3, false)), &[(4, delete), (5, edit)]), [done, conflict]);
        for (newest, number) in [(None, 1), (Some((3, false)), 3), (Some((3, false)), 5), (Some((3, true)), 4)] {
            for kind in [edit, delete] {
                assert_eq!(verdicts(newest, &[(number, kind)]), [conflict], "{newest:?} {number}");
            }
        }
    }

    #[test]
    fn p4_a_chat_whose_copies_are_not_its_recipients_is_not_committed() {
        let (covered, uncovered) = (ChatId::generate(), ChatId::generate());
        let (key_id, session) = (KeyId::generate(), SessionId::generate());
        let items = [covered, uncovered].map(|chat_id| Arc::new(item(chat_id, key_id, 9, 4, session)));
        let chats = HashMap::from([covered, uncovered].map(|chat_id| (chat_id, locked())));
        let keys = HashMap::from([covered, uncovered].map(|chat_id| ((chat_id.0, key_id.0), stored(session))));
        let mut evidence = Evidence { chats, keys, ..Evidence::default() };
        let verdicts = judge(&items, &mut evidence, HashSet::new(), &HashSet::from([uncovered]));
        assert_eq!(verdicts, [Verdict::Done(Outcome::Committed), Verdict::Done(Outcome::Conflict)]);
    }

    #[test]
    fn p2_a_message_that_is_in_the_log_or_in_this_batch_is_not_committed_again() {
        let (chat_id, message_id) = (ChatId::generate(), MessageId::generate());
        let message = |previous| Arc::new(revision(chat_id, message_id, previous, 0, MessageKind::Message));
        let verdicts = |items: &[Arc<Item>], present: &[MessageName]| {
            let mut evidence = Evidence { chats: HashMap::from([(chat_id, locked())]), ..Evidence::default() };
            judge(items, &mut evidence, present.iter().copied().collect(), &HashSet::new())
        };
        let (done, taken) = (Verdict::Done(Outcome::Committed), Verdict::Done(Outcome::IdTaken));
        assert_eq!(verdicts(&[message(9)], &[(chat_id.0, message_id.0, 0)]), [taken]);
        assert_eq!(verdicts(&[message(9), message(10)], &[]), [done, taken]);
        // The same id in another chat is another message.
        assert_eq!(verdicts(&[message(9)], &[(ChatId::generate().0, message_id.0, 0)]), [done]);
    }

    #[test]
    fn p5_a_new_key_is_of_the_chats_epoch_and_under_an_id_of_its_own() {
        let (chat_id, key_id, session) = (ChatId::generate(), KeyId::generate(), SessionId::generate());
        let verdicts = |epoch: u64, keys: HashMap<KeyName, StoredKey>, items: usize| {
            let announcement = Announcement {
                key_id,
                session_id: session,
                epoch: Epoch::saturating(epoch),
                commitment: Hash([5; 32]),
                previous: None,
            };
            let new_key = Some(SignedAnnouncement { announcement, signature: Signature([0; 64]) });
            let item = Arc::new(Item { new_key, ..item(chat_id, key_id, 9, 0, session) });
            let mut evidence = Evidence { chats: HashMap::from([(chat_id, locked())]), keys, ..Evidence::default() };
            judge(&vec![item; items], &mut evidence, HashSet::new(), &HashSet::new())
        };
        let (done, conflict) = (Verdict::Done(Outcome::Committed), Verdict::Done(Outcome::Conflict));
        let taken = Verdict::Done(Outcome::KeyTaken);
        assert_eq!(verdicts(EPOCH, HashMap::new(), 2), [done, taken]);
        for epoch in [EPOCH - 1, EPOCH + 1] {
            assert_eq!(verdicts(epoch, HashMap::new(), 1), [conflict], "{epoch}");
        }
        let stored = HashMap::from([((chat_id.0, key_id.0), stored(session))]);
        assert_eq!(verdicts(EPOCH, stored, 1), [taken]);
    }

    #[test]
    fn p3_a_message_has_the_next_counter_of_its_key_and_copies_alone_use_none() {
        let (chat_id, key_id, session) = (ChatId::generate(), KeyId::generate(), SessionId::generate());
        let message = |previous, counter| {
            let entry = revision(chat_id, MessageId::generate(), previous, 0, MessageKind::Message).entry;
            Arc::new(Item { entry, ..item(chat_id, key_id, previous, counter, session) })
        };
        let copies = |previous, counter| Arc::new(item(chat_id, key_id, previous, counter, session));
        let verdicts = |items: &[Arc<Item>]| {
            let keys = HashMap::from([((chat_id.0, key_id.0), stored(session))]);
            let mut evidence = Evidence { chats: HashMap::from([(chat_id, locked())]), keys, ..Evidence::default() };
            judge(items, &mut evidence, HashSet::new(), &HashSet::new())
        };
        let (done, conflict) = (Verdict::Done(Outcome::Committed), Verdict::Done(Outcome::Conflict));
        assert_eq!(verdicts(&[message(9, 5), copies(10, 5), message(10, 6)]), [done, done, done]);
        for counter in [0, 3, 4, 6] {
            assert_eq!(verdicts(&[message(9, counter)]), [conflict], "{counter}");
        }
        assert_eq!(verdicts(&[message(9, 5), message(10, 5)]), [done, conflict]);
    }

    #[test]
    fn p5_a_key_that_is_not_stored_carries_nothing() {
        let (chat_id, session) = (ChatId::generate(), SessionId::generate());
        let items = [Arc::new(item(chat_id, KeyId::generate(), 9, 4, session))];
        // A key of that session in this chat does not stand for another one.
        let keys = HashMap::from([((chat_id.0, KeyId::generate().0), stored(session))]);
        let mut evidence = Evidence { chats: HashMap::from([(chat_id, locked())]), keys, ..Evidence::default() };
        let verdicts = judge(&items, &mut evidence, HashSet::new(), &HashSet::new());
        assert_eq!(verdicts, [Verdict::Done(Outcome::Conflict)]);
    }
}
