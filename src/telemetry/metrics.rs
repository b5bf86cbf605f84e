//! Every metric of the broker, in one struct with a registry of its own.
//!
//! Names follow the Prometheus conventions: `sealcast_`, base units, `_total` on counters. Labels are bounded:
//! codes, kinds and names of this crate, never an identity. Identity kept between counters:
//! submitted = committed + refused + in flight, and each committed message is in one histogram of `submit_seconds`.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// The metrics; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

impl std::ops::Deref for Metrics {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

macro_rules! metrics {
    ($(#[doc = $help:literal] $field:ident: $kind:ident = $name:literal [$($label:literal),*];)*) => {
        /// What is counted and measured.
        #[derive(Debug)]
        pub struct Inner {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Inner {
            fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new_custom(Some("sealcast".to_owned()), None)?;
                $(
                    let $field = <$kind as Metric>::make($name, $help.trim(), &[$($label),*])?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field,)* })
            }
        }
    };
}

trait Metric: Sized {
    fn make(name: &str, help: &str, labels: &[&str]) -> Result<Self, prometheus::Error>;
}

impl Metric for IntCounter {
    fn make(name: &str, help: &str, _: &[&str]) -> Result<Self, prometheus::Error> {
        Self::new(name, help)
    }
}

impl Metric for IntGauge {
    fn make(name: &str, help: &str, _: &[&str]) -> Result<Self, prometheus::Error> {
        Self::new(name, help)
    }
}

impl Metric for IntCounterVec {
    fn make(name: &str, help: &str, labels: &[&str]) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Metric for IntGaugeVec {
    fn make(name: &str, help: &str, labels: &[&str]) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(name, help), labels)
    }
}

/// Seconds: from a lonely commit on a quiet machine to a database that hardly answers.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Counts of things in one batch.
const COUNTS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0];

fn buckets(name: &str) -> Vec<f64> {
    let buckets: &[f64] = if name.ends_with("_seconds") { &SECONDS } else { &COUNTS };
    buckets.to_vec()
}

impl Metric for HistogramVec {
    fn make(name: &str, help: &str, labels: &[&str]) -> Result<Self, prometheus::Error> {
        Self::new(HistogramOpts::new(name, help).buckets(buckets(name)), labels)
    }
}

impl Metric for Histogram {
    fn make(name: &str, help: &str, _: &[&str]) -> Result<Self, prometheus::Error> {
        Self::with_opts(HistogramOpts::new(name, help).buckets(buckets(name)))
    }
}

