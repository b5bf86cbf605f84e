//! Rests between two tries, and goes on as soon as there is a new connection that may do better.

use std::time::Duration;

use tokio::sync::watch;

use super::state::{Shared, Status};
use crate::client::backoff::Backoff;
use crate::client::net::wire::Wire;

/// What is rested in any case: a request that ends every connection it comes over must not do so many times a second.
const SURE: Duration = Duration::from_millis(500);

impl Shared {
    /// Rests after a try over a connection, as long as the server named and then up to the backoff's next wait. When the
    /// client is live again over another connection there is nothing left to wait for.
    pub(crate) async fn rest(&self, after: &Wire, backoff: &mut Backoff, retry_after_ms: Option<u64>) {
        let named = Backoff::named(retry_after_ms);
        let wait = backoff.next();
        rest(self.status.subscribe(), after.generation(), named + wait.min(SURE), wait.saturating_sub(SURE)).await;
    }
}

/// Waits `sure`, then until the client is live over another connection than `generation` or closed, or `wait` is over.
async fn rest(mut status: watch::Receiver<Status>, generation: u64, sure: Duration, wait: Duration) {
    tokio::time::sleep(sure).await;
    let is_anew = |status: &Status| match status {
        Status::Live(wire) => wire.generation() != generation,
        Status::Closed(_) => true,
        Status::Connecting => false,
    };
    // Whoever waits is told of the end by the status, or by its sender's.
    let _ = tokio::time::timeout(wait, status.wait_for(is_anew)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::error::CloseReason;

    const AN_HOUR: Duration = Duration::from_secs(3_600);

    /// Lets the rest look at its status as often as it likes.
    async fn is_resting(rest: &tokio::task::JoinHandle<()>) -> bool {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        !rest.is_finished()
    }

    async fn ends(rest: tokio::task::JoinHandle<()>) {
        tokio::time::timeout(Duration::from_secs(30), rest).await.expect("an hour is not slept out").unwrap();
    }

    #[tokio::test]
    async fn a_rest_ends_when_the_client_is_live_again() {
        let (lost, _to_write) = Wire::new(1);
        let (status, _) = watch::channel(Status::Live(lost.clone()));
        let resting = tokio::spawn(rest(status.subscribe(), lost.generation(), Duration::ZERO, AN_HOUR));
        assert!(is_resting(&resting).await, "the connection of before does no better");
        status.send_replace(Status::Connecting);
        assert!(is_resting(&resting).await);
        let (anew, _to_write) = Wire::new(2);
        status.send_replace(Status::Live(anew));
        ends(resting).await;
    }

    #[tokio::test]
    async fn a_rest_ends_with_the_client() {
        let (status, _) = watch::channel(Status::Connecting);
        let resting = tokio::spawn(rest(status.subscribe(), 1, Duration::ZERO, AN_HOUR));
        assert!(is_resting(&resting).await);
        status.send_replace(Status::Closed(CloseReason::ByUser));
        ends(resting).await;
    }

    #[tokio::test]
    async fn what_the_server_named_is_rested_over_any_connection() {
        let (anew, _to_write) = Wire::new(2);
        let (status, _) = watch::channel(Status::Live(anew));
        let resting = tokio::spawn(rest(status.subscribe(), 1, AN_HOUR, AN_HOUR));
        assert!(is_resting(&resting).await);
        resting.abort();
    }
}
