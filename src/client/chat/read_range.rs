//! What a reader of a log has read in one piece, and how messages look that were edited or deleted further on.
//!
//! Pages come in any order. A message is shown at the place of its first revision, with the newest text of all that
//! was read; a change that was read before its message waits here for it.

use std::collections::BTreeMap;

use super::log::{Content, MessageTaken};
use crate::client::body::Body;
use crate::client::failure::VerificationFailure;
use crate::protocol::envelope::MessageKind;
use crate::protocol::ids::{MessageId, Revision, Seq, SessionId, UserId};

/// The newest change of a message that was read.
#[derive(Debug, Clone)]
struct Newest {
    revision: Revision,
    user_id: UserId,
    session_id: SessionId,
    by_manager: bool,
    content: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Edited(Body),
    Deleted,
    /// It was changed again, which was not read yet, or is for other sessions.
    Unknown,
}

/// How a message looks at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// It says this, by the newest revision that was read and the session that made it.
    Says { body: Body, revision: Revision, session_id: SessionId },
    /// It was edited or deleted further on than was read.
    ChangedLater,
    /// There is nothing to show: it is deleted, or for other sessions.
    Nothing,
    /// Somebody changed it who may not.
    Refused(VerificationFailure),
}

/// What was read in one piece.
#[derive(Debug, Default)]
pub(crate) struct ReadRange {
    /// Above the first seq, up to and with the second.
    covered: Option<(Seq, Seq)>,
    newest: BTreeMap<MessageId, Newest>,
    /// Messages without data whose later revision was not read yet, with the place and number of what was read.
    unexplained: BTreeMap<MessageId, (Seq, Revision)>,
}

impl ReadRange {
    /// A page is read. One that does not touch what was read before begins anew.
    pub(crate) fn cover(&mut self, after: Seq, up_to: Seq) {
        self.covered = match self.covered {
            Some((from, to)) if after <= to && up_to >= from => Some((from.min(after), to.max(up_to))),
            _ => {
                self.newest.clear();
                self.unexplained.clear();
                Some((after, up_to))
            }
        };
    }

    /// Takes a revision that verified. All of a page's are taken before any of its messages is looked at.
    pub(crate) fn take(&mut self, seq: Seq, taken: &MessageTaken) {
        let (message_id, revision) = (taken.message_id, taken.revision);
        let Ok(content) = &taken.content else { return };
        if self.unexplained.get(&message_id).is_some_and(|(_, before)| *before < revision) {
            self.unexplained.remove(&message_id);
        }
        let known = self.newest.get(&message_id).map(|newest| newest.revision);
        if matches!(content, Content::Purged) && known.is_none_or(|known| known <= revision) {
            self.unexplained.insert(message_id, (seq, revision));
        }
        if taken.kind == MessageKind::Message || known.is_some_and(|known| known >= revision) {
            return;
        }
        let content = match content {
            Content::Body(body) => Change::Edited(body.clone()),
            Content::Deleted => Change::Deleted,
            Content::Purged | Content::NotForUs => Change::Unknown,
        };
        let newest = Newest {
            revision,
            user_id: taken.sender_id,
            session_id: taken.sender_session_id,
            by_manager: taken.by_manager,
            content,
        };
        self.newest.insert(message_id, newest);
    }

    /// How a message looks whose first revision verified, by all that was read.
    pub(crate) fn look(&self, taken: &MessageTaken) -> Look {
        if matches!(taken.content, Ok(Content::NotForUs) | Err(_)) {
            return Look::Nothing;
        }
        let Some(newest) = self.newest.get(&taken.message_id) else {
            return match &taken.content {
                Ok(Content::Body(body)) => {
                    Look::Says { body: body.clone(), revision: taken.revision, session_id: taken.sender_session_id }
                }
                _ => Look::ChangedLater,
            };
        };
        let is_own = newest.user_id == taken.sender_id;
        match &newest.content {
            Change::Deleted if is_own || newest.by_manager => Look::Nothing,
            Change::Edited(body) if is_own => {
                Look::Says { body: body.clone(), revision: newest.revision, session_id: newest.session_id }
            }
            Change::Unknown if is_own => Look::ChangedLater,
            _ => Look::Refused(VerificationFailure::NotTheirs),
        }
    }

    /// The end of the log is read: places whose data is gone though nothing that follows says why.
    pub(crate) fn withheld(&mut self) -> Vec<Seq> {
        let mut withheld: Vec<Seq> = std::mem::take(&mut self.unexplained).into_values().map(|(seq, _)| seq).collect();
        withheld.sort_unstable();
        withheld
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(kind: MessageKind, id: MessageId, user: UserId, revision: u64, content: Content) -> MessageTaken {
        MessageTaken {
            kind,
            message_id: id,
            revision: Revision::saturating(revision),
            first: None,
            by_manager: false,
            sender_id: user,
            sender_session_id: SessionId::generate(),
            content: Ok(content),
        }
    }

    fn text(look: &Look) -> Option<(&Body, u64)> {
        match look {
            Look::Says { body, revision, .. } => Some((body, revision.get())),
            _ => None,
        }
    }

    #[test]
    fn a_message_says_at_its_place_what_the_newest_revision_says_whichever_is_read_first() {
        use MessageKind::{Delete, Edit, Message};
        let (id, ann, bob) = (MessageId::generate(), UserId::generate(), UserId::generate());
        let first = taken(Message, id, ann, 0, Content::Purged);
        let edit = taken(Edit, id, ann, 1, Content::Purged);
        let newest = taken(Edit, id, ann, 2, Content::Body(Body::text("new")));
        for order in [[&first, &edit, &newest], [&newest, &edit, &first]] {
            let mut range = ReadRange::default();
            range.cover(Seq::saturating(0), Seq::saturating(9));
            order.into_iter().zip(1..).for_each(|(taken, seq)| range.take(Seq::saturating(seq), taken));
            assert_eq!(text(&range.look(&first)), Some((&Body::text("new"), 2)));
            assert!(range.withheld().is_empty());
        }
        let mut range = ReadRange::default();
        range.take(Seq::saturating(1), &first);
        assert_eq!(range.look(&first), Look::ChangedLater);
        range.take(Seq::saturating(2), &edit);
        assert_eq!(range.look(&first), Look::ChangedLater);
        range.take(Seq::saturating(3), &taken(Delete, id, ann, 2, Content::Deleted));
        assert_eq!(range.look(&first), Look::Nothing);
        let mut range = ReadRange::default();
        range.take(Seq::saturating(3), &taken(Delete, id, bob, 1, Content::Deleted));
        assert_eq!(range.look(&first), Look::Refused(VerificationFailure::NotTheirs));
    }

    #[test]
    fn what_is_gone_without_a_reason_is_named_at_the_end_of_what_was_read_in_one_piece() {
        let (id, ann) = (MessageId::generate(), UserId::generate());
        let first = taken(MessageKind::Message, id, ann, 0, Content::Purged);
        let mut range = ReadRange::default();
        range.cover(Seq::saturating(0), Seq::saturating(5));
        range.take(Seq::saturating(3), &first);
        range.cover(Seq::saturating(5), Seq::saturating(9));
        assert_eq!(range.withheld(), [Seq::saturating(3)]);
        range.cover(Seq::saturating(0), Seq::saturating(5));
        range.take(Seq::saturating(3), &first);
        range.cover(Seq::saturating(20), Seq::saturating(30));
        assert!(range.withheld().is_empty(), "what lies between was not read");
    }
}
