//! A seeded simulator of the broker: modelled database, wire and clock around the real rules.
//!
//! One thread, one source of chance, no real time: a seed is a world, and the same seed the same world. What is real in
//! it and what is modelled is told in docs/reliability.md, section "Simulation". A seed that found a bug stays here as a
//! test of its own.

mod client;
mod database;
mod faults;
mod fold;
mod node;
mod oracle;
mod rules;
mod shell;
mod transactions;
mod world;

use std::io::Write;
use std::ops::Range;

use rules::Rule;
use world::{Report, World};

/// Worlds that the suite runs, in so many parts that run beside each other.
const SEEDS: u64 = 10_000;
const PARTS: u64 = 8;

/// Worlds within which a rule that is dropped must be missed. One is missed in few worlds: the search begins near them.
fn worlds_for(rule: Rule) -> Range<u64> {
    match rule {
        Rule::RefusalsKeepOrder => 54_200..55_200,
        Rule::ReturnsAreKept => 37_000..38_000,
        Rule::UnseenAreWelcomed => 864_000..865_000,
        Rule::LoadLocks => 7_000..9_000,
        _ => 0..1_000,
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn run(seed: u64, dropped: Option<Rule>) -> Report {
    World::new(seed, dropped).run().0
}

/// What happened in a world, line by line.
fn story(seed: u64, dropped: Option<Rule>) -> String {
    let mut world = World::new(seed, dropped);
    world.story = Some(Vec::new());
    let (report, lines) = world.run();
    format!("{}\n{report:#?}", lines.join("\n"))
}

/// Runs worlds in which every rule holds, and stops at the first in which something is wrong.
fn run_all(seeds: Range<u64>) {
    let mut sum = Report::default();
    for seed in seeds.clone() {
        let report = run(seed, None);
        if report.violation.is_some() {
            panic!("seed {seed}: {:?}\n{}", report.violation, story(seed, None));
        }
        sum.events += report.events;
        sum.entries += report.entries;
        sum.acknowledged += report.acknowledged;
        sum.refused += report.refused;
    }
    say(&format!("seeds {seeds:?}: {sum:?}"));
    let worlds = seeds.end - seeds.start;
    assert!(sum.acknowledged > 10 * worlds && sum.refused > 5 * worlds, "worlds in which little happens: {sum:?}");
}

fn part(number: u64) {
    let size = SEEDS / PARTS;
    run_all(number * size..(number + 1) * size);
}

#[test]
fn p1_p5_worlds_part_0() {
    part(0);
}

#[test]
fn p1_p5_worlds_part_1() {
    part(1);
}

#[test]
fn p1_p5_worlds_part_2() {
    part(2);
}

#[test]
fn p1_p5_worlds_part_3() {
    part(3);
}

#[test]
fn p1_p5_worlds_part_4() {
    part(4);
}

#[test]
fn p1_p5_worlds_part_5() {
    part(5);
}

#[test]
fn p1_p5_worlds_part_6() {
    part(6);
}

#[test]
fn p1_p5_worlds_part_7() {
    part(7);
}

/// Any worlds, by hand: `SEALCAST_SEEDS=FROM..TO`.
#[test]
fn worlds_that_are_named() {
    let Ok(named) = std::env::var("SEALCAST_SEEDS") else { return };
    let (from, to) = named.split_once("..").expect("FROM..TO");
    run_all(from.parse().unwrap()..to.parse().unwrap());
}

/// What happens in one world, by hand: `SEALCAST_SEED=N`, with `--no-capture`.
#[test]
fn a_world_that_is_told() {
    let Ok(seed) = std::env::var("SEALCAST_SEED") else { return };
    say(&story(seed.parse().unwrap(), None));
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [1, 7, 42, 1_000_003] {
        let (first, second) = (run(seed, None), run(seed, None));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.trace, run(seed + 1, None).trace, "seed {seed}");
    }
    assert_eq!(story(42, None), story(42, None));
}

/// Worlds in which nothing is wrong, and something is without a rule.
fn are_whole_by(rule: Rule, seeds: &[u64]) {
    for seed in seeds {
        assert_eq!(run(*seed, None).violation, None, "seed {seed}");
        assert_ne!(run(*seed, Some(rule)).violation, None, "seed {seed} without {rule:?}");
    }
}

/// A member who was taken out and added again while resuming, or while a page was read for them, was told that the chat is
/// gone, and nothing more.
#[test]
fn seed_37093_who_is_added_again_keeps_the_chat() {
    are_whole_by(Rule::ReturnsAreKept, &[37_093]);
}

/// A page came of a chat that had been left and joined anew while it was read.
#[test]
fn seeds_505855_and_533469_what_was_read_before_a_chat_was_left_is_not_shown() {
    for seed in [505_855, 533_469] {
        assert_eq!(run(seed, None).violation, None, "seed {seed}");
    }
}

/// A session resumed once more while it was read for, was live, and lagged anew: what had been read before said that it had
/// caught up.
#[test]
fn seeds_674086_and_862973_a_word_that_a_session_lags_outlives_what_was_read_before() {
    for seed in [674_086, 862_973] {
        assert_eq!(run(seed, None).violation, None, "seed {seed}");
    }
}

/// Who had been added by a process that died was connected before that was committed, and nobody knew of it.
#[test]
fn seed_864295_who_came_in_unseen_is_welcomed_by_the_next_load() {
    are_whole_by(Rule::UnseenAreWelcomed, &[864_295]);
}

/// A message was refused for good, or as a gap, while the one before it, or the same bytes sent before a connection was
/// lost, were looked up, and taken afterwards.
#[test]
fn seeds_54259_71854_and_122700_what_is_judged_again_is_judged_first() {
    are_whole_by(Rule::RefusalsKeepOrder, &[54_259, 71_854, 122_700]);
}

/// The first world in which it is seen that a rule is dropped, and by what.
fn noticed(rule: Rule) -> Option<(u64, String)> {
    worlds_for(rule).find_map(|seed| Some((seed, run(seed, Some(rule)).violation?)))
}

/// A simulator that finds nothing proves nothing: each rule that is dropped must be missed.
#[test]
fn every_rule_that_is_dropped_is_missed() {
    let mut unnoticed = Vec::new();
    for rule in Rule::ALL {
        match noticed(rule) {
            Some((seed, violation)) => say(&format!("{rule:?}: seed {seed}: {violation:.120}")),
            None => unnoticed.push(rule),
        }
    }
    assert!(unnoticed.is_empty(), "nobody misses {unnoticed:?}");
}
