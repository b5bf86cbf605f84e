//! What is shown of a chat: messages by their place in the log, and between them what happened.
//!
//! Pure. A message is there once, however often it comes: by seq when it is in the log, by its id while it waits.
//! What has no place of its own stands behind what was the newest entry when it came.

use std::collections::{BTreeMap, HashMap};

use crate::client::{Body, Message};
use crate::protocol::ids::{MessageId, Seq, Timestamp, UserId};
use crate::protocol::membership::Change;

/// A place in the pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    seq: u64,
    after: u32,
}

/// What waits stands below everything that is in the log.
const WAITING: u64 = u64::MAX;

/// Items that are kept; the oldest go first, and are loaded again when their place is looked at.
const ITEMS_MAX: usize = 20_000;

/// How an own message that is not in the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is on its way.
    Waiting,
    /// It will not be sent, and why.
    Failed(String),
}

/// Something that is shown. Text is that of its author, not yet harmless.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A message that is in the log.
    Message { sender: UserId, at: Timestamp, body: Body },
    /// An own message that is not in the log.
    Own { message_id: MessageId, text: String, standing: Standing },
    /// The members changed.
    Change { at: Timestamp, actor: UserId, target: UserId, change: Change },
    /// A device of a member reads along from here on, or no longer.
    Device { at: Timestamp, user_id: UserId, is_in: bool },
    /// Something happened.
    Notice { at: Timestamp, text: String },
    /// The answer to a command.
    Answer(Vec<String>),
    /// A command failed.
    Failure(String),
    /// Something did not verify.
    Alarm(String),
}

/// Prints no text (P12).
impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Message { .. } => "message",
            Self::Own { .. } => "own message",
            Self::Change { .. } => "change",
            Self::Device { .. } => "device",
            Self::Notice { .. } => "notice",
            Self::Answer(_) => "answer",
            Self::Failure(_) => "failure",
            Self::Alarm(_) => "alarm",
        })
    }
}

impl Item {
    /// When it was, if it has a time.
    pub(super) const fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Message { at, .. } | Self::Change { at, .. } | Self::Device { at, .. } | Self::Notice { at, .. } => {
                Some(*at)
            }
            Self::Own { .. } | Self::Answer(_) | Self::Failure(_) | Self::Alarm(_) => None,
        }
    }
}

/// What is shown of a chat.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    items: BTreeMap<Key, Item>,
    messages: HashMap<MessageId, Key>,
    newest: u64,
    count: u32,
}

impl Transcript {
    fn place(&mut self, seq: u64) -> Key {
        self.count = self.count.saturating_add(1);
        Key { seq, after: self.count }
    }

    /// Takes a message of the log.
    pub(super) fn message(&mut self, message: &Message) {
        let Message { seq, created_at, message_id, sender_id, body, .. } = message;
        let key = Key { seq: seq.get(), after: 0 };
        if let Some(before) = self.messages.insert(*message_id, key) {
            self.items.remove(&before);
        }
        self.newest = self.newest.max(key.seq);
        self.items.insert(key, Item::Message { sender: *sender_id, at: *created_at, body: body.clone() });
    }

    /// Shows an own message that waits.
    pub(super) fn waits(&mut self, message_id: MessageId, text: String) {
        let key = self.place(WAITING);
        self.messages.insert(message_id, key);
        self.items.insert(key, Item::Own { message_id, text, standing: Standing::Waiting });
    }

    /// An own message is in the log: it goes to its place, unless the log has brought it there already.
    pub(super) fn sent(&mut self, me: UserId, message_id: MessageId, seq: Seq, at: Timestamp) {
        let Some(key) = self.messages.get(&message_id).copied() else { return };
        let Some(Item::Own { text, .. }) = self.items.get(&key) else { return };
        let item = Item::Message { sender: me, at, body: Body::text(text.clone()) };
        self.items.remove(&key);
        let key = Key { seq: seq.get(), after: 0 };
        self.newest = self.newest.max(key.seq);
        self.messages.insert(message_id, key);
        self.items.insert(key, item);
    }

    /// An own message will not be sent.
    pub(super) fn failed(&mut self, message_id: MessageId, why: String) {
        let item = self.messages.get(&message_id).and_then(|key| self.items.get_mut(key));
        match item {
            Some(Item::Own { standing, .. }) => *standing = Standing::Failed(why),
            Some(_) => {}
            None => self.push(Item::Failure(format!("a message from before was not sent: {why}"))),
        }
    }

    /// Takes out the messages that failed; gives their texts, oldest first.
    pub(super) fn take_failed(&mut self) -> Vec<String> {
        let failed = |item: &Item| matches!(item, Item::Own { standing: Standing::Failed(_), .. });
        let keys: Vec<Key> = self.items.iter().filter(|(_, item)| failed(item)).map(|(key, _)| *key).collect();
        let mut texts = Vec::new();
        for key in keys {
            if let Some(Item::Own { message_id, text, .. }) = self.items.remove(&key) {
                self.messages.remove(&message_id);
                texts.push(text);
            }
        }
        texts
    }

    /// Messages that wait.
    pub(super) fn waiting(&self) -> usize {
        let waits = |item: &&Item| matches!(item, Item::Own { standing: Standing::Waiting, .. });
        self.items.range(Key { seq: WAITING, after: 0 }..).map(|(_, item)| item).filter(waits).count()
    }

    /// Shows something behind what is newest.
    pub(super) fn push(&mut self, item: Item) {
        let key = self.place(self.newest);
        self.items.insert(key, item);
    }

