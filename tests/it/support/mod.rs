//! What the tests stand on: databases, brokers, devices that speak the bare protocol.

#![cfg_attr(
    not(all(feature = "client", feature = "fail-points")),
    allow(dead_code, reason = "some of it serves tests of these features alone")
)]

pub mod broker;
pub mod chat;
#[cfg(feature = "client")]
pub mod clients;
pub mod database;
pub mod device;
pub mod every_request;
#[cfg(feature = "client")]
pub mod library;
pub mod link;
pub mod mount;
pub mod proxy;
pub mod revisions;
pub mod rights;
pub mod signed;

use std::time::Duration;

/// Every wait ends here, as a failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a trial is made: `few` by default, and `all` where `SEALCAST_TRIALS` is `all`.
pub fn trials(few: usize, all: usize) -> usize {
    if std::env::var("SEALCAST_TRIALS").is_ok_and(|trials| trials == "all") { all } else { few }
}

/// Waits for something that must happen.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, wait).await {
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
