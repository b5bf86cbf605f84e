//! What must hold in every state: P4, P5, what newcomers may read, that the log says who receives, and that everybody
//! who may send can.
//!
//! P8, that what group keys protect is readable to their members, follows with the group keys.

use std::fmt;

use super::people::{Chat, Session, session_name, user_id, user_name, user_of};
use super::rules::Rule;
use super::sending::{Belief, InFlight, frame, judge_waiting};
use super::set::Set;
use super::store::Store;
use super::transactions::{Outcome, Request, Transaction};
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Those who follow the log come to the same members, recipients and epoch as the tables.
    Log,
    /// P4: when a message commits, the copies of its key are its chat's recipients.
    Decryptable,
    /// P5: when a message commits, nobody holds its key who is no recipient, nor one whose time has run out.
    ZeroWindow,
    /// Nobody holds a key of messages from before their joining.
    Joining,
    /// Whatever is under way ends, and then each live session of a member can send.
    Sending,
}

/// A promise that does not hold any more, and how.
#[derive(Debug, Clone)]
pub struct Broken {
    pub promise: Promise,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.what)
    }
}

fn broken(promise: Promise, what: impl Into<String>) -> Broken {
    Broken { promise, what: what.into() }
}

/// What must hold when an item has just been committed. `is_over`: a recipient's time had run out when it was judged.
pub fn check_commit(store: &Store, chat: Chat, item: &InFlight, is_over: bool) -> Option<Broken> {
    item.item.entry.as_ref()?;
    let row = &store.chats[chat];
    let recipients = row.folded.recipients();
    let key = &row.keys[&item.key];
    let held_by = key.wrapped_for.with(key.copies);
    if is_over {
        return Some(broken(Promise::ZeroWindow, "a message is accepted although a recipient's time has run out"));
    }
    let outside = held_by.without(recipients);
    if !outside.is_empty() {
        return Some(broken(
            Promise::ZeroWindow,
            format!("a message is accepted under a key that {outside:?} may hold, who receives no more"),
        ));
    }
    if key.copies != recipients {
        let lacking = recipients.without(key.copies);
        return Some(broken(Promise::Decryptable, format!("a message is accepted whose key {lacking:?} cannot open")));
    }
    let joined = |session: &Session| row.membership.members[&user_id(user_of(*session))].joined_seq.get();
    let first = key.first_seq.unwrap_or_default();
    let early = Set::of(key.copies.iter().filter(|session| joined(session) > first));
    let what = || format!("{early:?} hold the key of entry {first}, from before their joining");
    (!early.is_empty()).then(|| broken(Promise::Joining, what()))
}

/// Compares the tables with the fold of each log.
pub fn check_logs(store: &Store) -> Option<Broken> {
    (0..store.chats.len()).find_map(|chat| {
        let row = &store.chats[chat];
        let (fold, tables) = (&row.folded.fold, store.recipients(chat));
        let log = row.folded.recipients();
        let what = if log != tables {
            format!("to who follows the log {log:?} receive, and by the tables {tables:?}")
        } else if fold.epoch() != row.head.epoch {
            "the epoch is another one to who follows the log".to_owned()
        } else if fold.roster_version() != row.head.roster_version || fold.roster_hash() != row.head.roster_hash {
            "the roster is another one to who follows the log".to_owned()
        } else if fold.membership() != &row.membership {
            "the members are others to who follows the log".to_owned()
        } else {
            return None;
        };
        Some(broken(Promise::Log, what))
    })
}

/// Sees to it that something can go on; and where nothing is under way, that each session that may send can.
pub fn check_sending(world: &World, dropped: Option<Rule>) -> Option<Broken> {
    if world.is_at_rest() {
        return (0..world.store.chats.len()).find_map(|chat| check_senders(&world.store, chat, dropped));
    }
    let goes_on = world.transactions.iter().any(|transaction| world.can_finish(transaction, dropped))
        || (0..world.store.chats.len()).any(|chat| world.can_write(chat, dropped));
    (!goes_on).then(|| broken(Promise::Sending, "all that is under way waits for each other"))
}

fn check_senders(store: &Store, chat: Chat, dropped: Option<Rule>) -> Option<Broken> {
    let mut store = store.clone();
    for user in store.recipients(chat).iter().map(user_of).collect::<std::collections::BTreeSet<_>>() {
        let expiry = Transaction::begin(&store, Request::Expire { user });
        if let Outcome::Committed(Err(what)) = expiry.finish(&mut store, dropped) {
            return Some(broken(Promise::Log, what));
        }
    }
    store.recipients(chat).iter().find_map(|session| {
        let sending = store.honest(chat, session);
        let mut belief = Belief::of(&store, chat);
        let (send, wrapped_for) = frame(&store, &[], sending);
        let sends = |why: &str| {
            let (user, name) = (user_name(user_of(session)), session_name(session));
            broken(Promise::Sending, format!("{user} cannot send from {name}: {why}"))
        };
        let Some(item) = belief.submit(&store, sending, send, dropped).filter(|item| item.entry.is_some()) else {
            return Some(sends("the chat's actor refuses what is up to date"));
        };
        let waiting = [InFlight { key: sending.key(), item: item.into(), wrapped_for }];
        let is_committed = judge_waiting(&store, chat, &waiting, dropped).len() == 1;
        (!is_committed).then(|| sends("the commit refuses what is up to date"))
    })
}
