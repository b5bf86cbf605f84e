//! Remembers who sent the newest messages of a chat and how far each has come, to judge edits and deletions by.
//!
//! Bounded: of a message older than those remembered only signature and rights are judged, and whoever shows such
//! a change compares its author with that of the message.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::client::failure::VerificationFailure;
use crate::protocol::envelope::{Envelope, MessageKind};
use crate::protocol::ids::{MessageId, Revision, Seq, UserId};

/// Messages remembered of each chat: some 50 bytes each, in memory and in the profile.
const KNOWN_MAX: usize = 2_048;

/// Messages without data that wait for the revision which says why, at most; the oldest are let go unjudged.
const UNEXPLAINED_MAX: usize = 65_536;

/// A message as far as its revisions are judged by it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
struct Known {
    message_id: MessageId,
    sender_id: UserId,
    revision: Revision,
    is_deleted: bool,
    /// The place of its first revision.
    seq: Seq,
}

/// Without names, since a profile keeps many.
type Row = (MessageId, UserId, Revision, bool, Seq);

impl From<Row> for Known {
    fn from((message_id, sender_id, revision, is_deleted, seq): Row) -> Self {
        Self { message_id, sender_id, revision, is_deleted, seq }
    }
}

impl From<Known> for Row {
    fn from(known: Known) -> Self {
        (known.message_id, known.sender_id, known.revision, known.is_deleted, known.seq)
    }
}

/// The newest messages of a chat, and those whose data is gone without a reason so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Messages {
    /// In order of their places.
    known: VecDeque<Known>,
    unexplained: BTreeMap<MessageId, Seq>,
}

impl Messages {
    /// Judges a revision whose signature is good by the message it is of, and takes its number. `by_manager`: its
    /// maker may delete what others wrote.
    ///
    /// The number is taken even if the entry fails elsewhere, since the server took it too.
    pub(crate) fn take(&mut self, seq: Seq, envelope: &Envelope, by_manager: bool) -> Result<(), VerificationFailure> {
        let (message_id, revision) = (envelope.message_id, envelope.revision);
        let Some(known) = self.known.iter_mut().rev().find(|known| known.message_id == message_id) else {
            if envelope.kind == MessageKind::Message {
                self.remember(Known { message_id, sender_id: envelope.sender_id, revision, is_deleted: false, seq });
            }
            return Ok(());
        };
        let is_deletion = envelope.kind == MessageKind::Delete;
        if known.sender_id != envelope.sender_id && !(is_deletion && by_manager) {
            return Err(VerificationFailure::NotTheirs);
        }
        if known.is_deleted {
            return Err(VerificationFailure::AfterDeletion);
        }
        if revision != known.revision.next() {
            return Err(VerificationFailure::Revision { expected: known.revision.next(), found: revision });
        }
        known.revision = revision;
        known.is_deleted = is_deletion;
        Ok(())
    }

    /// A revision verified: the data of those before it may be gone. Its own may not, unless a later one follows.
    pub(crate) fn verified(&mut self, seq: Seq, envelope: &Envelope) {
        self.unexplained.remove(&envelope.message_id);
        if envelope.kind != MessageKind::Delete && envelope.data.is_none() {
            self.unexplained.insert(envelope.message_id, seq);
            if self.unexplained.len() > UNEXPLAINED_MAX
                && let Some(oldest) = self.unexplained.iter().min_by_key(|(_, seq)| **seq).map(|(id, _)| *id)
            {
                self.unexplained.remove(&oldest);
            }
        }
    }

    /// Takes out the places up to this one whose data is gone although nothing in the log says why. To be asked
    /// once everything up to now has come: what purged them came later than they.
    pub(crate) fn withheld(&mut self, up_to: Seq) -> Vec<Seq> {
        let mut withheld: Vec<Seq> = self.unexplained.values().filter(|seq| **seq <= up_to).copied().collect();
        self.unexplained.retain(|_, seq| *seq > up_to);
        withheld.sort_unstable();
        withheld
    }

    /// The place of a message's first revision, if it is remembered.
    pub(crate) fn place_of(&self, message_id: MessageId) -> Option<Seq> {
        self.find(message_id).map(|known| known.seq)
    }

    /// Who sent a message, if it is remembered.
    pub(crate) fn sender_of(&self, message_id: MessageId) -> Option<UserId> {
        self.find(message_id).map(|known| known.sender_id)
    }

    /// The revision that an edit or deletion of a message has next, if the message is remembered.
    pub(crate) fn next_revision(&self, message_id: MessageId) -> Option<Revision> {
        self.find(message_id).map(|known| known.revision.next())
    }

