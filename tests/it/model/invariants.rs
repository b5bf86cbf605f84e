//! What must hold in every state: P4, P5, P8, what newcomers may read, that the log says who receives, and that everybody
//! who may send can.

use std::borrow::Cow;
use std::fmt;

use super::people::{Chat, User, session_name, user_id, user_name, user_number, user_of};
use super::rules::Rule;
use super::sending::{Belief, InFlight, frame, judge_waiting};
use super::store::{ChatRow, KeyRow, Store};
use super::transactions::{Outcome, Request, Transaction};
use super::user_keys::UserKeyName;
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Those who follow the log come to the same members, recipients, epoch, user keys and generation as the tables.
    Log,
    /// P4: when a message commits, the copies of its key are its chat's recipients.
    Decryptable,
    /// P5: when a message commits, nobody holds its key who is no recipient, nor one whose time has run out, nor opens a
    /// generation to which it is sealed.
    ZeroWindow,
    /// P8: when a message commits, whoever is a member and has a user key can read it by that alone.
    Password,
    /// Nobody holds a key of messages from before their joining, nor opens what it is sealed to.
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

fn key_name((user, number): UserKeyName) -> String {
    format!("user key {number} of {}", user_name(user))
}

/// What must hold when an item has just been committed. `is_over`: a recipient's time had run out when it was judged.
pub fn check_commit(store: &Store, chat: Chat, item: &InFlight, is_over: bool) -> Option<Broken> {
    let row = &store.chats[chat];
    let key = &row.keys[&item.key];
    if item.item.entry.is_none() {
        return check_joining(row, key);
    }
    if is_over {
        return Some(broken(Promise::ZeroWindow, "a message is accepted although a recipient's time has run out"));
    }
    check_copies(row, key)
        .or_else(|| check_joining(row, key))
        .or_else(|| check_archive(row, key))
        .or_else(|| check_generations(store, row, key))
}

/// P4 and P5: the recipients have a copy, and nobody else ever had one.
fn check_copies(row: &ChatRow, key: &KeyRow) -> Option<Broken> {
    let recipients = row.folded.recipients();
    let outside = key.wrapped_for.with(key.copies).without(recipients);
    if !outside.is_empty() {
        return Some(broken(
            Promise::ZeroWindow,
            format!("a message is accepted under a key that {outside:?} may hold, who receives no more"),
        ));
    }
    let lacking = recipients.without(key.copies);
    let what = || format!("a message is accepted whose key {lacking:?} cannot open");
    (!lacking.is_empty()).then(|| broken(Promise::Decryptable, what()))
}

/// Nobody has a copy of a key, or can open what it is sealed to, that was used before they joined.
fn check_joining(row: &ChatRow, key: &KeyRow) -> Option<Broken> {
    let first = key.first_seq?;
    let by_copy = key.copies.iter().map(user_of);
    let by_user_key = key.sealed_to.iter().flat_map(|number| &row.generations[number].wraps).map(|(user, _)| *user);
    let early = by_copy.chain(by_user_key).find(|user| {
        let member = row.membership.members.get(&user_id(*user));
        member.is_some_and(|member| member.joined_seq.get() > first)
    });
    let what = |user| format!("{} has the key of entry {first}, from before that joining", user_name(user));
    early.map(|user| broken(Promise::Joining, what(user)))
}

/// P8: the key is archived to a generation that opens by the user keys that the log shows of the members.
fn check_archive(row: &ChatRow, key: &KeyRow) -> Option<Broken> {
    let (fold, members) = (&row.folded.fold, row.folded.user_keys());
    if let Some(due) = fold.generation_due() {
        return Some(broken(Promise::Password, format!("a message is accepted before generation {due} is made")));
    }
    let Some(current) = fold.recovery_key() else {
        return (!members.is_empty()).then(|| broken(Promise::Password, "user keys, and no generation is due or made"));
    };
    let number = current.generation.get();
    let lacking = members.difference(&row.generations[&number].wraps).next();
    let what = match lacking {
        Some(name) => format!("a message is accepted under generation {number}, which {} cannot open", key_name(*name)),
        None if key.archived.contains(&number) => return None,
        None => format!("a message is accepted whose key is not archived to generation {number}"),
    };
    Some(broken(Promise::Password, what))
}

/// P5: nobody but members opens a generation to which the key was ever sealed.
fn check_generations(store: &Store, row: &ChatRow, key: &KeyRow) -> Option<Broken> {
    let (recipients, members) = (row.folded.recipients(), row.folded.user_keys());
    let is_outside = |name: &UserKeyName| !members.contains(name) || name.1 <= store.user_keys[name.0].known_outside;
    let outside = key.sealed_to.iter().find_map(|number| {
        let made = &row.generations[number];
        let holder = made.wraps.iter().copied().find(is_outside).map(key_name);
        holder.or_else(|| (!recipients.contains(made.maker)).then(|| session_name(made.maker)))
    });
    let what = |holder| format!("a message is accepted under a key that is open to {holder}, who should read no more");
    outside.map(|holder| broken(Promise::ZeroWindow, what(holder)))
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
        } else if !row.folded.user_keys().iter().copied().eq(row.shown.iter().map(|(user, number)| (*user, *number))) {
            "the user keys are others to who follows the log".to_owned()
        } else if fold.recovery_key() != row.head.recovery_key() || fold.generation_due() != store.generation_due(chat)
        {
            "another generation receives or is due to who follows the log".to_owned()
        } else if let Some(user) = members(row).find(|user| row.shown.get(user) != active(store, *user).as_ref()) {
            format!("the log shows another user key of {} than the strongbox has", user_name(user))
        } else {
            return None;
        };
        Some(broken(Promise::Log, what))
    })
}

fn members(row: &ChatRow) -> impl Iterator<Item = User> {
    row.membership.members.keys().map(|id| user_number(*id))
}

fn active(store: &Store, user: User) -> Option<u64> {
    store.user_keys[user].active()
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
        let sends = |why: &str| {
            let (user, name) = (user_name(user_of(session)), session_name(session));
            broken(Promise::Sending, format!("{user} cannot send from {name}: {why}"))
        };
        let mut store = Cow::Borrowed(&store);
        if store.generation_due(chat).is_some() {
            match store.with_generation(chat, session, dropped) {
                Ok(made) => store = Cow::Owned(made),
                Err(why) => return Some(sends(&why)),
            }
        }
        let sending = store.honest(chat, session);
        let mut belief = Belief::of(&store, chat, dropped);
        let (send, held) = frame(&store, &[], sending);
        let Some(item) = belief.submit(&store, sending, send, dropped).filter(|item| item.entry.is_some()) else {
            return Some(sends("the chat's actor refuses what is up to date"));
        };
        let waiting = [InFlight { key: sending.key(), item: item.into(), held }];
        let is_committed = judge_waiting(&store, chat, &waiting, dropped).len() == 1;
        (!is_committed).then(|| sends("the commit refuses what is up to date"))
    })
}
