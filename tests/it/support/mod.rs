//! What the tests stand on: databases, brokers, devices that speak the bare protocol.

pub mod broker;
pub mod chat;
#[cfg(feature = "client")]
pub mod clients;
pub mod database;
pub mod device;
#[cfg(feature = "client")]
pub mod library;
pub mod link;
#[cfg(feature = "client")]
pub mod proxy;
pub mod revisions;
pub mod rights;
pub mod signed;

use std::time::Duration;

/// Every wait ends here, as a failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

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
