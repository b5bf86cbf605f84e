//! What is shown of a chat: messages by their place in the log, and between them what happened.
//!
//! Pure. A message is there once, however often it comes: by seq when it is in the log, by its id while it waits.
//! What has no place of its own stands behind what was the newest entry when it came.

use std::collections::{BTreeMap, HashMap};

use crate::client::{Body, Deletion, Message};
use crate::protocol::ids::{MessageId, Revision, Seq, Timestamp, UserId};
use crate::protocol::membership::Change;

/// A place in the pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    seq: u64,
    after: u32,
}

impl Key {
    /// The entry at which, or behind which, it stands.
    pub(super) const fn seq(self) -> u64 {
        self.seq
    }
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
    Message { message_id: MessageId, sender: UserId, at: Timestamp, revision: Revision, body: Body },
    /// A message that was deleted.
    Deleted { sender: UserId, at: Timestamp },
    /// An own message that is not in the log.
    Own { message_id: MessageId, body: Body, standing: Standing },
    /// The members changed.
    Change { at: Timestamp, actor: UserId, target: UserId, change: Change },
    /// A device of a member reads along from here on, or no longer.
    Device { at: Timestamp, user_id: UserId, is_in: bool },
    /// Something happened.
    Notice { at: Timestamp, text: String },
    /// A command that was typed.
    Command(String),
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
            Self::Deleted { .. } => "deleted message",
            Self::Own { .. } => "own message",
            Self::Change { .. } => "change",
            Self::Device { .. } => "device",
            Self::Notice { .. } => "notice",
            Self::Command(_) => "command",
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
            Self::Message { at, .. }
            | Self::Deleted { at, .. }
            | Self::Change { at, .. }
            | Self::Device { at, .. }
            | Self::Notice { at, .. } => Some(*at),
            Self::Own { .. } | Self::Command(_) | Self::Answer(_) | Self::Failure(_) | Self::Alarm(_) => None,
        }
    }
}

/// What became of a message after it was sent.
#[derive(Debug)]
enum Later {
    Edit { revision: Revision, sender: UserId, body: Body },
    Delete { user_id: UserId, by_manager: bool },
}

/// What is shown of a chat.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    items: BTreeMap<Key, Item>,
    messages: HashMap<MessageId, Key>,
    /// What became of messages that are not here yet.
    later: HashMap<MessageId, Vec<Later>>,
    /// How far others say that they have read.
    read: BTreeMap<UserId, Seq>,
    newest: u64,
    count: u32,
}

impl Transcript {
    fn place(&mut self, seq: u64) -> Key {
        self.count = self.count.saturating_add(1);
        Key { seq, after: self.count }
    }

    /// Takes a message of the log, at the place of its first revision. A read mark is none: see [`Self::reads`].
    pub(super) fn message(&mut self, message: &Message) {
        let Message { seq, created_at, message_id, revision, sender_id, body, .. } = message;
        let (message_id, sender) = (*message_id, *sender_id);
        self.newest = self.newest.max(seq.get());
        if let Body::Receipt { read_seq } = body {
            return self.reads(sender, *read_seq);
        }
        if matches!(body, Body::SealedReceipt { .. }) {
            return;
        }
        let key = Key { seq: seq.get(), after: 0 };
        if let Some(before) = self.messages.insert(message_id, key) {
            // What is here may be newer than what a page of history says.
            let is_newer = |item: &Item| match item {
                Item::Deleted { .. } => true,
                Item::Message { revision: shown, .. } => shown > revision,
                _ => false,
            };
            if before == key && self.items.get(&key).is_some_and(is_newer) {
                return;
            }
            self.items.remove(&before);
        }
        let body = body.clone();
        self.items.insert(key, Item::Message { message_id, sender, at: *created_at, revision: *revision, body });
        for later in self.later.remove(&message_id).unwrap_or_default() {
            self.change(message_id, later);
        }
    }

    /// Takes an edit of a message; of one that is not here yet it is remembered.
    pub(super) fn edit(&mut self, edit: &Message) {
        self.newest = self.newest.max(edit.seq.get());
        let Message { message_id, revision, sender_id, body, .. } = edit;
        self.change(*message_id, Later::Edit { revision: *revision, sender: *sender_id, body: body.clone() });
    }

    /// Takes a deletion of a message; of one that is not here yet it is remembered.
    pub(super) fn delete(&mut self, deletion: &Deletion) {
        self.newest = self.newest.max(deletion.seq.get());
        let Deletion { message_id, user_id, by_manager, .. } = deletion;
        self.change(*message_id, Later::Delete { user_id: *user_id, by_manager: *by_manager });
    }

