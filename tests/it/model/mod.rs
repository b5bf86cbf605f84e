//! A model of membership, sessions, epochs, coverage and group keys around the broker's own rules, which a checker
//! explores.
//!
//! Three users with two sessions each; every interleaving of what they ask, up to a depth. What is real and what is
//! modelled is told in docs/reliability.md, section "Model".

mod generations;
mod invariants;
mod loading;
mod log;
mod people;
mod protocol;
mod rules;
mod sending;
mod set;
mod store;
mod transactions;
mod user_keys;
mod words;
mod world;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use protocol::Protocol;
use rules::{Rule, Scope};
use stateright::{Checker, HasDiscoveries, Model};
use words::Told;
use world::{Step, World};

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
fn explore(chats: usize, scope: Scope, dropped: Option<Rule>, steps: usize) -> Explored {
    let (started, judged) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
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

fn explore_whole(chats: usize, scope: Scope, few: usize, all: usize) {
    let steps = trials(few, all);
    let explored = explore(chats, scope, None, steps);
    say(&format!("{chats} chats, {steps} steps: {explored}"));
    if let Some(story) = explored.story {
        panic!("something does not hold:\n  {story}");
    }
    assert!(explored.judged > 1_000, "a model in which little happens");
}

#[test]
fn p4_p5_one_chat() {
    explore_whole(1, Scope::SESSIONS, 5, 6);
}

#[test]
fn p4_p5_two_chats() {
    explore_whole(2, Scope::SESSIONS, 4, 5);
}

#[test]
fn p5_p8_generations() {
    explore_whole(1, Scope::GENERATIONS, 5, 6);
}

/// Any depth, by hand: `SEALCAST_STEPS=N`, and `SEALCAST_CHATS=N` or `SEALCAST_GENERATIONS=1`.
#[test]
fn as_deep_as_is_asked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    if let Some(steps) = number("SEALCAST_STEPS") {
        let scope = if number("SEALCAST_GENERATIONS").is_some() { Scope::GENERATIONS } else { Scope::SESSIONS };
        explore_whole(number("SEALCAST_CHATS").unwrap_or(1), scope, steps, steps);
    }
}

/// A model that finds nothing proves nothing: each rule that is dropped must be missed. What is told is the shortest way to
/// where it is.
fn is_missed(rule: Rule) {
    for steps in 1..=7 {
        let explored = explore(1, rule.scope(), Some(rule), steps);
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
    dropped_expired_goes_out_first => ExpiredGoesOutFirst,
    dropped_addition_is_anchored => AdditionIsAnchored,
    dropped_removal_outdates => RemovalOutdates,
    dropped_addition_outdates => AdditionOutdates,
    dropped_first_key_outdates => FirstKeyOutdates,
    dropped_another_key_outdates => AnotherKeyOutdates,
    dropped_withdrawal_outdates => WithdrawalOutdates,
    dropped_maker_outdates => MakerOutdates,
    dropped_user_key_raises_epoch => UserKeyRaisesEpoch,
    dropped_generation_is_judged => GenerationIsJudged,
    dropped_wraps_are_counted => WrapsAreCounted,
    dropped_archive_is_counted => ArchiveIsCounted,
    dropped_generation_comes_first => GenerationComesFirst,
    dropped_user_key_locks_user => UserKeyLocksUser,
    dropped_revocation_withdraws => RevocationWithdraws,
    dropped_withdrawn_stays_out => WithdrawnStaysOut,
}
