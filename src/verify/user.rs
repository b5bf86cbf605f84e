//! Follows a user's chain as it is stored, and compares sessions with what it says.

use super::finding::{Kind, OrNone, Place, Short};
use super::report::Report;
use crate::protocol::binary::Hash;
use crate::protocol::certificate::{UserEvent, chain_start};
use crate::protocol::frame::SessionState;
use crate::protocol::ids::{Place as ChainPlace, Seq, SessionId, Timestamp, UserId};
use crate::protocol::user_chain::UserChain;
use crate::store::inspect::{ChainRow, SessionRow, UserRow};

/// A user's chain up to some place.
#[derive(Debug)]
pub struct UserCheck {
    user_id: UserId,
    /// None of an account that has ended: its identity key went with it.
    chain: Option<UserChain>,
    place: ChainPlace,
    hash: Hash,
    is_ended: bool,
    is_broken: bool,
}

impl UserCheck {
    /// A chain before its first entry. Without a row the account has ended.
    #[must_use]
    pub fn new(user_id: UserId, row: Option<&UserRow>) -> Self {
        let chain = row.map(|row| UserChain::new(user_id, row.identity_key));
        let hash = chain_start(user_id);
        Self { user_id, chain, place: ChainPlace::default(), hash, is_ended: false, is_broken: false }
    }

    /// Takes the next entry. Behind one that does not follow nothing is judged any more.
    pub fn take(&mut self, row: &ChainRow, report: &mut Report) {
        if self.is_broken {
            return;
        }
        report.counts.chain_entries += 1;
        let place = Place::user(self.user_id).at(Seq::saturating(row.place.get()));
        let Some(event) = &row.event else {
            report.violation(Kind::Unreadable, place, "a body that is none", "an entry");
            self.is_broken = true;
            return;
        };
        let (kind, session_id) = columns_of(event);
        let is_same = row.kind == kind && row.session_id == session_id && row.place == event.place();
        report.holds(
            Kind::ChainColumns,
            place,
            is_same,
            format_args!("{} {} {}", row.place, row.kind, OrNone(row.session_id)),
            format_args!("{} {kind} {}", event.place(), OrNone(session_id)),
        );
        let hash = event.chain_hash();
        report.holds(Kind::ChainHash, place, row.hash == hash, Short(&row.hash), Short(&hash));
        let follows = match &mut self.chain {
            Some(chain) => chain.take(event).map_err(|error| error.to_string()),
            None if self.is_ended => Err("an entry after the end".to_owned()),
            None if event.place() != self.place.next() || event.previous() != self.hash => {
                Err("an entry that follows another".to_owned())
            }
            None => Ok(()),
        };
        self.is_broken = follows.is_err();
        let found = follows.as_ref().err().map_or("", String::as_str);
        report.holds(Kind::ChainEntry, place, follows.is_ok(), found, "the next entry of the chain");
        (self.place, self.hash) = (event.place(), hash);
        self.is_ended |= matches!(event, UserEvent::Deletion(_));
    }

    /// Takes note that the operator ended the account, after the chain's last entry: nobody signed that.
    pub const fn note_removal(&mut self) {
        self.is_ended = true;
    }

    /// Compares the user's row and sessions with the chain, after its last entry.
    pub fn end(&self, row: Option<&UserRow>, sessions: &[SessionRow], now: Timestamp, report: &mut Report) {
        if self.is_broken {
            return;
        }
        let place = Place::user(self.user_id);
        let Some((row, chain)) = row.zip(self.chain.as_ref()) else {
            report.counts.ended_users += 1;
            report.holds(
                Kind::AccountEnd,
                place,
                self.is_ended,
                "no account",
                "a chain that ends with its deletion, or a removal",
            );
            return;
        };
        report.counts.users += 1;
        report.holds(Kind::AccountEnd, place, !self.is_ended, "an account", "none after its deletion");
        report.holds(Kind::AccountEnd, place, !row.is_name_retired, "a name that was retired", "a name of its own");
        report.same(Kind::ChainHead, place, &row.chain_place, &self.place);
        let is_same = row.chain_hash == self.hash;
        report.holds(Kind::ChainHead, place, is_same, Short(&row.chain_hash), Short(&self.hash));
        for session in sessions {
            check_session(chain, session, now, place.session(session.session_id), report);
        }
        for session_id in chain.sessions().keys() {
            let is_there = sessions.iter().any(|session| session.session_id == *session_id);
            let place = place.session(*session_id);
            report.holds(Kind::SessionMissing, place, is_there, "no session", "a session of the chain");
        }
    }
}

const fn columns_of(event: &UserEvent) -> (&'static str, Option<SessionId>) {
    match event {
        UserEvent::Certificate(signed) => ("certificate", Some(signed.certificate.session_id)),
        UserEvent::Revocation(signed) => ("revocation", Some(signed.revocation.session_id)),
        UserEvent::Deletion(_) => ("deletion", None),
    }
}

fn check_session(chain: &UserChain, row: &SessionRow, now: Timestamp, place: Place, report: &mut Report) {
    report.counts.sessions += 1;
    let is_over = row.expired_at <= now;
    report.counts.due_sessions += u64::from(row.state == SessionState::Live && is_over);
    let known = chain.sessions().get(&row.session_id);
    let fits = match (row.state, known) {
        (SessionState::Pending, known) => known.is_none(),
        (_, None) => false,
        (SessionState::Live, Some(known)) => known.revoked_at.is_none(),
        (SessionState::Expired, Some(known)) => known.revoked_at.is_none() && is_over,
        (SessionState::Revoked, Some(known)) => known.revoked_at.is_some(),
    };
    let expected = match known {
        None => "pending",
        Some(known) if known.revoked_at.is_some() => "revoked",
        Some(_) if is_over => "live or expired",
        Some(_) => "live",
    };
    report.holds(Kind::SessionState, place, fits, word(row.state), expected);
    let Some(known) = known else { return };
    let certificate = row.certificate.as_ref().map(|signed| &signed.certificate);
    let is_newest = certificate.is_some_and(|certificate| {
        certificate.session_id == row.session_id
            && certificate.place == known.certified_at
            && row.certificate.as_ref().map(|signed| signed.chain_hash()) == chain.hash_at(known.certified_at)
    });
    report.holds(Kind::SessionColumns, place, is_newest, "another certificate", "the newest of the chain");
    let is_same = row.public_key == known.public_key
        && row.signing_public_key == known.signing_public_key
        && row.expired_at == known.expired_at;
    report.holds(Kind::SessionColumns, place, is_same, "other keys or times", "its certificate's");
}

const fn word(state: SessionState) -> &'static str {
    match state {
        SessionState::Pending => "pending",
        SessionState::Live => "live",
        SessionState::Expired => "expired",
        SessionState::Revoked => "revoked",
    }
}
