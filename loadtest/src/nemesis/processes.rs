//! Ends and stops the processes of the broker and of Postgres, one after the other.
//!
//! Invariant: what was stopped goes on, and what was ended runs again, before the next one.

use std::time::Duration;

use tokio::sync::Mutex;

use super::deck::Deck;
use crate::ground::broker::Broker;
use crate::ground::process::signal;
use crate::load::Load;
use crate::rng::Rng;

/// The broker gets SIGKILL.
pub(crate) const KILL_BROKER: &str = "kill broker";

/// The postmaster gets SIGKILL.
pub(crate) const KILL_POSTGRES: &str = "kill postgres";

/// Between two of these, in milliseconds.
const REST_MS: std::ops::RangeInclusive<usize> = 1_500..=4_500;

/// How long a killed broker stays away, in milliseconds.
const AWAY_MS: std::ops::RangeInclusive<usize> = 0..=800;

/// How long a process stands still, in milliseconds.
const STOP_MS: std::ops::RangeInclusive<usize> = 500..=4_000;

/// One stop of so many is longer than what anybody waits for an answer, by this factor.
const LONG_STOP_EVERY: usize = 6;
const LONG_STOP_FACTOR: u32 = 4;

/// Tries to find a Postgres that runs, for a fault that needs one.
const POSTGRES_TRIES: u32 = 50;
const POSTGRES_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillBroker,
    StopBroker,
    KillPostgres,
    KillBackend,
    StopPostgres,
}

const SHARES: [(Fault, usize); 5] = [
    (Fault::KillBroker, 5),
    (Fault::KillPostgres, 3),
    (Fault::KillBackend, 1),
    (Fault::StopBroker, 1),
    (Fault::StopPostgres, 1),
];

/// Breaks processes until the run is over.
pub(super) async fn break_processes(load: &Load, broker: &Mutex<Broker>, mut rng: Rng) -> anyhow::Result<()> {
    let mut deck = Deck::of(&SHARES);
    while load.rest(millis(&mut rng, REST_MS)).await {
        let Some(fault) = deck.deal(&mut rng) else { break };
        let mut broker = broker.lock().await;
        anyhow::ensure!(broker.is_running(), "the broker ended by itself");
        match fault {
            Fault::KillBroker => {
                load.recorder.fault(KILL_BROKER, "");
                broker.kill().await?;
                tokio::time::sleep(millis(&mut rng, AWAY_MS)).await;
                broker.restart().await?;
                load.recorder.remark("broker is back");
            }
            Fault::StopBroker => {
                let time = stop_time(&mut rng);
                load.recorder.fault("stop broker", &format!("{} ms", time.as_millis()));
                broker.signal("STOP").await?;
                load.rest(time).await;
                broker.signal("CONT").await?;
                load.recorder.remark("broker goes on");
            }
            Fault::KillPostgres => {
                if is_postgres_there(&broker).await && broker.signal_postmaster("KILL").await? {
                    load.recorder.fault(KILL_POSTGRES, "");
                }
            }
            Fault::KillBackend => {
                if is_postgres_there(&broker).await
                    && let Some(backend) = rng.pick(&broker.backends())
                    && signal("KILL", *backend).await?
                {
                    load.recorder.fault("kill backend", "");
                }
            }
            Fault::StopPostgres => {
                let time = stop_time(&mut rng);
                if is_postgres_there(&broker).await && broker.signal_postgres("STOP").await? {
                    load.recorder.fault("stop postgres", &format!("{} ms", time.as_millis()));
                    load.rest(time).await;
                    broker.signal_postgres("CONT").await?;
                    load.recorder.remark("postgres goes on");
                }
            }
        }
    }
    Ok(())
}

/// Waits for a Postgres that serves, since one that was killed takes a moment to be there again.
async fn is_postgres_there(broker: &Broker) -> bool {
    for _ in 0..POSTGRES_TRIES {
        if !broker.backends().is_empty() {
            return true;
        }
        tokio::time::sleep(POSTGRES_PAUSE).await;
    }
    false
}

fn stop_time(rng: &mut Rng) -> Duration {
    let time = millis(rng, STOP_MS);
    if rng.below(LONG_STOP_EVERY) == 0 { time * LONG_STOP_FACTOR } else { time }
}

/// A time within bounds in milliseconds.
pub(super) fn millis(rng: &mut Rng, range: std::ops::RangeInclusive<usize>) -> Duration {
    Duration::from_millis(u64::try_from(rng.between(*range.start(), *range.end())).unwrap_or(u64::MAX))
}