metrics! {
    /// Connections that are open, by whether they have logged in.
    connections: IntGaugeVec = "connections" ["state"];
    /// Connections that were closed, by why.
    connections_closed: IntCounterVec = "connections_closed_total" ["reason"];
    /// Handshakes, by result.
    handshakes: IntCounterVec = "handshakes_total" ["result"];
    /// Logins, by result.
    logins: IntCounterVec = "logins_total" ["result"];
    /// Logins by password or recovery code that came to their end, by kind and result.
    password_logins: IntCounterVec = "password_logins_total" ["kind", "result"];
    /// Requests, by type.
    requests: IntCounterVec = "requests_total" ["type"];
    /// Requests that were refused, by code.
    refusals: IntCounterVec = "refusals_total" ["code"];
    /// Messages that a chat took in.
    submitted: IntCounter = "messages_submitted_total" [];
    /// Messages that were committed.
    committed: IntCounter = "messages_committed_total" [];
    /// Messages that were refused, repeats that were answered included.
    refused: IntCounter = "messages_refused_total" [];
    /// Messages between being taken in and their answer.
    in_flight: IntGauge = "messages_in_flight" [];
    /// Time from a message's coming to its answer, of those that were committed.
    submit_seconds: Histogram = "submit_seconds" [];
    /// Time from a commit until what it committed in a chat is in the outboxes of all who are there.
    hand_over_seconds: Histogram = "hand_over_seconds" [];
    /// Sender keys that were committed: each is a rotation, or a session's first in a chat.
    sender_keys: IntCounter = "sender_keys_total" [];
    /// Epochs that began: by each, the sender keys of before became stale in one chat.
    epoch_changes: IntCounter = "epoch_changes_total" [];
    /// Bytes of requests that sessions sent, without what frames them.
    received_bytes: IntCounter = "received_bytes_total" [];
    /// Bytes that were handed to sockets for sessions, with what frames them.
    sent_bytes: IntCounter = "sent_bytes_total" [];
    /// Connections of the pool to the database, by whether somebody has them.
    pool_connections: IntGaugeVec = "pool_connections" ["state"];
    /// Transactions that wait for a connection of the pool.
    pool_waiting: IntGauge = "pool_waiting" [];
    /// Entries put into outboxes.
    delivered: IntCounter = "entries_delivered_total" [];
    /// Times that a connection's outbox was full and it fell back to catching up from the store.
    lagged: IntCounter = "connections_lagged_total" [];
    /// Signals that a chat took in.
    signals_accepted: IntCounter = "signals_accepted_total" [];
    /// Signals put into outboxes.
    signals_delivered: IntCounter = "signals_delivered_total" [];
    /// Signals left out because a connection had too much waiting.
    signals_dropped: IntCounter = "signals_dropped_total" [];
    /// Words of how far a session has come, put into outboxes.
    deliveries_told: IntCounter = "deliveries_told_total" [];
    /// Pages of the log sent on catch-up.
    catch_up_pages: IntCounter = "catch_up_pages_total" [];
    /// Connections cut for making no progress.
    reaped: IntCounter = "connections_reaped_total" [];
    /// Chats that are loaded.
    chats_loaded: IntGauge = "chats_loaded" [];
    /// Chats that were unloaded for being idle.
    chats_passivated: IntCounter = "chats_passivated_total" [];
    /// Entries that wait in a queue, by queue; the bounds are a metric of their own.
    queue_depth: IntGaugeVec = "queue_depth" ["queue"];
    /// The bound of each queue.
    queue_bound: IntGaugeVec = "queue_bound" ["queue"];
    /// Times that a queue was full, by queue.
    queue_full: IntCounterVec = "queue_full_total" ["queue"];
    /// Messages in one commit of the writer.
    batch_messages: Histogram = "batch_messages" [];
    /// Time of one commit of the writer, begin to end.
    batch_seconds: Histogram = "batch_seconds" [];
    /// Batches that failed, by why.
    batch_failures: IntCounterVec = "batch_failures_total" ["reason"];
    /// Transactions outside the writer, by name and outcome.
    transactions: IntCounterVec = "transactions_total" ["name", "outcome"];
    /// Time of transactions outside the writer, waiting for a connection included.
    transaction_seconds: HistogramVec = "transaction_seconds" ["name"];
    /// Sessions whose expiry was written down.
    sessions_expired: IntCounter = "sessions_expired_total" [];
    /// Times that a clock jumped by more than a second: this machine's, or the database's, by which everything goes.
    clock_steps: IntCounterVec = "clock_steps_total" ["clock"];
    /// Whether the database could be reached at the last look.
    postgres_up: IntGauge = "postgres_up" [];
    /// Panics: each is a fault of this program, and ended no more than the task it happened in.
    panics: IntCounter = "panics_total" [];
    /// Connections and requests of the public listener that were not let in, by why.
    door_refusals: IntCounterVec = "door_refusals_total" ["reason"];
    /// The build that runs, always 1.
    build_info: IntGaugeVec = "build_info" ["version"];
}

impl Metrics {
    /// Makes the metrics of one broker.
    ///
    /// # Errors
    /// A name that is not allowed or used twice: a fault of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let inner = Inner::new()?;
        inner.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self(Arc::new(inner)))
    }

    /// Everything in the Prometheus text format, and what the system says of this process (`process_…`).
    ///
    /// # Errors
    /// A metric that cannot be written: a fault of this file.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        let mut families = self.0.registry.gather();
        families.extend(ProcessCollector::for_self().collect());
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_prints_its_help() {
        let metrics = Metrics::new().unwrap();
        metrics.submitted.inc();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("# HELP sealcast_messages_submitted_total Messages that a chat took in."));
        assert!(text.contains("sealcast_messages_submitted_total 1"));
    }
}
