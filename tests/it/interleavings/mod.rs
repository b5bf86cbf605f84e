//! Random interleavings of changes of members, changes of sessions, and sends, by the client library with real
//! cryptography: what is committed opens for every session that was a recipient at its place, and never for a device whose
//! user was no member there, or that had ended by then.
//!
//! Many worlds stand on one broker; in each of them all devices act at the same time. What a device could ever open is
//! found out apart from the library: from every X25519 key that its keyring ever held, and every copy that the database
//! ever had. `SEALCAST_SEED` draws the scripts of a run again; how they interleave is up to the machine.

mod devices;
mod judge;
mod kept;
mod script;
mod world;

use std::io::Write;
use std::sync::Arc;

use tokio::task::{JoinSet, LocalSet};

use super::support::broker::{Broker, Settings};
use super::support::database::Database;
use super::support::rng::{Rng, seed};
use super::support::trials;
use judge::Tally;
use world::World;

/// Worlds on one database: each has to plan its statements once.
const ON_ONE_DATABASE: usize = 400;

/// Worlds at the same time.
const AT_ONCE: usize = 8;

/// Worlds of some numbers, on a database of their own.
async fn run(seed: u64, numbers: std::ops::Range<usize>) -> Tally {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("session.certificates_per_hour_max", 100)
        .with("password.tries_per_hour_address", 10_000)
        .with("limits.membership_changes_per_minute", 1_000);
    let broker = Arc::new(Broker::start_with(settings).await);
    kept::keep_every_copy(&database).await;
    let database = Arc::new(database);
    let (mut under_way, mut tally) = (JoinSet::new(), Tally::default());
    for number in numbers {
        if under_way.len() == AT_ONCE {
            tally += under_way.join_next().await.unwrap().unwrap();
        }
        let (broker, database) = (Arc::clone(&broker), Arc::clone(&database));
        let rng = Rng::new(seed.wrapping_add(number as u64));
        under_way
            .spawn_local(async move { World::begin(number, rng, &broker, &database).await.live_and_be_judged().await });
    }
    while let Some(done) = under_way.join_next().await {
        tally += done.unwrap();
    }
    tally
}

#[tokio::test]
async fn p4_p5_p8_whatever_happens_at_the_same_time_each_message_opens_for_its_recipients_and_nobody_else() {
    let (seed, worlds) = (seed(), trials(40, 10_000));
    let mut tally = Tally::default();
    for first in (0..worlds).step_by(ON_ONE_DATABASE) {
        tally += LocalSet::new().run_until(run(seed, first..worlds.min(first + ON_ONE_DATABASE))).await;
        if worlds > ON_ONE_DATABASE {
            writeln!(std::io::stdout(), "{} worlds: {tally}", worlds.min(first + ON_ONE_DATABASE)).unwrap();
        }
    }
    writeln!(std::io::stdout(), "{worlds} worlds: {tally}").unwrap();
    assert!(tally.messages > worlds && tally.shut > worlds, "worlds in which little happens: {tally}");
}
