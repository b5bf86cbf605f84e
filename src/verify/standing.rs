//! Compares what the tables say of a chat with what its log comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::finding::{Kind, OrNone, Place, Short};
use super::log::LogCheck;
use super::report::Report;
use crate::protocol::fold::Recipient;
use crate::protocol::group_key::{GroupKeyWrap, RecoveryKey, wraps_hash};
use crate::protocol::ids::{GenerationNo, SessionId, UserId};
use crate::store::inspect::{ChatRow, MemberRow, MisplacedRow, RecipientRow, RepeatedRevision};

impl LogCheck {
    /// Compares the chat's row with the log, after its last entry.
    pub fn check_chat(&self, row: &ChatRow, report: &mut Report) {
        let place = Place::chat(self.chat_id);
        report.same(Kind::Head, place, &row.last_seq, &self.head.seq);
        if let Some(log_hash) = &self.head.log_hash {
            report.holds(Kind::Head, place, row.log_hash == *log_hash, Short(&row.log_hash), Short(log_hash));
        }
        let Some(fold) = &self.fold else {
            // Of a log without any entry nothing was said yet.
            if self.head.seq.get() == 0 {
                report.violation(Kind::NotFounded, place, "no entry", "a creation");
            }
            return;
        };
        let membership = fold.membership();
        report.same(Kind::Epoch, place, &row.epoch, &fold.epoch());
        report.same(Kind::Roster, place, &row.roster_version, &fold.roster_version());
        let roster_hash = fold.roster_hash();
        let is_same = row.roster_hash == roster_hash;
        report.holds(Kind::Roster, place, is_same, Short(&row.roster_hash), Short(&roster_hash));
        report.same(Kind::Owner, place, &row.owner_id, &membership.owner_id);
        let is_same = row.shared_since == membership.shared_since && row.is_shared == row.shared_since.is_some();
        report.holds(Kind::History, place, is_same, OrNone(row.shared_since), OrNone(membership.shared_since));
        report.same(Kind::ChangeHead, place, &row.change_no, &membership.head);
        let is_same = row.change_hash == membership.hash;
        report.holds(Kind::ChangeHead, place, is_same, Short(&row.change_hash), Short(&membership.hash));
        let found = row.generation.map(|key| (key, !row.is_outdated));
        let expected = fold.newest_generation().map(|key| (key, fold.recovery_key().is_some()));
        report.holds(Kind::Generation, place, found == expected, Newest(found), Newest(expected));
        let next_expiry = fold.recipients().values().map(|recipient| recipient.expired_at).min();
        let is_same = row.next_expiry == next_expiry;
        report.holds(Kind::NextExpiry, place, is_same, OrNone(row.next_expiry), OrNone(next_expiry));
    }

    /// Compares members, their rights, and from where they read.
    pub fn check_members(&self, rows: &[MemberRow], report: &mut Report) {
        let Some(fold) = &self.fold else { return };
        report.counts.members += rows.len() as u64;
        let members = &fold.membership().members;
        let stored: BTreeSet<UserId> = rows.iter().map(|row| row.user_id).collect();
        for user_id in members.keys() {
            let place = Place::chat(self.chat_id).member(*user_id);
            report.holds(Kind::Members, place, stored.contains(user_id), "no member", "a member");
        }
        for row in rows {
            let place = Place::chat(self.chat_id).member(row.user_id);
            let Some(member) = members.get(&row.user_id) else {
                report.violation(Kind::Members, place, "a member", "no member");
                continue;
            };
            let rights = |write: bool, manage: bool| format!("write {write}, manage {manage}");
            let found = rights(row.member.can_write, row.member.can_manage);
            report.same(Kind::Rights, place, &found, &rights(member.can_write, member.can_manage));
            let found = format!("joined {}, reads from {}", row.member.joined_seq, row.member.readable_from);
            let expected = format!("joined {}, reads from {}", member.joined_seq, member.readable_from);
            report.same(Kind::Joined, place, &found, &expected);
            let shown = fold.member_keys().get(&row.user_id).map(|key| key.key_id);
            let is_same = row.user_key_id == shown;
            report.holds(Kind::MemberKey, place, is_same, OrNone(row.user_key_id), OrNone(shown));
            let is_same = row.member.identity_key == member.identity_key;
            report.holds(Kind::MemberIdentity, place, is_same, "another key", "the key that the log names");
        }
    }

