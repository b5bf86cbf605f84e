//! What a session missed, and what it is given of that before it is live.

use std::collections::HashMap;

use sealcast::protocol::envelope::Envelope;
use sealcast::protocol::frame::{Cursor, OwnKey, Page};
use sealcast::protocol::ids::ChatId;
use sealcast::protocol::log::{EntryBody, LogEntry};

use crate::bench::figures::Wrong;

/// What the members of a group missed: the same was said in all their chats, at the same places.
#[derive(Debug)]
pub(super) struct Missed {
    /// Up to where they lack nothing.
    pub(super) cursors: Vec<Cursor>,
    /// The seq of what was said first.
    pub(super) first: u64,
    pub(super) said: Vec<Envelope>,
}

impl Missed {
    /// The seq after the last.
    fn end(&self) -> u64 {
        self.first + self.said.len() as u64
    }

    /// Messages, in all chats.
    pub(super) fn count(&self) -> u64 {
        self.cursors.iter().map(|cursor| self.end().saturating_sub(cursor.seq.get() + 1)).sum()
    }

    fn said(&self, seq: u64) -> Option<&Envelope> {
        seq.checked_sub(self.first).and_then(|number| self.said.get(usize::try_from(number).ok()?))
    }
}

/// What one session was given of it, on one connection.
#[derive(Debug)]
pub(super) struct Given<'a> {
    missed: &'a Missed,
    /// The seq that comes next, by chat.
    next: HashMap<ChatId, u64>,
    /// Messages that were given as they were said, each where it belongs.
    pub(super) right: u64,
    pub(super) wrong: Wrong,
}

impl<'a> Given<'a> {
    pub(super) fn new(missed: &'a Missed) -> Self {
        let next = missed.cursors.iter().map(|cursor| (cursor.chat_id, cursor.seq.get() + 1)).collect();
        Self { missed, next, right: 0, wrong: Wrong::default() }
    }

    /// Takes a page. One that says it covers more than it holds, or less, has a gap.
    pub(super) fn page(&mut self, page: &Page) {
        let ends = page.entries.first().zip(page.entries.last());
        let (first, last) = ends.map_or((0, 0), |(first, last)| (first.seq.get(), last.seq.get()));
        if first != page.after.get() + 1 || last != page.up_to.get() {
            self.wrong.gaps += 1;
        }
        for entry in &page.entries {
            self.entry(page.chat_id, entry, &page.keys);
        }
    }

    /// Takes an entry, with the keys that came with it.
    pub(super) fn entry(&mut self, chat_id: ChatId, entry: &LogEntry, keys: &[OwnKey]) {
        let seq = entry.seq.get();
        let Some(next) = self.next.get_mut(&chat_id) else {
            self.wrong.undecryptable += 1;
            return;
        };
        if seq < *next {
            self.wrong.duplicated += 1;
            return;
        }
        self.wrong.gaps += seq - *next;
        *next = seq + 1;
        let EntryBody::Message(envelope) = &entry.body else {
            self.wrong.undecryptable += 1;
            return;
        };
        let is_key = |key: &&OwnKey| Some(key.announcement.announcement.key_id) == envelope.key_id;
        let has_key = keys.iter().find(is_key).is_some_and(|key| key.key.is_some());
        if has_key && self.missed.said(seq) == Some(envelope) {
            self.right += 1;
        } else {
            self.wrong.undecryptable += 1;
        }
    }

    /// It is said that nothing is missing: what has not come is lost, and too late from now on.
    pub(super) fn live(&mut self) {
        let end = self.missed.end();
        for next in self.next.values_mut() {
            self.wrong.lost += end.saturating_sub(*next);
            *next = end.max(*next);
        }
    }
}

#[cfg(test)]
mod tests {
    use sealcast::protocol::binary::{Blob, Hash, Signature, WrappedKey};
    use sealcast::protocol::envelope::{MessageKind, Seen};
    use sealcast::protocol::ids::{Counter, Epoch, KeyId, MessageId, Revision, Seq, SessionId, Timestamp, UserId};
    use sealcast::protocol::keys::{Announcement, SignedAnnouncement};

