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
use std::time::Instant;

use rules::Rule;
use stateright::{Checker, Model};
use words::Told;
use world::{Protocol, Step, World};

use crate::support::trials;

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The steps to the nearest state in which something does not hold, told, and what does not.
#[derive(Debug)]
struct Counterexample {
    steps: usize,
    story: String,
}

/// Explores all states that are at most so many steps away.
fn explore(chats: usize, dropped: Option<Rule>, steps: usize, threads: usize) -> Option<Counterexample> {
    let started = Instant::now();
    let model = Protocol { chats, dropped };
    let checker = model.checker().threads(threads).target_max_depth(steps + 1);
    let checker = checker.finish_when(stateright::HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, seconds) = (checker.unique_state_count(), started.elapsed().as_secs_f64());
    say(&format!("{chats} chats, {steps} steps, {dropped:?}: {states} states, {seconds:.1} s"));
    let path = checker.discoveries().into_values().min_by_key(|path| path.clone().into_vec().len())?;
    let path: Vec<(World, Option<Step>)> = path.into_vec();
    let told = path.iter().filter_map(|(world, step)| step.map(|step| Told(world, step).to_string()));
    let broken = path.last().and_then(|(world, _)| world.broken.as_ref()).map(ToString::to_string);
    let story = told.chain(broken).collect::<Vec<_>>().join("\n  ");
    Some(Counterexample { steps: path.len() - 1, story: format!("\n  {story}") })
}

fn explore_whole(chats: usize, few: usize, all: usize) {
    if let Some(found) = explore(chats, None, trials(few, all), 2) {
        panic!("after {} steps:{}", found.steps, found.story);
    }
}

#[test]
fn p4_p5_one_chat() {
    explore_whole(1, 5, 7);
}

#[test]
fn p4_p5_two_chats() {
    explore_whole(2, 4, 6);
}

/// A model that finds nothing proves nothing: each rule that is dropped must be missed.
#[test]
fn every_rule_that_is_dropped_is_missed() {
    let mut unnoticed = Vec::new();
    for rule in Rule::ALL {
        match explore(1, Some(rule), 8, 1) {
            Some(found) => say(&format!("{rule:?}: after {} steps:{}", found.steps, found.story)),
            None => unnoticed.push(rule),
        }
    }
    assert!(unnoticed.is_empty(), "nobody misses {unnoticed:?}");
}
