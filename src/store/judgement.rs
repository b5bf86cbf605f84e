//! The rules of a commit, as plain data: what the locked rows allow (P4, P5).
//!
//! Chat actors judge the same before; these rules are the ones that count. No I/O.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::batch::Item;
use super::rows::bigint;
use super::writer::Outcome;
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
pub(super) struct Locked {
    pub(super) last_seq: i64,
    pub(super) epoch: i64,
    pub(super) roster_version: i64,
    pub(super) expiry_due: bool,
}

/// A key by its chat and id: the ids are their makers' choice, so two chats may use the same one.
pub(super) type KeyName = (Uuid, Uuid);

pub(super) fn key_name(item: &Item) -> KeyName {
    (item.chat_id.0, item.key_id.0)
}

/// A revision of a message by its chat, id and number.
pub(super) type MessageName = (Uuid, Uuid, i64);

pub(super) fn message_name(item: &Item) -> Option<MessageName> {
    match item.entry.as_ref().map(|entry| &entry.body) {
        Some(EntryBody::Message(envelope)) => Some((item.chat_id.0, envelope.message_id.0, bigint(envelope.revision))),
        _ => None,
    }
}

/// A stored key, as the items of this batch move it on.
pub(super) struct StoredKey {
    pub(super) sender_session_id: Uuid,
    pub(super) epoch: i64,
    pub(super) last_counter: i64,
    /// Whether the store knew before this batch that its copies are the recipients; else it counts them.
    pub(super) was_covered: bool,
}

/// Judges items against what the locked rows say (P4, P5).
///
/// `present` are messages that are in the log; those that are accepted join them, or one id twice in one batch
/// would fail the batch as a whole.
pub(super) fn judge(
    items: &[Arc<Item>],
    locked: &mut HashMap<ChatId, Locked>,
    keys: &mut HashMap<KeyName, StoredKey>,
    mut present: HashSet<MessageName>,
    uncovered: &HashSet<ChatId>,
) -> Vec<Verdict> {
    let mut stopped: HashSet<ChatId> = HashSet::new();
    let mut verdicts = Vec::with_capacity(items.len());
    for item in items {
        let verdict = match locked.get_mut(&item.chat_id) {
            None => Verdict::Busy,
            Some(_) if stopped.contains(&item.chat_id) => Verdict::Done(Outcome::Conflict),
            Some(_) if uncovered.contains(&item.chat_id) => Verdict::Done(Outcome::Conflict),
            Some(chat) => Verdict::Done(judge_item(item, chat, keys, &mut present)),
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
    present: &mut HashSet<MessageName>,
) -> Outcome {
    let is_current = chat.last_seq == bigint(item.previous)
        && chat.epoch == bigint(item.epoch)
        && chat.roster_version == bigint(item.roster_version)
        && !chat.expiry_due;
    if !is_current {
        return Outcome::Conflict;
    }
    let message = message_name(item);
    if message.is_some_and(|message| present.contains(&message)) {
        return Outcome::IdTaken;
    }
    let counter = bigint(item.counter);
    match (&item.new_key, keys.get_mut(&key_name(item))) {
        (Some(_), Some(_)) => return Outcome::KeyTaken,
        (Some(new_key), None) => {
            if bigint(new_key.announcement.epoch) != chat.epoch {
                return Outcome::Conflict;
            }
            let key = StoredKey {
                sender_session_id: item.sender_session_id.0,
                epoch: chat.epoch,
                last_counter: counter,
                was_covered: false,
            };
            keys.insert(key_name(item), key);
        }
        (None, None) => return Outcome::Conflict,
        (None, Some(key)) => {
            let is_usable = key.sender_session_id == item.sender_session_id.0
                && key.epoch == chat.epoch
                && (item.entry.is_none() || key.last_counter + 1 == counter);
            if !is_usable {
                return Outcome::Conflict;
            }
            key.last_counter = counter;
        }
    }
    if let Some(entry) = &item.entry {
        chat.last_seq = bigint(entry.seq);
    }
    present.extend(message);
    Outcome::Committed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::{Counter, Epoch, KeyId, Seq, SessionId};

    const EPOCH: u64 = 3;
    const ROSTER: u64 = 7;

    fn item(chat_id: ChatId, key_id: KeyId, previous: u64, counter: u64, session: SessionId) -> Item {
        Item {
            chat_id,
            previous: Seq::saturating(previous),
            epoch: Epoch::saturating(EPOCH),
            roster_version: Seq::saturating(ROSTER),
            key_id,
            counter: Counter::saturating(counter),
            sender_session_id: session,
            entry: None,
            new_key: None,
            copies: Vec::new(),
        }
    }

    fn locked() -> Locked {
        Locked { last_seq: 9, epoch: EPOCH as i64, roster_version: ROSTER as i64, expiry_due: false }
    }

    fn stored(session: SessionId) -> StoredKey {
        StoredKey { sender_session_id: session.0, epoch: EPOCH as i64, last_counter: 4, was_covered: true }
    }

    /// Judges one item against a chat and a key that something was done to.
    fn verdict(change: impl FnOnce(&mut Locked, &mut StoredKey, &mut Item)) -> Verdict {
        let (chat_id, key_id, session) = (ChatId::generate(), KeyId::generate(), SessionId::generate());
        let (mut chat, mut key, mut item) = (locked(), stored(session), item(chat_id, key_id, 9, 4, session));
        change(&mut chat, &mut key, &mut item);
        let mut keys = HashMap::from([((chat_id.0, key_id.0), key)]);
        let verdicts =
            judge(&[Arc::new(item)], &mut HashMap::from([(chat_id, chat)]), &mut keys, HashSet::new(), &HashSet::new());
        verdicts[0]
    }

    #[test]
    fn p5_what_was_judged_by_another_epoch_roster_or_place_is_not_committed() {
        assert_eq!(verdict(|_, _, _| {}), Verdict::Done(Outcome::Committed));
        let changes: [fn(&mut Locked, &mut StoredKey, &mut Item); 6] = [
            |chat, _, _| chat.epoch += 1,
            |chat, _, _| chat.roster_version += 1,
            |chat, _, _| chat.last_seq += 1,
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
        let mut chats = HashMap::from([(broken, locked()), (good, locked())]);
        let mut keys = HashMap::from([broken, good].map(|chat_id| ((chat_id.0, key_id.0), stored(session))));
        let verdicts = judge(&items, &mut chats, &mut keys, HashSet::new(), &HashSet::new());
        let (done, conflict) = (Verdict::Done(Outcome::Committed), Verdict::Done(Outcome::Conflict));
        assert_eq!(verdicts, [Verdict::Busy, conflict, done, conflict, done]);
    }
}