    /// The generation whose recovery key is a recipient.
    #[must_use]
    pub fn current_generation(&self) -> Option<GenerationNo> {
        Some(self.fold.as_ref()?.recovery_key()?.generation)
    }

    /// Compares the wraps of the current group key with those that its maker signed.
    pub fn check_group_key(&self, wraps: &[GroupKeyWrap], report: &mut Report) {
        let place = Place::chat(self.chat_id);
        let (found, expected) = (wraps_hash(wraps), self.wraps_hash);
        let is_same = expected == Some(found);
        report.holds(Kind::GroupKey, place, is_same, Short(&found), OrNone(expected.as_ref().map(Short)));
    }

    /// Compares the live sessions of members with the recipients. A session is a recipient until the log says that it
    /// went, also when its time has run out: that is only due then.
    pub fn check_recipients(&self, rows: &[RecipientRow], report: &mut Report) {
        let Some(fold) = &self.fold else { return };
        report.counts.recipients += rows.len() as u64;
        let stored: BTreeMap<SessionId, &RecipientRow> = rows.iter().map(|row| (row.session_id, row)).collect();
        for session_id in fold.recipients().keys() {
            let place = Place::chat(self.chat_id).session(*session_id);
            report.holds(Kind::Recipients, place, stored.contains_key(session_id), "no live session", "a recipient");
        }
        for row in rows {
            let place = Place::chat(self.chat_id).session(row.session_id);
            match fold.recipients().get(&row.session_id) {
                None => report.violation(Kind::Recipients, place, "a live session", "no recipient"),
                Some(recipient) => {
                    report.holds(
                        Kind::Recipients,
                        place,
                        is_same(row, recipient),
                        "other keys or times",
                        "its certificate's",
                    );
                }
            }
        }
    }

    /// Takes the revisions that are there more than once.
    pub fn check_repeated(&self, rows: &[RepeatedRevision], report: &mut Report) {
        // All messages of the chat were compared with each other at once.
        report.holds(Kind::DuplicateRevision, Place::chat(self.chat_id), true, "", "");
        for row in rows {
            let place = Place::chat(self.chat_id).at(row.seq);
            let found = format_args!("message {} revision {} {} times", row.message_id, row.revision, row.count);
            report.violation(Kind::DuplicateRevision, place, found, "once");
        }
    }

    /// Takes cursors and requests that have no business in the chat, of so many that were looked at.
    pub fn check_misplaced(&self, looked_at: u64, rows: &[MisplacedRow], report: &mut Report) {
        for _ in 0..looked_at.saturating_sub(rows.len() as u64) {
            report.holds(Kind::Cursor, Place::chat(self.chat_id), true, "", "");
        }
        for row in rows {
            let place = Place::chat(self.chat_id).session(row.session_id);
            match row.ahead {
                Some(seq) => report.holds(Kind::Cursor, place, false, seq, format_args!("{} or less", self.head.seq)),
                None => report.holds(Kind::Cursor, place, false, format_args!("a {} of no member", row.what), "none"),
            };
        }
    }
}

fn is_same(row: &RecipientRow, recipient: &Recipient) -> bool {
    row.user_id == recipient.user_id
        && row.public_key == recipient.public_key
        && row.signing_public_key == recipient.signing_public_key
        && row.expired_at == recipient.expired_at
}

/// A newest generation, and whether it is current.
struct Newest(Option<(RecoveryKey, bool)>);

impl fmt::Display for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((key, true)) => write!(f, "{}, current", key.generation),
            Some((key, false)) => write!(f, "{}, not current", key.generation),
            None => f.write_str("none"),
        }
    }
}
