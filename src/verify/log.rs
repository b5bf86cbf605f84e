//! Follows a chat's log as it is stored, entry by entry: places, times, hashes, the fold, sender keys.
//!
//! Memory is bounded by members, by the sessions that ever were in the chat, and by the keys of one epoch, not by the
//! length of the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::finding::{Kind, OrNone, Place, Refused, Short};
use super::report::Report;
use crate::protocol::binary::{Hash, SigningKey};
use crate::protocol::envelope::Seen;
use crate::protocol::fold::ChatFold;
use crate::protocol::ids::{ChatId, Counter, Epoch, KeyId, Seq, SessionId, Timestamp, UserId};
use crate::protocol::log::{EntryBody, SessionOut, log_hash, log_start};
use crate::store::inspect::{EventFacts, KeyRow, LogRow, RowFacts, removed_user, user_event};

/// A chat's log up to some place.
#[derive(Debug)]
pub struct LogCheck {
    pub(super) chat_id: ChatId,
    /// None before the first entry, and where that is no creation.
    pub(super) fold: Option<ChatFold>,
    pub(super) head: Head,
    /// Every session that ever was a recipient.
    pub(super) sessions: BTreeMap<SessionId, KnownSession>,
    /// The keys of the present epoch that were used.
    pub(super) keys: HashMap<KeyId, KeyUse>,
    /// Rows of keys that the entries to come name.
    pub(super) rows: HashMap<KeyId, KeyRow>,
    roster: Option<(Seq, Hash)>,
    seen: BTreeMap<SessionId, Seq>,
    seen_in_changes: BTreeMap<SessionId, Seq>,
    /// Of the wraps of the newest group key.
    pub(super) wraps_hash: Option<Hash>,
}

/// The newest entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) seq: Seq,
    pub(super) created_at: Timestamp,
    /// None behind a gap: the next entry's hash cannot be judged.
    pub(super) log_hash: Option<Hash>,
}

/// A session that is or was a recipient.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownSession {
    pub(super) signing_key: SigningKey,
    /// Where it came in last.
    pub(super) in_seq: Seq,
}

/// What the log does with a key, beside what its row says.
#[derive(Debug, Clone)]
pub(super) struct KeyUse {
    pub(super) row: KeyRow,
    pub(super) counter: Counter,
    pub(super) first_seq: Option<Seq>,
    pub(super) last_seq: Seq,
    pub(super) with_data: u64,
}

impl KeyUse {
    pub(super) const fn new(row: KeyRow) -> Self {
        let last_seq = Seq::saturating(0);
        Self { row, counter: Counter::saturating(0), first_seq: None, last_seq, with_data: 0 }
    }

    /// Compares what a key's row says with what the log did.
    pub(super) fn settle(&self, chat_id: ChatId, report: &mut Report) {
        let place = Place::chat(chat_id).key(self.row.key_id);
        report.same(Kind::LastCounter, place, &self.row.last_counter, &self.counter);
        let (stored, first) = (self.row.first_seq, self.first_seq);
        report.holds(Kind::FirstSeq, place, stored == first, OrNone(stored), OrNone(first));
        report.same(Kind::DataCount, place, &self.row.messages_with_data, &self.with_data);
    }
}

impl LogCheck {
    /// A chat before its first entry.
    #[must_use]
    pub fn new(chat_id: ChatId) -> Self {
        let head = Head { seq: Seq::default(), created_at: Timestamp::default(), log_hash: Some(log_start(chat_id)) };
        Self {
            chat_id,
            fold: None,
            head,
            sessions: BTreeMap::new(),
            keys: HashMap::new(),
            rows: HashMap::new(),
            roster: None,
            seen: BTreeMap::new(),
            seen_in_changes: BTreeMap::new(),
            wraps_hash: None,
        }
    }

    /// Keys that entries to come name and whose rows are not known yet.
    #[must_use]
    pub fn unknown_keys(&self, rows: &[LogRow]) -> Vec<KeyId> {
        let named = rows.iter().filter_map(|row| match &row.body {
            Some(EntryBody::Message(envelope)) => envelope.key_id,
            _ => None,
        });
        let unknown: BTreeSet<KeyId> = named.filter(|key_id| !self.keys.contains_key(key_id)).collect();
        unknown.into_iter().collect()
    }

