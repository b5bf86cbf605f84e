//! How far this user has read a chat, and which messages of others are unread.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::protocol::ids::Seq;

/// Places of unread messages that are kept one by one; of more only their number is known.
const PLACES_MAX: usize = 4_096;

/// The read mark of a chat. It never goes back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Reading {
    mark: Seq,
    /// Unread messages, in order.
    places: VecDeque<Seq>,
    /// Unread messages before those.
    older: u64,
}

impl Reading {
    /// The newest entry that was read.
    pub(crate) const fn mark(&self) -> Seq {
        self.mark
    }

    /// How many messages of others are unread.
    pub(crate) fn unread(&self) -> u64 {
        self.older + self.places.len() as u64
    }

    /// A message of somebody else has come, or was opened late.
    pub(crate) fn came(&mut self, seq: Seq) {
        if seq <= self.mark {
            return;
        }
        if self.places.len() == PLACES_MAX {
            self.places.pop_front();
            self.older += 1;
        }
        // What was opened late is older than what is here.
        let at = self.places.partition_point(|place| *place < seq);
        self.places.insert(at, seq);
    }

    /// A message is deleted: nobody will read it.
    pub(crate) fn went(&mut self, seq: Seq) {
        if let Ok(index) = self.places.binary_search(&seq) {
            self.places.remove(index);
        }
    }

    /// Everything up to here is read. Returns whether that is news.
    pub(crate) fn read(&mut self, seq: Seq) -> bool {
        if seq <= self.mark {
            return false;
        }
        self.mark = seq;
        if self.places.front().is_some_and(|oldest| *oldest <= seq) || self.places.is_empty() {
            self.older = 0;
        }
        while self.places.front().is_some_and(|oldest| *oldest <= seq) {
            self.places.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seq: u64) -> Seq {
        Seq::saturating(seq)
    }

    #[test]
    fn unread_messages_are_those_after_the_mark_which_never_goes_back() {
        let mut reading = Reading::default();
        [3, 5, 6, 9].into_iter().for_each(|seq| reading.came(at(seq)));
        assert_eq!(reading.unread(), 4);
        assert!(reading.read(at(5)));
        assert_eq!((reading.unread(), reading.mark()), (2, at(5)));
        assert!(!reading.read(at(4)) && !reading.read(at(5)));
        reading.came(at(4));
        assert_eq!(reading.unread(), 2, "from before the mark");
        reading.went(at(6));
        reading.went(at(7));
        assert_eq!(reading.unread(), 1);
        assert!(reading.read(at(20)));
        assert_eq!(reading.unread(), 0);
    }

    #[test]
    fn a_chat_that_nobody_reads_stays_bounded_and_is_counted_all_the_same() {
        let mut reading = Reading::default();
        let count = PLACES_MAX as u64 + 10;
        (1..=count).for_each(|seq| reading.came(at(seq)));
        assert_eq!((reading.unread(), reading.places.len()), (count, PLACES_MAX));
        reading.read(at(10));
        assert_eq!(reading.places.len(), PLACES_MAX);
        reading.read(at(11));
        assert_eq!(reading.unread(), count - 11);
    }
}
