//! What goes into one commit: the pure rule of the writer's queue.
//!
//! Invariants: B1 items of one chat leave in the order in which they came. B2 a chat whose row was locked by
//! somebody else waits without holding up others. B3 a batch is bounded in messages and bytes, and never empty
//! while something may leave.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::protocol::binary::Hash;
use crate::protocol::group_key::Archive;
use crate::protocol::ids::{ChatId, Counter, Epoch, KeyId, Seq, SessionId};
use crate::protocol::keys::{KeyCopy, SignedAnnouncement};
use crate::protocol::log::LogEntry;

/// What one commit does to one chat for one message.
#[derive(Debug, Clone)]
pub struct Item {
    /// The chat.
    pub chat_id: ChatId,
    /// The newest entry before this item.
    pub previous: Seq,
    /// The log's hash with it: another broker may have put another entry at that place.
    pub previous_hash: Hash,
    /// The epoch in which it was judged.
    pub epoch: Epoch,
    /// The roster version in which it was judged.
    pub roster_version: Seq,
    /// The sender key; none for a deletion, which uses none.
    pub key_id: Option<KeyId>,
    /// The counter of the message; that of the one before when there is none, 0 without a key.
    pub counter: Counter,
    /// The session that sends.
    pub sender_session_id: SessionId,
    /// The message, edit or deletion; none when only a key and its copies are stored.
    pub entry: Option<LogEntry>,
    /// The key, when it is new.
    pub new_key: Option<SignedAnnouncement>,
    /// Copies of the key that come with it.
    pub copies: Vec<KeyCopy>,
    /// The key sealed to the recovery key.
    pub archive: Option<Archive>,
}

impl Item {
    /// Bytes that count against the bound of a batch.
    fn bytes(&self) -> usize {
        let data = self.entry.as_ref().map_or(0, |entry| match &entry.body {
            crate::protocol::log::EntryBody::Message(envelope) => envelope.data.as_ref().map_or(0, |data| data.len()),
            _ => 0,
        });
        data + 400 + self.copies.len() * 150
    }
}

/// An item that waits, with whatever its sender needs to recognise it by.
#[derive(Debug)]
pub struct Waiting<T> {
    /// What is to be done.
    pub item: Arc<Item>,
    /// When it came.
    pub since: Instant,
    /// Whom to tell.
    pub reply: T,
}

/// How much goes into one commit, and how much waits.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Items of one commit.
    pub items_max: usize,
    /// Bytes of one commit; one item may overshoot it.
    pub bytes_max: usize,
    /// Items that wait.
    pub queue_max: usize,
}

/// The queue of one lane.
#[derive(Debug)]
pub struct Queue<T> {
    limits: BatchLimits,
    waiting: VecDeque<Waiting<T>>,
    busy: HashMap<ChatId, Instant>,
}