    fn find(&self, message_id: MessageId) -> Option<&Known> {
        self.known.iter().rev().find(|known| known.message_id == message_id)
    }

    fn remember(&mut self, known: Known) {
        if self.known.len() == KNOWN_MAX {
            self.known.pop_front();
        }
        self.known.push_back(known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::binary::{Blob, Hash, Signature};
    use crate::protocol::envelope::Seen;
    use crate::protocol::ids::{Counter, SessionId};

    fn envelope(kind: MessageKind, message_id: MessageId, sender_id: UserId, revision: u64) -> Envelope {
        Envelope {
            kind,
            message_id,
            revision: Revision::saturating(revision),
            sender_id,
            sender_session_id: SessionId::generate(),
            key_id: None,
            counter: Counter::default(),
            roster_hash: Hash([0; 32]),
            seen: Seen { seq: Seq::default(), log_hash: Hash([0; 32]) },
            attachments: Vec::new(),
            data: Some(Blob::from(vec![1])),
            purged: None,
            signature: Signature([0; 64]),
        }
    }

    #[test]
    fn p7_only_the_same_user_edits_and_only_the_next_revision_counts() {
        use MessageKind::{Delete, Edit, Message};
        let (ann, bob, id) = (UserId::generate(), UserId::generate(), MessageId::generate());
        let mut messages = Messages::default();
        let mut take = |kind, sender, revision, by_manager| {
            messages.take(Seq::saturating(7), &envelope(kind, id, sender, revision), by_manager)
        };
        let skipped = |expected, found| {
            let (expected, found) = (Revision::saturating(expected), Revision::saturating(found));
            Err(VerificationFailure::Revision { expected, found })
        };
        assert_eq!(take(Message, ann, 0, false), Ok(()));
        assert_eq!(take(Message, ann, 0, false), skipped(1, 0), "the same id again");
        assert_eq!(take(Edit, bob, 1, true), Err(VerificationFailure::NotTheirs), "a manager edits nothing of others");
        assert_eq!(take(Delete, bob, 1, false), Err(VerificationFailure::NotTheirs));
        assert_eq!(take(Edit, ann, 2, false), skipped(1, 2));
        assert_eq!(take(Edit, ann, 1, false), Ok(()));
        assert_eq!(take(Edit, ann, 1, false), skipped(2, 1));
        assert_eq!(take(Delete, bob, 2, true), Ok(()));
        assert_eq!(take(Edit, ann, 3, false), Err(VerificationFailure::AfterDeletion));
        assert_eq!(take(Delete, ann, 3, false), Err(VerificationFailure::AfterDeletion));
        // Of a message from before, the author is not known.
        let other = envelope(Edit, MessageId::generate(), bob, 4);
        assert_eq!(messages.take(Seq::saturating(8), &other, false), Ok(()));
        assert_eq!(messages.place_of(other.message_id), None);
    }

    #[test]
    fn p13_data_that_is_gone_needs_a_later_revision() {
        let (ann, mut messages) = (UserId::generate(), Messages::default());
        let ids = [MessageId::generate(), MessageId::generate(), MessageId::generate()];
        for (id, seq) in ids.into_iter().zip(1..) {
            let purged = Envelope { data: None, ..envelope(MessageKind::Message, id, ann, 0) };
            messages.verified(Seq::saturating(seq), &purged);
        }
        messages.verified(Seq::saturating(4), &envelope(MessageKind::Edit, ids[0], ann, 1));
        let again = Envelope { data: None, ..envelope(MessageKind::Edit, ids[1], ann, 1) };
        messages.verified(Seq::saturating(5), &again);
        assert_eq!(messages.withheld(Seq::saturating(3)), [Seq::saturating(3)]);
        assert_eq!(messages.withheld(Seq::saturating(5)), [Seq::saturating(5)]);
        assert!(messages.withheld(Seq::saturating(9)).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_comes_back_from_the_profile() {
        let (ann, mut messages) = (UserId::generate(), Messages::default());
        let first = MessageId::generate();
        messages.take(Seq::saturating(1), &envelope(MessageKind::Message, first, ann, 0), false).unwrap();
        let mut last = first;
        for seq in 2..=KNOWN_MAX as u64 + 1 {
            last = MessageId::generate();
            messages.take(Seq::saturating(seq), &envelope(MessageKind::Message, last, ann, 0), false).unwrap();
        }
        let bytes = rmp_serde::to_vec_named(&messages).unwrap();
        assert!(bytes.len() < KNOWN_MAX * 50, "{} bytes", bytes.len());
        let again: Messages = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!((again.place_of(first), again.sender_of(last)), (None, Some(ann)));
        assert_eq!(again.next_revision(last), Some(Revision::saturating(1)));
    }
}
