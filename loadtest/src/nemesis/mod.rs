//! Breaks what a run stands on while messages flow, and leaves it whole.
//!
//! Lives here: the lanes, which go on beside each other, so that a broker is killed while its database is slow and a
//! client cannot be reached. `deck` deals what comes next; `kills` is the plain lane of `mixed`; `processes`, `paths`,
//! `clocks` and `guests` are those of `torture`. Invariants: each fault is in the history when it is done; the seed
//! decides what is done and in which order, not when exactly; when the lanes are over everything is whole, and
//! everything runs.

mod clocks;
mod deck;
pub(crate) mod guests;
mod kills;
mod paths;
mod processes;

pub(crate) use processes::{KILL_BROKER, KILL_POSTGRES};

use std::sync::Arc;

use anyhow::bail;
use sealcast_faults::{Proxy, Target};
use tokio::sync::Mutex;

use crate::ground::broker::Broker;
use crate::load::churn::User;
use crate::rng::Rng;
use crate::run::Run;
use crate::scenario::Faults;

/// Proxies between clients and the broker; some clients have none.
const CLIENT_PATHS: usize = 3;

/// What tells the draws of one lane from those of another.
#[derive(Debug, Clone, Copy)]
enum Lane {
    Processes,
    Database,
    Clock,
    Guests,
    Path(usize),
}

impl Lane {
    const fn salt(self) -> u64 {
        match self {
            Self::Processes => 1,
            Self::Database => 2,
            Self::Clock => 3,
            Self::Guests => 4,
            Self::Path(index) => 16 + index as u64,
        }
    }
}

/// Proxies in front of a broker, for its clients.
pub(crate) async fn client_paths(broker: &Broker) -> anyhow::Result<Vec<Proxy>> {
    let mut paths = Vec::new();
    for _ in 0..CLIENT_PATHS {
        paths.push(Proxy::start(Target::Tcp(broker.address().parse()?)).await?);
    }
    Ok(paths)
}

impl Run {
    /// Breaks what the scenario says until the run is over, and lets it all come back.
    pub(crate) async fn break_things(&self, users: &Arc<Vec<User>>) -> anyhow::Result<()> {
        let Some(broker) = &self.broker else { return Ok(()) };
        match self.scenario.faults {
            Faults::Kills { broker_every, postgres_every } => {
                kills::kill(&self.load, broker, broker_every, postgres_every).await?;
            }
            Faults::Nemesis => self.break_everything(users, broker).await?,
        }
        if !broker.lock().await.is_running() {
            bail!("the broker ended by itself");
        }
        Ok(())
    }

    async fn break_everything(&self, users: &Arc<Vec<User>>, broker: &Mutex<Broker>) -> anyhow::Result<()> {
        let (database, clock) = {
            let broker = broker.lock().await;
            (broker.database_path(), broker.clock())
        };
        let load = &self.load;
        let clients = self.paths.iter().enumerate();
        let clients =
            clients.map(|(index, path)| paths::break_client_path(load, path, index, self.lane(Lane::Path(index))));
        let database = async {
            if let Some(path) = database {
                paths::break_database_path(load, &path, self.lane(Lane::Database)).await;
            }
        };
        let (processes, clock, (), _, ()) = tokio::join!(
            processes::break_processes(load, broker, self.lane(Lane::Processes)),
            clocks::move_clock(load, clock, self.lane(Lane::Clock)),
            database,
            futures_util::future::join_all(clients),
            self.have_guests(users, self.lane(Lane::Guests)),
        );
        processes?;
        clock
    }

    fn lane(&self, lane: Lane) -> Rng {
        Rng::new(self.seed.rotate_left(17) ^ lane.salt())
    }
}