    /// Takes the rows of keys that the entries to come name; those of earlier pages are forgotten.
    pub fn learn(&mut self, rows: Vec<KeyRow>) {
        self.rows = rows.into_iter().map(|row| (row.key_id, row)).collect();
    }

    /// Takes the next entry.
    pub fn take(&mut self, row: &LogRow, report: &mut Report) {
        let place = Place::chat(self.chat_id).at(row.seq);
        report.counts.entries += 1;
        let expected = self.head.seq.next();
        if row.seq < expected {
            report.violation(Kind::SeqDouble, place, row.seq, expected);
            return;
        }
        if !report.same(Kind::SeqGap, place, &row.seq, &expected) {
            self.head.log_hash = None;
        }
        let (at, before) = (row.created_at, self.head.created_at);
        report.holds(Kind::TimeBack, place, at >= before, at, format_args!("{before} or later"));
        self.check_hash(row, place, report);
        self.head = Head { seq: row.seq, created_at: row.created_at, log_hash: Some(row.log_hash) };
        match (&row.body, &row.facts) {
            (None, _) => report.violation(Kind::Unreadable, place, "a body that is none", "an entry"),
            (Some(EntryBody::Message(envelope)), RowFacts::Message(facts)) => {
                self.take_message(row.seq, envelope, facts, row.seen_there, report);
            }
            (Some(body), RowFacts::Event(facts)) => self.take_event(row, body, facts, report),
            (Some(_), RowFacts::Message(_)) => {}
        }
    }

    fn check_hash(&self, row: &LogRow, place: Place, report: &mut Report) {
        if let (Some(previous), Some(body)) = (&self.head.log_hash, &row.body) {
            let digest = body.digest(self.chat_id);
            let expected = log_hash(self.chat_id, previous, row.seq, row.created_at, &digest);
            let is_same = expected == row.log_hash;
            report.holds(Kind::LogHash, place, is_same, Short(&row.log_hash), Short(&expected));
        }
    }

    fn take_event(&mut self, row: &LogRow, body: &EntryBody, facts: &EventFacts, report: &mut Report) {
        let place = Place::chat(self.chat_id).at(row.seq);
        report.counts.events += 1;
        check_columns(body, facts, place, report);
        if let Some((_, event)) = user_event(body) {
            let (found, expected) = (facts.chained, event.chain_hash());
            let is_there = found == Some(expected);
            let found = OrNone(found.as_ref().map(Short));
            report.holds(Kind::NotInChain, place, is_there, found, Short(&expected));
        }
        // Nobody signs it, so the note that the operator did it is all there is to tell it from a forgery.
        if removed_user(body).is_some() {
            let found = if facts.is_removed { "noted" } else { "not noted" };
            report.holds(Kind::NotInChain, place, facts.is_removed, found, "a removal that is noted");
        }
        let Some(fold) = &mut self.fold else {
            self.begin(body, place, report);
            return;
        };
        let epoch = fold.epoch();
        let is_renewal = matches!(body, EntryBody::SessionIn(signed)
            if fold.recipients().contains_key(&signed.certificate.session_id));
        let applied = fold.apply(row.seq, row.created_at, body);
        let is_moved = fold.epoch() != epoch;
        if let Err(error) = applied {
            report.holds(Kind::Entry, place, false, error, "an entry that verifies");
            return;
        }
        report.holds(Kind::Entry, place, true, "", "");
        // One that is renewed ahead of its time has been in, and has its copies, all along.
        if let EntryBody::SessionIn(signed) = body
            && !is_renewal
        {
            let known = KnownSession { signing_key: signed.certificate.signing_public_key, in_seq: row.seq };
            self.sessions.insert(signed.certificate.session_id, known);
        }
        if let EntryBody::Generation(signed) = body {
            self.wraps_hash = Some(signed.generation.wraps_hash);
        }
        if let EntryBody::Membership(signed) = body {
            let (session_id, seen) = (signed.change.actor.session_id, signed.change.seen);
            self.check_seen(place, row.seq, &seen, row.seen_there, report);
            let newest = self.seen_in_changes.entry(session_id).or_default();
            note_seen(newest, seen.seq, place, report);
        }
        if is_moved {
            for used in std::mem::take(&mut self.keys).into_values() {
                used.settle(self.chat_id, report);
            }
        }
    }

