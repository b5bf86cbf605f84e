//! Protocol: W1 to W18. What comes over the wire that no honest client sends, and clients that do not keep up.
//!
//! Rules of the transport alone are tested in `transport`; here the whole broker stands behind them.

mod corpora;
mod floods;
mod framing;
mod limits;
mod line;
mod pieces;
mod readers;
mod shapes;
mod slow_http;
mod smuggling;
mod tree;

use super::super::support::broker::{Broker, Settings};
use super::super::support::database::Database;
#[cfg(feature = "fail-points")]
use super::super::{
    messages::Pair,
    support::{
        chat::{submit, view},
        eventually,
    },
};

/// Settings under which no honest rate is in the way.
fn unhurried(database: &Database) -> Settings {
    Settings::on(database)
        .with("limits.requests_per_s", 1_000_000)
        .with("limits.requests_burst", 1_000_000)
        .with("limits.membership_changes_per_minute", 1_000_000)
        .with("limits.signals_per_s", 1_000_000)
        .with("limits.signals_burst", 1_000_000)
}

/// Whatever came, nothing panicked.
async fn unharmed(broker: &Broker) {
    let (_, metrics) = broker.operator_get("/metrics").await;
    assert!(metrics.contains("\nsealcast_panics_total 0\n"), "{metrics}");
}

#[cfg(feature = "fail-points")]
#[tokio::test]
async fn w3_a_panic_would_be_counted() {
    let mut pair = Pair::start().await;
    unharmed(&pair.broker).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"lost in a panic, and sent again");
    pair.broker.break_at("chat::turn", "1*panic").await;
    let _ = submit(&mut pair.ada_socket, message.clone()).await;
    assert_eq!(pair.broker.metric("sealcast_panics_total", "").await, 1.0);
    eventually("the chat to go on", async || submit(&mut pair.ada_socket, message.clone()).await.is_ok()).await;
}
