//! Judges one revision of a message where it stands in the log: what the server let in, and what receivers refuse.

use super::finding::{Kind, OrNone, Place, Refused, Short};
use super::log::{KeyUse, LogCheck};
use super::report::Report;
use crate::protocol::binary::{Hash, SigningKey};
use crate::protocol::envelope::{Envelope, MessageKind};
use crate::protocol::ids::{Counter, KeyId, Revision, Seq};
use crate::protocol::verify::Verifier;
use crate::store::inspect::MessageFacts;

impl LogCheck {
    pub(super) fn take_message(
        &mut self,
        seq: Seq,
        envelope: &Envelope,
        facts: &MessageFacts,
        seen_there: Option<Hash>,
        report: &mut Report,
    ) {
        let place = Place::chat(self.chat_id).at(seq);
        match envelope.kind {
            MessageKind::Message => report.counts.messages += 1,
            MessageKind::Edit => report.counts.edits += 1,
            MessageKind::Delete => report.counts.deletions += 1,
        }
        check_shape(envelope, place, report);
        check_data(envelope, facts, place, report);
        self.check_revision(seq, envelope, facts, place, report);
        if self.fold.is_none() {
            return;
        }
        let signing_key = self.check_sender(envelope, place, report);
        if let Some(signing_key) = signing_key {
            self.check_signature(envelope, &signing_key, place, report);
        }
        if let Some(expected) = self.roster_hash() {
            let found = &envelope.roster_hash;
            report.holds(Kind::RosterHash, place, *found == expected, Short(found), Short(&expected));
        }
        if let Some(key_id) = envelope.key_id {
            self.use_key(seq, key_id, envelope, facts, place, report);
        }
        self.check_seen(place, seq, &envelope.seen, seen_there, report);
        if envelope.key_id.is_some() {
            self.note_seen(envelope.sender_session_id, envelope.seen.seq, place, report);
        }
    }

    /// Whether the sender was a recipient and might write; gives what their session signs with.
    fn check_sender(&self, envelope: &Envelope, place: Place, report: &mut Report) -> Option<SigningKey> {
        let fold = self.fold.as_ref()?;
        let session = fold.recipients().get(&envelope.sender_session_id);
        let session = session.filter(|session| session.user_id == envelope.sender_id);
        let expected = "a session of the sender that is a recipient";
        let place = place.session(envelope.sender_session_id);
        report.holds(Kind::GhostSender, place, session.is_some(), "another", expected);
        let member = fold.membership().members.get(&envelope.sender_id);
        if let Some(member) = member.filter(|_| envelope.kind != MessageKind::Delete) {
            report.holds(Kind::CannotWrite, place, member.can_write, "a member who may not", "one who may write");
        }
        session.map(|session| session.signing_public_key)
    }

    /// The server checks the signature of what purges data; that of a new message is for receivers to check.
    fn check_signature(&self, envelope: &Envelope, key: &SigningKey, place: Place, report: &mut Report) {
        let verifies = key.verifies(&envelope.signed_bytes(self.chat_id), &envelope.signature);
        if envelope.kind != MessageKind::Message {
            report.holds(Kind::RevisionSignature, place, verifies, "another signature", "the sender's");
        } else if !verifies {
            report.refused(Refused::Signature, place);
        }
    }

    /// An edit or deletion follows the revision before it, is by its sender or, a deletion, by a manager, and of a
    /// message that its maker might read.
    fn check_revision(&self, seq: Seq, envelope: &Envelope, facts: &MessageFacts, place: Place, report: &mut Report) {
        if envelope.revision == Revision::default() {
            return;
        }
        let (Some(before), Some(first)) = (facts.before, facts.first) else {
            report.violation(Kind::RevisionGap, place, format_args!("revision {}", envelope.revision), "one before it");
            return;
        };
        let is_later = before.seq < seq && first.seq < seq;
        report.holds(Kind::RevisionGap, place, is_later, "the one before it comes later", "revisions in order");
        report.holds(Kind::AfterDeletion, place, !before.is_deletion, "a revision", "none after the deletion");
        // Of a log that was not founded nobody's rights are known.
        let Some(fold) = &self.fold else { return };
        let member = fold.membership().members.get(&envelope.sender_id);
        let is_own = first.sender_id == envelope.sender_id;
        let may_manage = member.is_some_and(|member| member.can_manage);
        let is_allowed = is_own || envelope.kind == MessageKind::Delete && may_manage;
        let is_readable = member.is_none_or(|member| first.seq >= member.readable_from);
        let expected = "its sender, or a manager who deletes";
        report.holds(Kind::NotTheirs, place, is_allowed && is_readable, "somebody else", expected);
    }

    fn use_key(
        &mut self,
        seq: Seq,
        key_id: KeyId,
        envelope: &Envelope,
        facts: &MessageFacts,
        place: Place,
        report: &mut Report,
    ) {
        let place = place.key(key_id);
        let epoch = self.epoch();
        if !self.keys.contains_key(&key_id) {
            let row = self.rows.get(&key_id);
            report.holds(Kind::KeyMissing, place, row.is_some(), "no such key", "the key");
            let Some(row) = row else { return };
            let is_current = Some(row.epoch) == epoch;
            report.holds(Kind::KeyEpoch, place, is_current, row.epoch, OrNone(epoch));
            if !is_current {
                return;
            }
            self.keys.insert(key_id, KeyUse::new(row.clone()));
        } else {
            report.holds(Kind::KeyEpoch, place, true, "", "");
        }
        let Some(used) = self.keys.get_mut(&key_id) else { return };
        let is_own = used.row.session_id == envelope.sender_session_id;
        report.holds(Kind::KeyOfAnother, place, is_own, "another session's key", "the sending session's");
        report.same(Kind::CounterGap, place, &envelope.counter, &used.counter.next());
        used.counter = envelope.counter;
        used.first_seq.get_or_insert(seq);
        used.last_seq = seq;
        used.with_data += u64::from(facts.has_data);
    }
}

/// A message is the first revision, an edit or deletion a later one, and a deletion alone has no key and no counter.
fn check_shape(envelope: &Envelope, place: Place, report: &mut Report) {
    let is_first = envelope.revision == Revision::default();
    let is_deletion = envelope.kind == MessageKind::Delete;
    let fits = is_first == (envelope.kind == MessageKind::Message)
        && is_deletion == envelope.key_id.is_none()
        && is_deletion == (envelope.counter == Counter::default());
    let found = format_args!("{} at revision {}", envelope.kind.as_str(), envelope.revision);
    report.holds(Kind::Shape, place, fits, found, "a message of its kind's form");
}

/// The data of the newest revision is there, that of others and of deletions is gone, and it has the signed hash.
fn check_data(envelope: &Envelope, facts: &MessageFacts, place: Place, report: &mut Report) {
    report.holds(Kind::DataHash, place, facts.is_its_hash, "data of another hash", "the signed hash");
    if facts.is_superseded || envelope.kind == MessageKind::Delete {
        report.holds(Kind::DataKept, place, !facts.has_data, "data", "none after a later revision");
    } else {
        report.holds(Kind::DataMissing, place, facts.has_data, "no data", "the data of the newest revision");
    }
}