    fn begin(&mut self, body: &EntryBody, place: Place, report: &mut Report) {
        // Nothing is folded behind a first entry that is none, and it is said once.
        if self.head.seq.get() != 1 {
            return;
        }
        match ChatFold::begin(self.chat_id, body) {
            Ok(fold) => {
                report.holds(Kind::NotFounded, place, true, "", "");
                self.fold = Some(fold);
            }
            Err(error) => report.violation(Kind::NotFounded, place, error, "a creation"),
        }
    }

    /// Compares what a maker says they have seen with the log. The server knows that it is not ahead of the log, and
    /// leaves the rest to receivers.
    pub(super) fn check_seen(&self, place: Place, seq: Seq, seen: &Seen, there: Option<Hash>, report: &mut Report) {
        report.holds(Kind::SeenAhead, place, seen.seq < seq, seen.seq, format_args!("below {seq}"));
        let is_start = seen.seq == Seq::default();
        let there = if is_start { Some(log_start(self.chat_id)) } else { there };
        // What is not there is a gap, which was named.
        if there.is_some_and(|there| there != seen.log_hash) {
            report.refused(Refused::Fork, place);
        }
    }

    pub(super) fn note_seen(&mut self, session_id: SessionId, seen: Seq, place: Place, report: &mut Report) {
        note_seen(self.seen.entry(session_id).or_default(), seen, place, report);
    }

    /// The hash of the recipients where the log stands.
    pub(super) fn roster_hash(&mut self) -> Option<Hash> {
        let fold = self.fold.as_ref()?;
        let version = fold.roster_version();
        if let Some((known, hash)) = self.roster
            && known == version
        {
            return Some(hash);
        }
        let hash = fold.roster_hash();
        self.roster = Some((version, hash));
        Some(hash)
    }

    /// The epoch where the log stands.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.fold.as_ref().map(ChatFold::epoch)
    }

    /// Whether somebody is a member where the log stands.
    pub(super) fn is_member(&self, user_id: UserId) -> bool {
        self.fold.as_ref().is_some_and(|fold| fold.membership().members.contains_key(&user_id))
    }
}

/// The highest stays: one that goes back must not make room for the next.
fn note_seen(newest: &mut Seq, seen: Seq, place: Place, report: &mut Report) {
    if seen < *newest {
        report.refused(Refused::SeenBack, place);
    }
    *newest = seen.max(*newest);
}

/// Compares the columns beside a body with it.
fn check_columns(body: &EntryBody, facts: &EventFacts, place: Place, report: &mut Report) {
    let (kind, change) = match body {
        EntryBody::Membership(signed) => ("membership", Some(&signed.change)),
        EntryBody::SessionIn(_) => ("session_in", None),
        EntryBody::SessionOut(SessionOut::Revoked(_) | SessionOut::Expired { .. }) => ("session_out", None),
        EntryBody::AccountDeleted(_) => ("account_deleted", None),
        EntryBody::AccountRemoved { .. } => ("account_removed", None),
        EntryBody::UserKey(_) => ("user_key", None),
        EntryBody::Generation(_) => ("generation", None),
        EntryBody::GenerationRefused(_) => ("generation_refused", None),
        EntryBody::Message(_) => ("message", None),
    };
    let number = change.map(|change| change.n.get());
    let stored = facts.change_no.map(i64::unsigned_abs);
    let word = change.map(|change| change.change.as_str());
    // Entries from before the column was made have none.
    let is_word = facts.change.is_none() || facts.change.as_deref() == word;
    report.holds(
        Kind::EventColumns,
        place,
        facts.kind == kind && stored == number && is_word,
        format_args!("{} {} {}", facts.kind, OrNone(stored), OrNone(facts.change.as_ref())),
        format_args!("{kind} {} {}", OrNone(number), OrNone(word)),
    );
}
