//! What one run of one server gave.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::over_time::{self, Second};

/// Highest latency that is told apart, in microseconds: ten minutes.
const LATENCY_MAX_US: u64 = 600_000_000;

/// What must be 0, as `mixed` counts it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wrong {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
    pub(crate) gaps: u64,
    /// Not what was sent, byte for byte, or not to be opened or verified.
    pub(crate) undecryptable: u64,
}

impl Wrong {
    /// By name. Nobody is removed in these runs, so nobody can read after it.
    pub(crate) const fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("out_of_order", self.out_of_order),
            ("gaps", self.gaps),
            ("undecryptable", self.undecryptable),
            ("read_after_removal", 0),
        ]
    }

    /// All of them.
    pub(crate) fn sum(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count).sum()
    }

    pub(crate) const fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.gaps += other.gaps;
        self.undecryptable += other.undecryptable;
    }
}

/// Latencies of a run, in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?))
    }

    pub(crate) fn record_ns(&mut self, ns: u64) {
        self.0.saturating_record(ns / 1_000);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// Milliseconds that so large a share of all stays below.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The usual percentiles.
    pub(crate) fn json(&self) -> Value {
        json!({ "p50": self.ms(0.5), "p99": self.ms(0.99), "p999": self.ms(0.999), "max": self.ms(1.0) })
    }
}

/// What was measured, in the measured time alone but for the wrong counts and the peak.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) elapsed_s: f64,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    /// From the sender's write, or from the plan, to a receiver's read.
    pub(crate) latency: Latencies,
    /// From the same to the sender's answer.
    pub(crate) ack_latency: Latencies,
    /// Of `latency`, by the second in which a receiver read.
    pub(crate) latency_over_time: Vec<Option<Second>>,
    pub(crate) opened: u64,
    pub(crate) wrong: Wrong,
    /// Senders that had nothing left to send: the run ended when the first of them came to its end.
    pub(crate) is_exhausted: bool,
    /// Of all processes of the server; none where they cannot be seen.
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) client_cpu_s: f64,
    /// Of everything else on the machine, as a share of all its processors; none where the server cannot be told from it.
    pub(crate) foreign_cpu: Option<f64>,
    pub(crate) peak_rss_mib: Option<f64>,
    pub(crate) wire: WireBytes,
}

/// Payloads of frames, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WireBytes {
    pub(crate) send: usize,
    pub(crate) deliver: usize,
    pub(crate) ack: usize,
}

impl Figures {
    pub(crate) fn acked_per_s(&self) -> f64 {
        self.acked as f64 / self.elapsed_s
    }

    pub(crate) fn delivered_per_s(&self) -> f64 {
        self.delivered as f64 / self.elapsed_s
    }

    pub(crate) fn cpu_s_per_million(&self) -> Option<f64> {
        Some(self.server_cpu_s? * 1e6 / (self.delivered as f64).max(1.0))
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "elapsed_s": self.elapsed_s,
            "acked": self.acked,
            "delivered": self.delivered,
            "acked_per_s": self.acked_per_s(),
            "delivered_per_s": self.delivered_per_s(),
            "latency_ms": self.latency.json(),
            "ack_latency_ms": self.ack_latency.json(),
            "latency_over_time_ms": over_time::json(&self.latency_over_time),
            "opened": self.opened,
            "is_exhausted": self.is_exhausted,
            "server_cpu_s_per_million_deliveries": self.cpu_s_per_million(),
            "server_cpu_s": self.server_cpu_s,
            "client_cpu_s": self.client_cpu_s,
            "foreign_cpu": self.foreign_cpu,
            "peak_rss_mib": self.peak_rss_mib,
            "wire_bytes": { "send": self.wire.send, "deliver": self.wire.deliver, "ack": self.wire.ack },
            "wrong": self.wrong.counts().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        })
    }
}