    /// Changes a message. Who may not have done it by the sender that is shown here is not believed.
    fn change(&mut self, message_id: MessageId, later: Later) {
        let item = self.messages.get(&message_id).and_then(|key| self.items.get_mut(key));
        match (item, &later) {
            (
                Some(Item::Message { sender, revision, body, .. }),
                Later::Edit { revision: next, sender: by, body: new },
            ) if *sender == *by && *next > *revision => {
                *revision = *next;
                *body = new.clone();
            }
            (Some(item @ Item::Message { .. }), Later::Delete { user_id, by_manager }) => {
                if let Item::Message { sender, at, .. } = item
                    && (*by_manager || *sender == *user_id)
                {
                    *item = Item::Deleted { sender: *sender, at: *at };
                }
            }
            // All of them: which one counts shows only when it is known who sent the message.
            (None, _) if self.later.len() < ITEMS_MAX => self.later.entry(message_id).or_default().push(later),
            _ => {}
        }
    }

    /// Takes note of how far somebody has read.
    pub(super) fn reads(&mut self, user_id: UserId, read_seq: Seq) {
        let read = self.read.entry(user_id).or_default();
        *read = (*read).max(read_seq);
    }

    /// Who has read an entry, as far as they let it be known.
    pub(super) fn readers(&self, seq: Seq) -> impl Iterator<Item = UserId> {
        self.read.iter().filter(move |(_, read)| **read >= seq).map(|(user_id, _)| *user_id)
    }

    /// The message at an entry, and who sent it.
    pub(super) fn at(&self, seq: Seq) -> Option<(MessageId, UserId)> {
        match self.items.get(&Key { seq: seq.get(), after: 0 })? {
            Item::Message { message_id, sender, .. } => Some((*message_id, *sender)),
            _ => None,
        }
    }

    /// The newest message that somebody sent whom this accepts, with its place. Reactions are none.
    pub(super) fn newest_of(&self, accepts: impl Fn(UserId) -> bool) -> Option<(Seq, MessageId, UserId)> {
        self.items.iter().rev().find_map(|(key, item)| match item {
            Item::Message { message_id, sender, body: Body::Message { .. }, .. } if accepts(*sender) => {
                Some((Seq::saturating(key.seq), *message_id, *sender))
            }
            _ => None,
        })
    }

    /// Shows an own message that waits.
    pub(super) fn waits(&mut self, message_id: MessageId, body: Body) {
        let key = self.place(WAITING);
        self.messages.insert(message_id, key);
        self.items.insert(key, Item::Own { message_id, body, standing: Standing::Waiting });
    }

