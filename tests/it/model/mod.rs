//! A model of membership, sessions, epochs and coverage around the broker's own rules, which a checker explores.
//!
//! Three users with two sessions each; every interleaving of what they ask, up to a depth. What is real and what is
//! modelled is told in docs/reliability.md, section "Model".

mod invariants;
mod log;
mod people;
mod rules;
mod sending;
mod set;
mod store;
mod transactions;
mod words;
mod world;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rules::{Rule, Scope};
use stateright::{Checker, HasDiscoveries, Model};
use words::Told;
use world::{Protocol, Step, World};

use crate::support::trials;

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

struct Explored {
    /// Different worlds, but for those at the end of the search.
    states: usize,
    /// Steps that were taken, each to a world in which everything was looked at.
    judged: usize,
    seconds: f64,
    /// The way to a world in which something does not hold.
    story: Option<String>,
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} states, {} steps judged, {:.1} s", self.states, self.judged, self.seconds)
    }
}

/// Explores everything that is at most so many steps away.
fn explore(chats: usize, dropped: Option<Rule>, steps: usize) -> Explored {
    let (started, judged) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let scope = dropped.map_or(Scope::ALL, Rule::scope);
    let model = Protocol { chats, dropped, scope, steps, judged: Arc::clone(&judged) };
    // By one thread, or the search might come to a state by a longer way first, and stop too early behind it.
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries().into_values().min_by_key(|path| path.clone().into_vec().len());
    let story = found.map(|path| {
        let path: Vec<(World, Option<Step>)> = path.into_vec();
        let told = path.iter().filter_map(|(world, step)| step.map(|step| Told(world, step).to_string()));
        let broken = path.last().and_then(|(world, _)| world.broken.as_ref()).map(ToString::to_string);
        told.chain(broken).collect::<Vec<_>>().join("\n  ")
    });
    let seconds = started.elapsed().as_secs_f64();
    Explored { states: checker.unique_state_count(), judged: judged.load(Ordering::Relaxed), seconds, story }
}

fn explore_whole(chats: usize, few: usize, all: usize) {
    let steps = trials(few, all);
    let explored = explore(chats, None, steps);
    say(&format!("{chats} chats, {steps} steps: {explored}"));
    if let Some(story) = explored.story {
        panic!("something does not hold:\n  {story}");
    }
    assert!(explored.judged > 1_000, "a model in which little happens");
}

#[test]
fn p4_p5_one_chat() {
    explore_whole(1, 5, 6);
}

#[test]
fn p4_p5_two_chats() {
    explore_whole(2, 4, 5);
}

/// Any depth, by hand: `SEALCAST_STEPS=N`, and `SEALCAST_CHATS=N`.
#[test]
fn as_deep_as_is_asked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    if let Some(steps) = number("SEALCAST_STEPS") {
        explore_whole(number("SEALCAST_CHATS").unwrap_or(1), steps, steps);
    }
}

/// A model that finds nothing proves nothing: each rule that is dropped must be missed. What is told is the shortest way to
/// where it is.
fn is_missed(rule: Rule) {
    for steps in 1..=7 {
        let explored = explore(1, Some(rule), steps);
        if let Some(story) = &explored.story {
            return say(&format!("{rule:?}: {steps} steps, {explored}:\n  {story}"));
        }
    }
    panic!("nobody misses {rule:?}");
}

macro_rules! dropped {
    ($($name:ident => $rule:ident,)*) => {
        $(
            #[test]
            fn $name() {
                is_missed(Rule::$rule);
            }
        )*
    };
}

dropped! {
    dropped_commit_looks_again => CommitLooksAgain,
    dropped_commit_counts_copies => CommitCountsCopies,
    dropped_expiry_is_judged => ExpiryIsJudged,
    dropped_key_carries_its_epoch => KeyCarriesItsEpoch,
    dropped_removal_raises_epoch => RemovalRaisesEpoch,
    dropped_revocation_raises_epoch => RevocationRaisesEpoch,
    dropped_expiry_raises_epoch => ExpiryRaisesEpoch,
    dropped_addition_raises_epoch => AdditionRaisesEpoch,
    dropped_revocation_locks_user => RevocationLocksUser,
    dropped_addition_reads_after_lock => AdditionReadsAfterLock,
    dropped_users_are_locked_first => UsersAreLockedFirst,
    dropped_coming_in_is_logged => ComingInIsLogged,
    dropped_revoked_stays_out => RevokedStaysOut,
    dropped_addition_is_anchored => AdditionIsAnchored,
}