    use super::*;

    const FIRST: u64 = 8;

    fn envelope(key_id: KeyId, number: u64) -> Envelope {
        Envelope {
            kind: MessageKind::Message,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: UserId::generate(),
            sender_session_id: SessionId::generate(),
            key_id: Some(key_id),
            counter: Counter::saturating(number + 1),
            roster_hash: Hash([1; 32]),
            seen: Seen { seq: Seq::saturating(FIRST - 1), log_hash: Hash([2; 32]) },
            attachments: Vec::new(),
            data: Some(Blob::from(vec![3; 40])),
            purged: None,
            signature: Signature([4; 64]),
        }
    }

    fn key(key_id: KeyId, key: Option<WrappedKey>) -> OwnKey {
        let session_id = SessionId::generate();
        let (epoch, commitment) = (Epoch::saturating(1), Hash([5; 32]));
        let announcement = Announcement { key_id, session_id, epoch, commitment, previous: None };
        let announcement = SignedAnnouncement { announcement, signature: Signature([6; 64]) };
        OwnKey { announcement, key, backed_up: Vec::new() }
    }

    /// Three messages in each of two chats; of the second chat the first one is there already.
    struct Setting {
        missed: Missed,
        keys: Vec<OwnKey>,
        chats: [ChatId; 2],
    }

    impl Setting {
        fn new() -> Self {
            let key_id = KeyId::generate();
            let chats = [ChatId::generate(), ChatId::generate()];
            let cursor = |chat_id, seq| Cursor { chat_id, seq: Seq::saturating(seq) };
            let cursors = vec![cursor(chats[0], FIRST - 1), cursor(chats[1], FIRST)];
            let said = (0..3).map(|number| envelope(key_id, number)).collect();
            let missed = Missed { cursors, first: FIRST, said };
            Self { missed, keys: vec![key(key_id, Some(WrappedKey([7; 80])))], chats }
        }

        fn entry(&self, seq: u64) -> LogEntry {
            let envelope = self.missed.said(seq).cloned();
            let envelope = envelope.unwrap_or_else(|| envelope_of_nobody(&self.missed));
            let created_at = Timestamp::new(1).unwrap();
            LogEntry {
                seq: Seq::saturating(seq),
                created_at,
                log_hash: Hash([8; 32]),
                body: EntryBody::Message(envelope),
            }
        }

        /// A page with these entries that says it covers exactly what lies between the first and the last.
        fn page(&self, chat: usize, seqs: &[u64]) -> Page {
            Page {
                chat_id: self.chats[chat],
                after: Seq::saturating(seqs[0] - 1),
                up_to: Seq::saturating(*seqs.last().unwrap()),
                more: false,
                entries: seqs.iter().map(|seq| self.entry(*seq)).collect(),
                keys: self.keys.clone(),
            }
        }

        /// Messages given right, and what is wrong in the end, of these pages by chat.
        fn judge(&self, pages: &[Page]) -> (u64, Wrong) {
            let mut given = Given::new(&self.missed);
            for page in pages {
                given.page(page);
            }
            given.live();
            (given.right, given.wrong)
        }
    }

    fn envelope_of_nobody(missed: &Missed) -> Envelope {
        Envelope { message_id: MessageId::generate(), ..missed.said[0].clone() }
    }

    #[test]
    fn what_was_missed_and_nothing_else_is_right_in_pages_of_any_length() {
        let setting = Setting::new();
        assert_eq!(setting.missed.count(), 5);
        let (whole, rest) = (setting.page(0, &[8, 9, 10]), setting.page(1, &[9, 10]));
        let (right, wrong) = setting.judge(&[whole, rest.clone()]);
        assert_eq!((right, wrong.sum()), (5, 0));
        let (right, wrong) = setting.judge(&[setting.page(0, &[8]), rest, setting.page(0, &[9, 10])]);
        assert_eq!((right, wrong.sum()), (5, 0));
    }

