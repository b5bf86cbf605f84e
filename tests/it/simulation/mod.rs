//! A seeded simulator of the broker: modelled database, wire and clock around the real rules.
//!
//! One thread, one source of chance, no real time: a seed is a world, and the same seed the same world. What is real in
//! it and what is modelled is told in docs/reliability.md, section "Simulation".

mod client;
mod database;
mod faults;
mod fold;
mod node;
mod oracle;
mod rng;
mod rules;
mod shell;
mod transactions;
mod world;

use rules::Rule;
use world::{Report, World};

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

#[test]
fn a_world() {
    println!("{}", story(std::env::var("SEED").unwrap_or_default().parse().unwrap_or(1), None));
}

#[test]
fn many_worlds() {
    let started = std::time::Instant::now();
    let mut sum = [0; 4];
    for seed in 0..std::env::var("N").unwrap_or_default().parse().unwrap_or(100) {
        let report = run(seed, None);
        sum[0] += report.events;
        sum[1] += report.entries;
        sum[2] += report.acknowledged;
        sum[3] += report.refused;
        if let Some(violation) = report.violation {
            println!("seed {seed} nodes {}: {violation}", World::new(seed, None).nodes.len());
        }
    }
    println!("{sum:?} in {:?}", started.elapsed());
}