impl<T> Queue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), busy: HashMap::new() }
    }

    /// Items that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes an item in.
    ///
    /// # Errors
    /// Gives it back when the queue is full.
    pub fn push(&mut self, waiting: Waiting<T>) -> Result<(), Waiting<T>> {
        if self.waiting.len() >= self.limits.queue_max {
            return Err(waiting);
        }
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// Puts items of chats that were locked back to where they were, to be left alone until `until`.
    pub fn put_back(&mut self, items: Vec<Waiting<T>>, until: Instant) {
        for waiting in items.into_iter().rev() {
            self.busy.insert(waiting.item.chat_id, until);
            self.waiting.push_front(waiting);
        }
    }

    /// Takes the next batch out; empty when nothing may leave now.
    pub fn take(&mut self, now: Instant) -> Vec<Waiting<T>> {
        self.busy.retain(|_, until| *until > now);
        let (mut batch, mut left) = (Vec::new(), VecDeque::new());
        let mut bytes = 0;
        while let Some(waiting) = self.waiting.pop_front() {
            let is_full = batch.len() >= self.limits.items_max || bytes >= self.limits.bytes_max;
            if is_full {
                left.push_back(waiting);
                left.append(&mut self.waiting);
                break;
            }
            if self.busy.contains_key(&waiting.item.chat_id) {
                left.push_back(waiting);
                continue;
            }
            bytes += waiting.item.bytes();
            batch.push(waiting);
        }
        self.waiting = left;
        batch
    }

    /// Takes out what has waited since before `oldest`.
    pub fn take_older_than(&mut self, oldest: Instant) -> Vec<Waiting<T>> {
        let mut old = Vec::new();
        while self.waiting.front().is_some_and(|waiting| waiting.since < oldest) {
            old.extend(self.waiting.pop_front());
        }
        old
    }

    /// When the first chat that waits for a lock may be tried again.
    #[must_use]
    pub fn next_try(&self) -> Option<Instant> {
        self.busy.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::binary::{Blob, Signature, WrappedKey};
    use crate::protocol::envelope::{Envelope, MessageKind, Seen};
    use crate::protocol::ids::{MessageId, Revision, Timestamp, UserId};
    use crate::protocol::log::EntryBody;

    fn item(chat_id: ChatId, previous: u64) -> Waiting<u64> {
        let item = Item {
            chat_id,
            previous: Seq::saturating(previous),
            previous_hash: Hash([0; 32]),
            epoch: Epoch::saturating(1),
            roster_version: Seq::saturating(1),
            key_id: Some(KeyId::generate()),
            counter: Counter::saturating(1),
            sender_session_id: SessionId::generate(),
            entry: None,
            new_key: None,
            copies: Vec::new(),
            archive: None,
        };
        Waiting { item: Arc::new(item), since: Instant::now(), reply: previous }
    }

    /// An item with a message of so many bytes, and so many copies.
    fn heavy(previous: u64, data: usize, copies: usize) -> Waiting<u64> {
        let envelope = Envelope {
            kind: MessageKind::Message,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: UserId::generate(),
            sender_session_id: SessionId::generate(),
            key_id: None,
            counter: Counter::default(),
            roster_hash: Hash([0; 32]),
            seen: Seen { seq: Seq::default(), log_hash: Hash([0; 32]) },
            attachments: Vec::new(),
            data: Some(Blob::from(vec![0; data])),
            purged: None,
            signature: Signature([0; 64]),
        };
        let entry = LogEntry {
            seq: Seq::saturating(previous + 1),
            created_at: Timestamp::default(),
            log_hash: Hash([0; 32]),
            body: EntryBody::Message(envelope),
        };
        let copy = KeyCopy { session_id: SessionId::generate(), key: WrappedKey([0; WrappedKey::LENGTH]) };
        let waiting = item(ChatId::generate(), previous);
        let item = Item { entry: Some(entry), copies: vec![copy; copies], ..Item::clone(&waiting.item) };
        Waiting { item: Arc::new(item), ..waiting }
    }

    fn replies(items: &[Waiting<u64>]) -> Vec<u64> {
        items.iter().map(|waiting| waiting.reply).collect()
    }

    /// What leaves, batch by batch, until nothing does.
    fn batches(queue: &mut Queue<u64>) -> Vec<Vec<u64>> {
        (0..20).map(|_| replies(&queue.take(Instant::now()))).take_while(|batch| !batch.is_empty()).collect()
    }

    fn queue(items_max: usize) -> Queue<u64> {
        Queue::new(BatchLimits { items_max, bytes_max: 1 << 20, queue_max: 8 })
    }

    #[test]
    fn b1_items_of_one_chat_leave_in_order_across_batches() {
        let chat = ChatId::generate();
        let mut queue = queue(2);
        (1..=5).for_each(|n| queue.push(item(chat, n)).unwrap());
        assert_eq!(batches(&mut queue), [vec![1, 2], vec![3, 4], vec![5]]);
        assert!(queue.is_empty());
    }

    #[test]
    fn b2_a_locked_chat_holds_up_nobody_and_keeps_its_order() {
        let (locked, free) = (ChatId::generate(), ChatId::generate());
        let mut queue = queue(8);
        queue.push(item(locked, 1)).unwrap();
        queue.push(item(free, 2)).unwrap();
        let now = Instant::now();
        let (mut taken, later): (Vec<_>, Vec<_>) =
            queue.take(now).into_iter().partition(|waiting| waiting.item.chat_id == locked);
        assert_eq!(later.len(), 1);
        queue.put_back(std::mem::take(&mut taken), now + Duration::from_secs(1));
        queue.push(item(locked, 3)).unwrap();
        queue.push(item(free, 4)).unwrap();
        assert_eq!(replies(&queue.take(now)), [4]);
        assert_eq!(replies(&queue.take(now + Duration::from_secs(2))), [1, 3]);
    }

    #[test]
    fn b3_the_queue_is_bounded_and_gives_back_what_it_cannot_take() {
        let mut queue = queue(8);
        (1..=8).for_each(|n| queue.push(item(ChatId::generate(), n)).unwrap());
        assert_eq!(queue.push(item(ChatId::generate(), 9)).unwrap_err().reply, 9);
    }

    #[test]
    fn b3_a_batch_is_bounded_in_items() {
        let mut queue = queue(3);
        assert!(queue.is_empty() && queue.take(Instant::now()).is_empty());
        (1..=7).for_each(|n| queue.push(item(ChatId::generate(), n)).unwrap());
        assert!(!queue.is_empty());
        for (batch, left) in [(vec![1, 2, 3], 4), (vec![4, 5, 6], 1), (vec![7], 0)] {
            assert_eq!(replies(&queue.take(Instant::now())), batch);
            assert_eq!(queue.len(), left);
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn b3_a_batch_is_bounded_in_bytes_of_data_and_copies_and_one_item_may_overshoot() {
        assert_eq!(item(ChatId::generate(), 1).item.bytes(), 400);
        assert_eq!(heavy(1, 5_000, 0).item.bytes(), 5_400);
        assert_eq!(heavy(1, 5_000, 20).item.bytes(), 8_400);
        let mut queue = Queue::new(BatchLimits { items_max: 100, bytes_max: 10_800, queue_max: 100 });
        (1..=5).for_each(|n| queue.push(heavy(n, 5_000, 0)).unwrap());
        queue.push(heavy(6, 5_000, 0)).unwrap();
        queue.push(heavy(7, 1 << 20, 0)).unwrap();
        queue.push(heavy(8, 0, 1_000)).unwrap();
        queue.push(heavy(9, 0, 0)).unwrap();
        assert_eq!(batches(&mut queue), [vec![1, 2], vec![3, 4], vec![5, 6], vec![7], vec![8], vec![9]]);
    }

    #[test]
    fn b2_a_locked_chat_is_tried_again_when_its_time_has_come_and_not_before() {
        let (sooner, later, now) = (ChatId::generate(), ChatId::generate(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        let mut queue = queue(8);
        assert_eq!(queue.next_try(), None);
        queue.put_back(vec![item(later, 1)], at(20));
        queue.put_back(vec![item(sooner, 2), item(sooner, 3)], at(10));
        assert_eq!((queue.len(), queue.next_try()), (3, Some(at(10))));
        assert!(queue.take(at(9)).is_empty());
        assert_eq!(replies(&queue.take(at(10))), [2, 3]);
        assert_eq!((queue.len(), queue.next_try()), (1, Some(at(20))));
        assert_eq!(replies(&queue.take(at(21))), [1]);
        assert_eq!(queue.next_try(), None);
    }

    #[test]
    fn what_has_waited_too_long_is_taken_out_and_nothing_else() {
        let now = Instant::now();
        let mut queue = queue(8);
        for n in 1..=4 {
            let since = now + Duration::from_secs(n);
            queue.push(Waiting { since, ..item(ChatId::generate(), n) }).unwrap();
        }
        assert!(queue.take_older_than(now + Duration::from_secs(1)).is_empty(), "it came just then");
        assert_eq!(replies(&queue.take_older_than(now + Duration::from_secs(3))), [1, 2]);
        assert_eq!(replies(&queue.take(now)), [3, 4]);
        assert!(queue.take_older_than(now + Duration::from_secs(9)).is_empty());
    }
}
