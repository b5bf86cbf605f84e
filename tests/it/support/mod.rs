//! What the tests stand on: databases, brokers, devices that speak the bare protocol.

#![cfg_attr(
    not(all(feature = "client", feature = "fail-points")),
    allow(dead_code, reason = "some of it serves tests of these features alone")
)]

pub mod backup;
pub mod broker;
pub mod chat;
#[cfg(feature = "client")]
pub mod clients;
pub mod database;
pub mod device;
pub mod every_request;
pub mod generations;
pub mod halves;
pub mod late_commits;
#[cfg(feature = "client")]
pub mod library;
pub mod link;
pub mod mount;
pub mod proxy;
pub mod revisions;
pub mod rights;
pub mod rng;
pub mod secrets;
pub mod shares;
pub mod signed;
#[cfg(feature = "client")]
pub mod typed;

use std::time::Duration;

/// Every wait ends here, as a failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

tokio::task_local! {
    /// How many deadlines each wait has.
    static PATIENCE: u32;
}

/// Within this, whatever stands below, each wait has so many deadlines: for what is so many times as much as usual. Tasks
/// that are spawned in it have one again.
pub async fn patiently<T>(deadlines: usize, what: impl Future<Output = T>) -> T {
    PATIENCE.scope(deadlines.max(1) as u32, what).await
}

/// When a wait that begins here and now is in vain.
pub fn deadline() -> Duration {
    DEADLINE * PATIENCE.try_with(|deadlines| *deadlines).unwrap_or(1)
}

/// How often a trial is made: `few` by default, and `all` where `SEALCAST_TRIALS` is `all`.
pub fn trials(few: usize, all: usize) -> usize {
    if std::env::var("SEALCAST_TRIALS").is_ok_and(|trials| trials == "all") { all } else { few }
}

/// Waits for something that must happen.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline(), wait).await {
        Ok(value) => value,
        Err(_) => panic!("in vain: {what}"),
    }
}

/// Looks again and again until something is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