    /// Shows something at an entry of the log.
    pub(super) fn push_at(&mut self, seq: Seq, item: Item) {
        let key = Key { seq: seq.get(), after: 0 };
        self.newest = self.newest.max(key.seq);
        self.items.insert(key, item);
    }

    /// What a message says, if it is here.
    pub(super) fn body_of(&self, message_id: MessageId) -> Option<&Body> {
        match self.items.get(self.messages.get(&message_id)?)? {
            Item::Message { body, .. } => Some(body),
            _ => None,
        }
    }

    /// Forgets the oldest above the bound; gives the oldest entry that is left, if any was forgotten.
    pub(super) fn trim(&mut self) -> Option<Seq> {
        if self.items.len() <= ITEMS_MAX {
            return None;
        }
        while self.items.len() > ITEMS_MAX {
            self.items.pop_first();
        }
        self.messages.retain(|_, key| self.items.contains_key(key));
        self.items.keys().next().map(|key| Seq::saturating(key.seq))
    }

    pub(super) fn newest(&self) -> Seq {
        Seq::saturating(self.newest)
    }

    /// The items up to a place, newest first; all without one.
    pub(super) fn back_from(&self, key: Option<Key>) -> impl Iterator<Item = (Key, &Item)> {
        let up_to = key.unwrap_or(Key { seq: u64::MAX, after: u32::MAX });
        self.items.range(..=up_to).rev().map(|(key, item)| (*key, item))
    }

    /// The items behind a place, oldest first.
    pub(super) fn after(&self, key: Key) -> impl Iterator<Item = (Key, &Item)> {
        self.items.range((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded)).map(|(key, item)| (*key, item))
    }

    /// The time of the item before a place that has one.
    pub(super) fn time_before(&self, key: Key) -> Option<Timestamp> {
        self.items.range(..key).rev().find_map(|(_, item)| item.at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::{ChatId, Revision, SessionId};

    fn message(seq: u64, message_id: MessageId, text: &str) -> Message {
        Message {
            chat_id: ChatId::generate(),
            seq: Seq::saturating(seq),
            created_at: Timestamp::saturating(seq),
            message_id,
            sender_id: UserId::generate(),
            sender_session_id: SessionId::generate(),
            revision: Revision::default(),
            body: Body::text(text),
        }
    }

    fn shown(transcript: &Transcript) -> Vec<String> {
        let mut texts: Vec<String> = transcript
            .back_from(None)
            .map(|(_, item)| match item {
                Item::Message { body: Body::Message { text, .. }, .. } => text.clone(),
                Item::Own { text, standing: Standing::Waiting, .. } => format!("~{text}"),
                Item::Own { text, .. } => format!("!{text}"),
                Item::Notice { text, .. } => text.clone(),
                other => format!("{other:?}"),
            })
            .collect();
        texts.reverse();
        texts
    }

    #[test]
    fn messages_stand_in_the_order_of_the_log_once() {
        let mut transcript = Transcript::default();
        let ids: Vec<MessageId> = (0..3).map(|_| MessageId::generate()).collect();
        transcript.message(&message(5, ids[1], "five"));
        transcript.push(Item::Notice { at: Timestamp::saturating(6), text: "note".into() });
        transcript.message(&message(7, ids[2], "seven"));
        transcript.message(&message(3, ids[0], "three"));
        transcript.message(&message(5, ids[1], "five"));
        assert_eq!(shown(&transcript), ["three", "five", "note", "seven"]);
        assert_eq!(transcript.newest().get(), 7);
        assert_eq!(transcript.body_of(ids[0]), Some(&Body::text("three")));
    }

    #[test]
    fn own_messages_wait_below_and_move_to_their_place() {
        let mut transcript = Transcript::default();
        let (me, one, two) = (UserId::generate(), MessageId::generate(), MessageId::generate());
        transcript.waits(one, "one".into());
        transcript.waits(two, "two".into());
        transcript.message(&message(4, MessageId::generate(), "hers"));
        assert_eq!(shown(&transcript), ["hers", "~one", "~two"]);
        assert_eq!(transcript.waiting(), 2);
        transcript.sent(me, one, Seq::saturating(5), Timestamp::saturating(5));
        transcript.message(&message(5, one, "one"));
        assert_eq!(shown(&transcript), ["hers", "one", "~two"]);
        transcript.message(&message(6, two, "two"));
        transcript.sent(me, two, Seq::saturating(6), Timestamp::saturating(6));
        transcript.failed(two, "too late".into());
        assert_eq!(shown(&transcript), ["hers", "one", "two"]);
        assert_eq!(transcript.waiting(), 0);
    }

    #[test]
    fn what_failed_is_taken_out_to_be_sent_again() {
        let mut transcript = Transcript::default();
        let (one, two) = (MessageId::generate(), MessageId::generate());
        transcript.waits(one, "one".into());
        transcript.waits(two, "two".into());
        transcript.failed(one, "refused".into());
        assert_eq!(shown(&transcript), ["!one", "~two"]);
        assert_eq!(transcript.take_failed(), ["one"]);
        assert_eq!(shown(&transcript), ["~two"]);
        transcript.failed(one, "unknown by now".into());
        assert_eq!(shown(&transcript), ["failure", "~two"]);
    }

    #[test]
    fn the_oldest_are_forgotten_above_the_bound() {
        let mut transcript = Transcript::default();
        for seq in 1..=(ITEMS_MAX as u64 + 10) {
            transcript.message(&message(seq, MessageId::generate(), "x"));
        }
        assert_eq!(transcript.trim(), Some(Seq::saturating(11)));
        assert_eq!(transcript.trim(), None);
        assert_eq!(transcript.messages.len(), ITEMS_MAX);
    }
}
