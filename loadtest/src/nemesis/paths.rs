//! Breaks the ways between clients and the broker, and between the broker and its database.
//!
//! Invariant: each path is open again when its lane is over.

use std::time::Duration;

use sealcast_faults::{Path, Proxy};

use super::deck::Deck;
use super::processes::millis;
use crate::load::Load;
use crate::rng::Rng;

/// Between two faults of one client path, in milliseconds.
const CLIENT_REST_MS: std::ops::RangeInclusive<usize> = 1_000..=5_000;

/// How long a fault of a client path lasts, in milliseconds.
const CLIENT_FAULT_MS: std::ops::RangeInclusive<usize> = 500..=4_000;

/// Between two faults of the way to the database, in milliseconds.
const DATABASE_REST_MS: std::ops::RangeInclusive<usize> = 4_000..=14_000;

/// How long a fault of the way to the database lasts, in milliseconds.
const DATABASE_FAULT_MS: std::ops::RangeInclusive<usize> = 300..=2_500;

/// One hold of so many is longer than what anybody waits for an answer, by this factor.
const LONG_HOLD_EVERY: usize = 5;
const LONG_HOLD_FACTOR: u32 = 5;

/// What is done to a path, its measure yet to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Delay,
    Rate,
    ByteByByte,
    Hold,
    HoldAnswers,
    HoldRequests,
    /// The answers stay on the way and then are gone: whether what was asked for was done stays unknown.
    LoseAnswers,
    Cut,
    Reset,
    CutAfter,
}

const CLIENT_SHARES: [(Fault, usize); 10] = [
    (Fault::Delay, 2),
    (Fault::Rate, 3),
    (Fault::ByteByByte, 1),
    (Fault::Hold, 2),
    (Fault::HoldAnswers, 1),
    (Fault::HoldRequests, 1),
    (Fault::LoseAnswers, 2),
    (Fault::Cut, 2),
    (Fault::Reset, 2),
    (Fault::CutAfter, 2),
];

const DATABASE_SHARES: [(Fault, usize); 6] = [
    (Fault::Delay, 2),
    (Fault::Hold, 1),
    (Fault::LoseAnswers, 2),
    (Fault::Cut, 1),
    (Fault::Reset, 2),
    (Fault::CutAfter, 2),
];

/// Breaks the path of some clients until the run is over.
pub(super) async fn break_client_path(load: &Load, proxy: &Proxy, index: usize, mut rng: Rng) {
    let mut deck = Deck::of(&CLIENT_SHARES);
    while load.rest(millis(&mut rng, CLIENT_REST_MS)).await {
        let Some(fault) = deck.deal(&mut rng) else { break };
        let time = millis(&mut rng, CLIENT_FAULT_MS);
        break_path(load, proxy, ("client path", &index.to_string()), fault, time, &mut rng).await;
    }
}

/// Breaks the path from the broker to its database until the run is over.
pub(super) async fn break_database_path(load: &Load, proxy: &Proxy, mut rng: Rng) {
    let mut deck = Deck::of(&DATABASE_SHARES);
    while load.rest(millis(&mut rng, DATABASE_REST_MS)).await {
        let Some(fault) = deck.deal(&mut rng) else { break };
        let time = millis(&mut rng, DATABASE_FAULT_MS);
        break_path(load, proxy, ("database path", ""), fault, time, &mut rng).await;
    }
}

async fn break_path(
    load: &Load,
    proxy: &Proxy,
    (whose, which): (&str, &str),
    fault: Fault,
    time: Duration,
    rng: &mut Rng,
) {
    let (path, kind) = draw(fault, rng);
    let is_long = fault == Fault::Hold && rng.below(LONG_HOLD_EVERY) == 0;
    // What costs a write for each byte would be a test of this machine if it lasted.
    let time = match fault {
        Fault::ByteByByte => time / 2,
        _ if is_long => time * LONG_HOLD_FACTOR,
        _ => time,
    };
    load.recorder.fault(&format!("{whose} {kind}"), &format!("{which} {path:?} for {} ms", time.as_millis()));
    proxy.set(path);
    load.rest(time).await;
    if fault == Fault::LoseAnswers {
        proxy.set(Path::Reset);
        // The relays must have seen it before the path is open again.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.set(Path::Open);
    load.recorder.remark(&format!("{whose} {which} is open"));
}

fn draw(fault: Fault, rng: &mut Rng) -> (Path, &'static str) {
    match fault {
        Fault::Delay => (Path::Delay(millis(rng, 5..=200)), "delay"),
        Fault::Rate => (Path::Rate(u32::try_from(rng.between(1_000, 20_000)).unwrap_or(u32::MAX)), "slow reader"),
        Fault::ByteByByte => (Path::ByteByByte, "byte by byte"),
        Fault::Hold => (Path::Hold, "hold"),
        Fault::HoldAnswers => (Path::HoldAnswers, "hold answers"),
        Fault::HoldRequests => (Path::HoldRequests, "hold requests"),
        Fault::LoseAnswers => (Path::HoldAnswers, "lose answers"),
        Fault::Cut => (Path::Cut, "cut"),
        Fault::Reset => (Path::Reset, "reset"),
        Fault::CutAfter => (Path::CutAfter(rng.between(50, 8_000) as u64), "cut after bytes"),
    }
}
