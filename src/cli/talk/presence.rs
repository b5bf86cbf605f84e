//! Who is here and who types, by the signals of this moment; and which signals this user's own doing asks for.
//!
//! Pure. Nothing says that somebody has gone who lost their connection, so everything heard runs out.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::Signal;
use crate::protocol::ids::{SessionId, Timestamp, UserId};

const SECOND: u64 = 1_000_000;

/// How long somebody is here after they said so.
const HERE: u64 = 75 * SECOND;

/// How often this user says to be here: often enough that one lost signal shows nobody as gone.
const HERE_AGAIN: u64 = 30 * SECOND;

/// How long somebody types after they said so.
const TYPING: u64 = 8 * SECOND;

/// How often this user says to be typing, while typing.
const TYPING_AGAIN: u64 = 3 * SECOND;

/// What was heard of one session, as the times at which it runs out.
#[derive(Debug, Clone, Copy)]
struct Heard {
    here_until: Timestamp,
    typing_until: Timestamp,
}

/// Who is here and who types.
#[derive(Debug, Default)]
pub(super) struct Presence {
    others: BTreeMap<(UserId, SessionId), Heard>,
    said_here: Option<Timestamp>,
    said_typing: Option<Timestamp>,
}

impl Presence {
    /// Takes a signal of somebody else.
    pub(super) fn heard(&mut self, now: Timestamp, user_id: UserId, session_id: SessionId, signal: Signal) {
        self.others.retain(|_, heard| heard.here_until > now);
        let nothing = Heard { here_until: now, typing_until: now };
        let heard = self.others.entry((user_id, session_id)).or_insert(nothing);
        heard.here_until = now.plus_micros(HERE);
        match signal {
            Signal::Typing => heard.typing_until = now.plus_micros(TYPING),
            Signal::StoppedTyping => heard.typing_until = now,
            Signal::Here => {}
            Signal::Away => *heard = nothing,
        }
    }

    /// Takes note that a session sent a message: it types no longer.
    pub(super) fn spoke(&mut self, now: Timestamp, user_id: UserId, session_id: SessionId) {
        if let Some(heard) = self.others.get_mut(&(user_id, session_id)) {
            heard.typing_until = now;
        }
    }

    /// Takes note that a user is a member no longer.
    pub(super) fn left(&mut self, user_id: UserId) {
        self.others.retain(|(other, _), _| *other != user_id);
    }

    /// Who is here.
    pub(super) fn here(&self, now: Timestamp) -> BTreeSet<UserId> {
        self.others.iter().filter(|(_, heard)| heard.here_until > now).map(|((user_id, _), _)| *user_id).collect()
    }

    /// Who types.
    pub(super) fn typing(&self, now: Timestamp) -> BTreeSet<UserId> {
        self.others.iter().filter(|(_, heard)| heard.typing_until > now).map(|((user_id, _), _)| *user_id).collect()
    }

    /// What is to be said of being here, if it is time to.
    pub(super) fn say_here(&mut self, now: Timestamp) -> Option<Signal> {
        let is_due = self.said_here.is_none_or(|said| now >= said.plus_micros(HERE_AGAIN));
        is_due.then(|| {
            self.said_here = Some(now);
            Signal::Here
        })
    }

    /// Says to be here at the next chance: nobody may have heard it so far.
    pub(super) const fn forget_said(&mut self) {
        self.said_here = None;
    }

    /// What is to be said of typing, now that there is text in the line or none.
    pub(super) fn say_typing(&mut self, now: Timestamp, is_typing: bool) -> Option<Signal> {
        if !is_typing {
            return self.said_typing.take().map(|_| Signal::StoppedTyping);
        }
        let is_due = self.said_typing.is_none_or(|said| now >= said.plus_micros(TYPING_AGAIN));
        is_due.then(|| {
            self.said_typing = Some(now);
            Signal::Typing
        })
    }

    /// A message goes out, which says by itself that nobody types any more.
    pub(super) const fn sends(&mut self) {
        self.said_typing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::saturating(seconds * SECOND)
    }

    #[test]
    fn what_was_heard_runs_out_or_is_taken_back() {
        let mut presence = Presence::default();
        let (bob, session) = (UserId::generate(), SessionId::generate());
        let all = BTreeSet::from([bob]);
        presence.heard(at(100), bob, session, Signal::Typing);
        assert_eq!((presence.here(at(101)), presence.typing(at(101))), (all.clone(), all.clone()));
        assert_eq!((presence.here(at(110)), presence.typing(at(110))), (all.clone(), BTreeSet::new()));
        assert!(presence.here(at(180)).is_empty());
        presence.heard(at(200), bob, session, Signal::Typing);
        presence.spoke(at(201), bob, session);
        assert!(presence.typing(at(202)).is_empty() && presence.here(at(202)) == all);
        presence.heard(at(203), bob, SessionId::generate(), Signal::Here);
        presence.heard(at(204), bob, session, Signal::Away);
        assert_eq!(presence.here(at(205)), all, "another device is there");
        presence.left(bob);
        assert!(presence.here(at(205)).is_empty());
    }

    #[test]
    fn not_every_key_is_a_signal() {
        let mut presence = Presence::default();
        assert_eq!(presence.say_typing(at(1), true), Some(Signal::Typing));
        assert_eq!(presence.say_typing(at(2), true), None);
        assert_eq!(presence.say_typing(at(5), true), Some(Signal::Typing));
        assert_eq!(presence.say_typing(at(6), false), Some(Signal::StoppedTyping));
        assert_eq!(presence.say_typing(at(7), false), None);
        presence.say_typing(at(8), true);
        presence.sends();
        assert_eq!(presence.say_typing(at(9), false), None);
        assert_eq!(presence.say_here(at(1)), Some(Signal::Here));
        assert_eq!(presence.say_here(at(20)), None);
        presence.forget_said();
        assert_eq!(presence.say_here(at(21)), Some(Signal::Here));
        assert_eq!(presence.say_here(at(51)), Some(Signal::Here));
    }
}
