//! The lanes of the writer, and their supervision: one that ends by a panic is started anew.
//!
//! What it had taken in is told `Unknown` by the replies it dropped, and its chats look at the store before they go on.
//! Its transaction ends with its connection, or commits under the locks that the look waits for. Imports the writer.

use std::sync::{Mutex, PoisonError};

use actix::prelude::*;

use super::outage::Outage;
use super::writer::{BatchWriter, WriterOptions};
use crate::telemetry::metrics::Metrics;

/// Every lane of the writer, on one thread.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Mutex<Addr<BatchWriter>>>,
    arbiter: ArbiterHandle,
    config: tokio_postgres::Config,
    options: WriterOptions,
    metrics: Metrics,
    outage: Outage,
}

impl Lanes {
    /// Starts so many lanes; each connects when its first item comes.
    #[must_use]
    pub fn start(
        count: usize,
        arbiter: ArbiterHandle,
        config: tokio_postgres::Config,
        options: WriterOptions,
        metrics: Metrics,
        outage: Outage,
    ) -> Self {
        let mut lanes = Self { lanes: Vec::new(), arbiter, config, options, metrics, outage };
        lanes.lanes = (0..count).map(|index| Mutex::new(lanes.start_one(index))).collect();
        lanes
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.lanes.len()
    }

    /// A lane that lives, started anew if it must be.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Addr<BatchWriter>> {
        let mut lane = self.lanes.get(index)?.lock().unwrap_or_else(PoisonError::into_inner);
        if !lane.connected() {
            tracing::error!(lane = index, "a lane of the writer has ended; it is started anew");
            self.metrics.batch_failures.with_label_values(&["lane_ended"]).inc();
            *lane = self.start_one(index);
        }
        Some(lane.clone())
    }

    /// All of them, each as [`Lanes::get`] gives it.
    #[must_use]
    pub fn all(&self) -> Vec<Addr<BatchWriter>> {
        (0..self.count()).filter_map(|index| self.get(index)).collect()
    }

    fn start_one(&self, index: usize) -> Addr<BatchWriter> {
        let (config, options) = (self.config.clone(), self.options.clone());
        let (metrics, outage) = (self.metrics.clone(), self.outage.clone());
        BatchWriter::start_in_arbiter(&self.arbiter, move |_| BatchWriter::new(index, config, options, metrics, outage))
    }
}
