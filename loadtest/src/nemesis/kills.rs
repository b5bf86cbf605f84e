//! Ends processes every so many seconds: the faults of `mixed`.

use std::time::Duration;

use tokio::sync::Mutex;

use super::processes::{KILL_BROKER, KILL_POSTGRES};
use crate::ground::broker::Broker;
use crate::load::Load;

/// Ends them until the run is over, and lets them come back.
pub(super) async fn kill(
    load: &Load,
    broker: &Mutex<Broker>,
    broker_every: Option<u64>,
    postgres_every: Option<u64>,
) -> anyhow::Result<()> {
    let brokers = async {
        while rest(load, broker_every).await {
            load.recorder.fault(KILL_BROKER, "");
            let mut broker = broker.lock().await;
            broker.kill().await?;
            broker.restart().await?;
            load.recorder.remark("broker is back");
        }
        anyhow::Ok(())
    };
    let postgres = async {
        while rest(load, postgres_every).await {
            if broker.lock().await.signal_postmaster("KILL").await? {
                load.recorder.fault(KILL_POSTGRES, "");
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(brokers, postgres)?;
    Ok(())
}

async fn rest(load: &Load, every: Option<u64>) -> bool {
    match every {
        Some(every) => load.rest(Duration::from_secs(every)).await,
        None => false,
    }
}
