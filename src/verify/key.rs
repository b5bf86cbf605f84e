//! Judges sender keys, who has copies of them, what was said of these, and wraps of info keys.

use std::collections::BTreeSet;

use super::finding::{Kind, OrNone, Place};
use super::log::LogCheck;
use super::report::Report;
use crate::protocol::frame::SessionState;
use crate::protocol::ids::{Seq, SessionId};
use crate::protocol::verify::Verifier;
use crate::store::inspect::{ChatRow, InfoKeyRow, RefusalRow, StoredKeyRow};

impl LogCheck {
    /// Judges a key after the last entry of the log.
    pub fn check_key(&mut self, chat: &ChatRow, row: &StoredKeyRow, report: &mut Report) {
        let key = &row.key;
        let place = Place::chat(self.chat_id).key(key.key_id);
        report.counts.keys += 1;
        report.counts.copies += row.copies.len() as u64;
        self.check_announcement(row, place, report);
        let used_until = self.check_use(row, place, report);
        if self.fold.is_none() {
            return;
        }
        let is_current = self.epoch() == Some(key.epoch);
        self.check_holders(row, is_current, place, report);
        let is_complete = self.check_readers(chat, row, used_until, is_current, place, report);
        if is_current {
            report.counts.current_keys += 1;
            report.counts.incomplete_keys += u64::from(!is_complete && !row.is_replaced);
        }
        for refusal in &row.refusals {
            self.check_refusal(refusal, place.session(refusal.session_id), report);
        }
    }

    fn check_announcement(&self, row: &StoredKeyRow, place: Place, report: &mut Report) {
        let Some(signed) = &row.announcement else {
            report.violation(Kind::Unreadable, place, "an announcement that is none", "an announcement");
            return;
        };
        let (key, said) = (&row.key, &signed.announcement);
        let is_its = said.key_id == key.key_id
            && said.session_id == key.session_id
            && said.epoch == key.epoch
            && said.commitment == row.commitment;
        report.holds(Kind::Announcement, place, is_its, "other columns", "the announcement's");
        // Of a log that was not founded no session is known.
        if self.fold.is_none() {
            return;
        }
        let session = self.sessions.get(&said.session_id);
        let verifies = session.is_some_and(|session| signed.verifies(self.chat_id, &session.signing_key));
        report.holds(Kind::Announcement, place, verifies, "another signature", "its session's");
    }

    /// Compares the row with what the log did with the key; gives up to where it was used, as far as that is known.
    fn check_use(&mut self, row: &StoredKeyRow, place: Place, report: &mut Report) -> Option<Seq> {
        let key = &row.key;
        if let Some(used) = self.keys.remove(&key.key_id) {
            used.settle(self.chat_id, report);
            return Some(used.last_seq);
        }
        match row.is_first_there {
            // Of an earlier epoch: settled when that ended.
            Some(true) => key.first_seq,
            Some(false) => {
                report.violation(Kind::FirstSeq, place, "no message of the key is there", "its first message");
                None
            }
            None => {
                report.holds(
                    Kind::LastCounter,
                    place,
                    key.last_counter.get() == 0,
                    key.last_counter,
                    "0: it is unused",
                );
                let with_data = key.messages_with_data;
                report.holds(Kind::DataCount, place, with_data == 0, with_data, "0: it is unused");
                None
            }
        }
    }

    /// Nobody has a copy of a current key but the recipients, or of any key but sessions of members.
    fn check_holders(&self, row: &StoredKeyRow, is_current: bool, place: Place, report: &mut Report) {
        for copy in &row.copies {
            let place = place.session(copy.session_id);
            let is_recipient = self.fold.as_ref().is_some_and(|fold| fold.recipients().contains_key(&copy.session_id));
            let was_in = self.is_member(copy.user_id) && copy.state != SessionState::Pending;
            let is_allowed = is_recipient || !is_current && was_in;
            report.holds(Kind::CopyExtra, place, is_allowed, "a copy for a session", "none for it");
            let is_senders = copy.sender_session_id == row.key.session_id;
            report.holds(Kind::CopyColumns, place, is_senders, "another sender", "the key's");
        }
    }

    /// Every recipient has a copy who was there when the key was used last, unless they refused it; and every
    /// recipient at all if the row says that all are covered. Says whether none is missing.
    ///
    /// Copies of a key that is over and has no data left may have gone (P13).
    fn check_readers(
        &self,
        chat: &ChatRow,
        row: &StoredKeyRow,
        used_until: Option<Seq>,
        is_current: bool,
        place: Place,
        report: &mut Report,
    ) -> bool {
        let Some(fold) = &self.fold else { return true };
        let keeps_copies = row.key.messages_with_data > 0 || is_current && !row.is_replaced;
        let is_covered = is_current && row.covered_version == Some(chat.roster_version);
        if let Some(generation) = self.current_generation().filter(|_| keeps_copies && is_covered) {
            let is_archived = row.archived == Some(generation);
            report.holds(Kind::ArchiveMissing, place, is_archived, OrNone(row.archived), generation);
        }
        let holders: BTreeSet<SessionId> = row.copies.iter().map(|copy| copy.session_id).collect();
        let voided: BTreeSet<SessionId> =
            row.refusals.iter().filter(|refusal| refusal.has_effect).map(|refusal| refusal.session_id).collect();
        let mut is_complete = true;
        for session_id in fold.recipients().keys() {
            let is_there = holders.contains(session_id);
            is_complete &= is_there;
            let in_seq = self.sessions.get(session_id).map(|session| session.in_seq);
            let was_there = in_seq.zip(used_until).is_some_and(|(in_seq, until)| in_seq < until);
            let must_be_there = keeps_copies && (is_covered || was_there && !voided.contains(session_id));
            if is_there || must_be_there {
                let place = place.session(*session_id);
                report.holds(Kind::CopyMissing, place, is_there, "no copy for a recipient", "one");
            }
        }
        is_complete
    }

    fn check_refusal(&self, refusal: &RefusalRow, place: Place, report: &mut Report) {
        let session = self.sessions.get(&refusal.session_id);
        let verifies = session.zip(refusal.signed).is_some_and(|(session, signed)| {
            session.signing_key.verifies(&signed.refusal.signed_bytes(self.chat_id), &signed.signature)
        });
        report.holds(Kind::CopyRefusal, place, verifies, "another signature", "its session's");
    }

    /// Judges a wrap of an info key: signed by who made it, for a session of a member.
    pub fn check_info_key(&self, row: &InfoKeyRow, report: &mut Report) {
        let wrap = &row.wrap;
        let place = Place::chat(self.chat_id).session(wrap.session_id);
        report.counts.info_keys += 1;
        if self.fold.is_none() {
            return;
        }
        let session = self.sessions.get(&wrap.wrapped_by_session_id);
        let verifies = session
            .is_some_and(|session| session.signing_key.verifies(&wrap.signed_bytes(self.chat_id), &wrap.signature));
        report.holds(Kind::InfoKey, place, verifies, "another signature", "the wrapping session's");
        let is_members = self.is_member(row.user_id) && row.state != SessionState::Pending;
        report.holds(Kind::InfoKey, place, is_members, "a wrap for a session", "none for it");
    }
}