    /// An own message is in the log: it goes to its place, unless the log has brought it there already.
    pub(super) fn sent(&mut self, me: UserId, message_id: MessageId, seq: Seq, at: Timestamp) {
        let Some(key) = self.messages.get(&message_id).copied() else { return };
        let Some(Item::Own { body, .. }) = self.items.get(&key) else { return };
        let item = Item::Message { message_id, sender: me, at, revision: Revision::default(), body: body.clone() };
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

    /// Takes out the messages that failed; gives what they say, oldest first.
    pub(super) fn take_failed(&mut self) -> Vec<Body> {
        let failed = |item: &Item| matches!(item, Item::Own { standing: Standing::Failed(_), .. });
        let keys: Vec<Key> = self.items.iter().filter(|(_, item)| failed(item)).map(|(key, _)| *key).collect();
        let mut bodies = Vec::new();
        for key in keys {
            if let Some(Item::Own { message_id, body, .. }) = self.items.remove(&key) {
                self.messages.remove(&message_id);
                bodies.push(body);
            }
        }
        bodies
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

    /// Says of a message that it cannot be opened, until it is.
    pub(super) fn locked(&mut self, seq: Seq, at: Timestamp, why: &str) {
        let key = Key { seq: seq.get(), after: 0 };
        let text = format!("a message that {why}");
        self.items.entry(key).or_insert(Item::Notice { at, text });
    }

    /// What a message says, if it is here.
    pub(super) fn body_of(&self, message_id: MessageId) -> Option<&Body> {
        match self.items.get(self.messages.get(&message_id)?)? {
            Item::Message { body, .. } => Some(body),
            _ => None,
        }
    }

    /// Who sent a message, if it is here.
    pub(super) fn sender_of(&self, message_id: MessageId) -> Option<UserId> {
        match self.items.get(self.messages.get(&message_id)?)? {
            Item::Message { sender, .. } | Item::Deleted { sender, .. } => Some(*sender),
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
                Item::Own { body: Body::Message { text, .. }, standing, .. } => match standing {
                    Standing::Waiting => format!("~{text}"),
                    Standing::Failed(_) => format!("!{text}"),
                },
                Item::Deleted { .. } => "gone".to_owned(),
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
        transcript.waits(one, Body::text("one"));
        transcript.waits(two, Body::text("two"));
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
        transcript.waits(one, Body::text("one"));
        transcript.waits(two, Body::text("two"));
        transcript.failed(one, "refused".into());
        assert_eq!(shown(&transcript), ["!one", "~two"]);
        assert_eq!(transcript.take_failed(), [Body::text("one")]);
        assert_eq!(shown(&transcript), ["~two"]);
        transcript.failed(one, "unknown by now".into());
        assert_eq!(shown(&transcript), ["failure", "~two"]);
    }

    #[test]
    fn edits_and_deletions_reach_messages_that_come_before_or_after_them() {
        let mut transcript = Transcript::default();
        let (early, late) = (MessageId::generate(), MessageId::generate());
        let here = message(5, early, "first");
        let there = message(2, late, "unseen");
        let revised = |of: &Message, seq, revision, text: &str| Message {
            seq: Seq::saturating(seq),
            revision: Revision::saturating(revision),
            body: Body::text(text),
            ..of.clone()
        };
        transcript.message(&here);
        transcript.edit(&revised(&here, 6, 2, "second"));
        transcript.edit(&revised(&here, 7, 1, "stale"));
        transcript.edit(&Message { sender_id: UserId::generate(), ..revised(&here, 8, 3, "forged") });
        transcript.message(&here);
        transcript.edit(&revised(&there, 9, 2, "newest"));
        transcript.edit(&revised(&there, 10, 1, "stale"));
        transcript.edit(&Message { sender_id: UserId::generate(), ..revised(&there, 10, 9, "forged") });
        assert_eq!(shown(&transcript), ["second"]);
        transcript.message(&there);
        assert_eq!(shown(&transcript), ["newest", "second"]);
        let deletion = |of: &Message, user_id, by_manager| Deletion {
            chat_id: of.chat_id,
            seq: Seq::saturating(11),
            created_at: of.created_at,
            message_id: of.message_id,
            revision: Revision::saturating(10),
            user_id,
            session_id: of.sender_session_id,
            by_manager,
        };
        transcript.delete(&deletion(&here, UserId::generate(), false));
        assert_eq!(shown(&transcript), ["newest", "second"], "a stranger deletes nothing");
        transcript.delete(&deletion(&here, UserId::generate(), true));
        transcript.delete(&deletion(&there, there.sender_id, false));
        transcript.message(&here);
        assert_eq!(shown(&transcript), ["gone", "gone"], "a page of history brings nothing back");
        let unseen = message(1, MessageId::generate(), "never shown");
        transcript.delete(&deletion(&unseen, unseen.sender_id, false));
        transcript.message(&unseen);
        assert_eq!(shown(&transcript), ["gone", "gone", "gone"]);
        assert_eq!(transcript.newest().get(), 11);
    }

    #[test]
    fn messages_are_found_by_place_and_by_sender() {
        let mut transcript = Transcript::default();
        let (one, two) = (message(3, MessageId::generate(), "one"), message(4, MessageId::generate(), "two"));
        transcript.message(&one);
        transcript.message(&two);
        let reaction = Body::Reaction { message_id: one.message_id, emoji: "x".into() };
        transcript.message(&Message { body: reaction, ..message(5, MessageId::generate(), "") });
        let mark = Body::Receipt { read_seq: Seq::saturating(3) };
        transcript.message(&Message { body: mark, sender_id: one.sender_id, ..message(6, MessageId::generate(), "") });
        assert_eq!(transcript.at(Seq::saturating(3)), Some((one.message_id, one.sender_id)));
        assert_eq!(transcript.at(Seq::saturating(6)), None, "a read mark is no message");
        assert_eq!(transcript.newest_of(|_| true), Some((two.seq, two.message_id, two.sender_id)));
        assert_eq!(transcript.newest_of(|user| user == one.sender_id).map(|(seq, ..)| seq), Some(one.seq));
        assert_eq!(transcript.readers(Seq::saturating(3)).collect::<Vec<_>>(), [one.sender_id]);
        assert_eq!(transcript.readers(Seq::saturating(4)).count(), 0);
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