    #[test]
    fn each_kind_of_wrong_page_is_counted_as_what_it_is() {
        let setting = Setting::new();
        let rest = || setting.page(1, &[9, 10]);
        let gap = setting.judge(&[setting.page(0, &[8, 10]), rest()]).1;
        assert_eq!((gap.gaps, gap.sum()), (1, 1));
        let skipped = setting.judge(&[setting.page(0, &[9, 10]), rest()]).1;
        assert_eq!((skipped.gaps, skipped.sum()), (1, 1));
        let twice = setting.judge(&[setting.page(0, &[8, 9, 10]), setting.page(0, &[10]), rest()]).1;
        assert_eq!((twice.duplicated, twice.sum()), (1, 1));
        let known = setting.judge(&[setting.page(0, &[8, 9, 10]), setting.page(1, &[8, 9, 10])]).1;
        assert_eq!((known.duplicated, known.sum()), (1, 1));
        let missing = setting.judge(&[setting.page(0, &[8, 9]), rest()]).1;
        assert_eq!((missing.lost, missing.sum()), (1, 1));
        let nothing = setting.judge(&[setting.page(0, &[8, 9, 10])]).1;
        assert_eq!((nothing.lost, nothing.sum()), (2, 2));
        let more = setting.judge(&[setting.page(0, &[8, 9, 10, 11]), rest()]).1;
        assert_eq!((more.undecryptable, more.sum()), (1, 1));
    }

    #[test]
    fn a_page_that_covers_more_than_it_holds_has_a_gap() {
        let setting = Setting::new();
        let mut short = setting.page(0, &[8, 9]);
        short.up_to = Seq::saturating(10);
        let (right, wrong) = setting.judge(&[short, setting.page(1, &[9, 10])]);
        assert_eq!((right, wrong.gaps, wrong.lost, wrong.sum()), (4, 1, 1, 2));
        let mut empty = setting.page(0, &[8]);
        empty.entries.clear();
        let (_, wrong) = setting.judge(&[empty, setting.page(0, &[8, 9, 10]), setting.page(1, &[9, 10])]);
        assert_eq!((wrong.gaps, wrong.sum()), (1, 1));
    }

    #[test]
    fn a_message_of_another_chat_or_altered_or_without_its_key_is_not_right() {
        let setting = Setting::new();
        let rest = || setting.page(1, &[9, 10]);
        let whole = || setting.page(0, &[8, 9, 10]);
        let mut strange = setting.page(0, &[8]);
        strange.chat_id = ChatId::generate();
        let mut altered = whole();
        altered.entries[1] = LogEntry { seq: Seq::saturating(9), ..setting.entry(10) };
        let mut keyless = setting.page(0, &[8]);
        keyless.keys = vec![key(KeyId::generate(), Some(WrappedKey([7; 80])))];
        let mut unwrapped = setting.page(0, &[8]);
        unwrapped.keys.iter_mut().for_each(|key| key.key = None);
        for pages in [
            vec![whole(), rest(), strange],
            vec![altered, rest()],
            vec![keyless, setting.page(0, &[9, 10]), rest()],
            vec![unwrapped, setting.page(0, &[9, 10]), rest()],
        ] {
            let wrong = setting.judge(&pages).1;
            assert_eq!((wrong.undecryptable, wrong.sum()), (1, 1));
        }
    }

    #[test]
    fn what_comes_after_live_is_too_late() {
        let setting = Setting::new();
        let mut given = Given::new(&setting.missed);
        given.page(&setting.page(0, &[8, 9, 10]));
        given.live();
        assert_eq!((given.right, given.wrong.lost, given.wrong.sum()), (3, 2, 2));
        given.page(&setting.page(1, &[9, 10]));
        assert_eq!((given.right, given.wrong.duplicated, given.wrong.sum()), (3, 2, 4));
    }
}
