//! Cuts connections that make no progress, from outside.
//!
//! A connection whose other end stops reading is no longer polled by the HTTP layer: none of its own timers can run.
//! So one sweeper watches all connections of the process. Floor 5; it imports the outbox and the kill switch.
//!
//! Invariants:
//! 1. A connection with bytes waiting and none taken for longer than `stalled_timeout` is cut within one sweep.
//! 2. A close that is not finished, down to the socket, within `close_timeout` is cut within one sweep.
//! 3. The registry keeps no connection alive, and forgets it once its socket is released.
//! 4. A connection that has not become a WebSocket is cut within one sweep after `exchange_timeout`: the HTTP layer
//!    waits for ever for a body that does not come and for an answer that is not read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_web::dev::Extensions;

use super::transport::{self, KillSwitch, Linger};
use crate::broker::outbox::Outbox;

/// Finished sockets that may wait for the other end's goodbye at one time; more are dropped at once.
const LINGERING_MAX: usize = 1024;

/// The times that the reaper grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaperLimits {
    /// Longest wait of queued bytes without any progress.
    pub stalled_timeout: Duration,
    /// Longest time from a close until the socket is done.
    pub close_timeout: Duration,
    /// Longest time of an HTTP exchange, from the connection to its end.
    pub exchange_timeout: Duration,
    /// How long a finished socket waits for the other end, so that a reset does not overtake the close frame.
    pub linger: Duration,
}

impl Default for ReaperLimits {
    fn default() -> Self {
        Self {
            stalled_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            exchange_timeout: Duration::from_secs(20),
            linger: Duration::from_secs(1),
        }
    }
}

/// What the reaper has cut since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaperCounts {
    /// Connections cut because queued bytes made no progress.
    pub stalled: u64,
    /// Connections cut because their close did not finish.
    pub unfinished_close: u64,
    /// Connections cut because their HTTP exchange took too long.
    pub unfinished_exchange: u64,
    /// Connections watched at the last sweep.
    pub watched: u64,
}

#[derive(Debug)]
struct Watched {
    outbox: Weak<Outbox>,
    switch: KillSwitch,
}

/// The registry of watched connections and the sweep over them.
#[derive(Debug)]
pub struct Reaper {
    limits: ReaperLimits,
    watched: Mutex<Vec<Watched>>,
    unopened: Mutex<Vec<(KillSwitch, Instant)>>,
    stalled: AtomicU64,
    unfinished_close: AtomicU64,
    unfinished_exchange: AtomicU64,
    last_watched: AtomicU64,
}

impl Reaper {
    /// Makes a reaper that watches nothing yet.
    #[must_use]
    pub fn new(limits: ReaperLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            watched: Mutex::new(Vec::new()),
            unopened: Mutex::new(Vec::new()),
            stalled: AtomicU64::new(0),
            unfinished_close: AtomicU64::new(0),
            unfinished_exchange: AtomicU64::new(0),
            last_watched: AtomicU64::new(0),
        })
    }

    /// Watches a connection until its socket is released.
    pub fn watch(&self, outbox: &Arc<Outbox>, switch: &KillSwitch) {
        switch.keep_for_linger();
        let entry = Watched { outbox: Arc::downgrade(outbox), switch: switch.clone() };
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Watches a connection that was just accepted, until it is a WebSocket or gone. For [`super::transport::serve`].
    pub fn greet(&self, data: &Extensions) {
        if let Some(switch) = transport::switch_of(data) {
            let entry = (switch.clone(), Instant::now());
            self.unopened.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
    }

    /// Looks at every connection once, cuts what has run out of time and forgets what is gone.
    pub fn sweep(&self, now: Instant) {
        // Taken out, so that a new connection never waits for a whole sweep.
        let mut entries = std::mem::take(&mut *self.watched.lock().unwrap_or_else(PoisonError::into_inner));
        let mut lingering = 0;
        entries.retain(|entry| self.keep(entry, now, &mut lingering));
        self.last_watched.store(u64::try_from(entries.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        entries.append(&mut watched);
        *watched = entries;
        drop(watched);
        self.sweep_unopened(now);
    }

    /// Cuts what has been neither a WebSocket nor over for too long.
    fn sweep_unopened(&self, now: Instant) {
        let mut unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        unopened.retain(|(switch, since)| {
            if !switch.is_unopened() {
                return false;
            }
            let is_overdue = now.saturating_duration_since(*since) > self.limits.exchange_timeout;
            if is_overdue {
                cut(switch, &self.unfinished_exchange, "exchange not finished");
            }
            !is_overdue
        });
    }

    /// Sweeps at every `interval`, for ever; the caller spawns it once and drops it at shutdown.
    ///
    /// # Cancel safety
    /// It may be dropped at any time; sweeps are synchronous and never left half done.
    pub async fn run(self: Arc<Self>, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep(Instant::now());
        }
    }

    /// What was cut so far.
    #[must_use]
    pub fn counts(&self) -> ReaperCounts {
        ReaperCounts {
            stalled: self.stalled.load(Ordering::Relaxed),
            unfinished_close: self.unfinished_close.load(Ordering::Relaxed),
            unfinished_exchange: self.unfinished_exchange.load(Ordering::Relaxed),
            watched: self.last_watched.load(Ordering::Relaxed),
        }
    }

    /// Judges one connection; false when it can be forgotten.
    fn keep(&self, entry: &Watched, now: Instant, lingering: &mut usize) -> bool {
        if let Some(outbox) = entry.outbox.upgrade().filter(|outbox| !outbox.has_ended()) {
            let overdue_close = outbox.closing_for(now).is_some_and(|time| time > self.limits.close_timeout);
            if overdue_close {
                cut(&entry.switch, &self.unfinished_close, "close not finished");
            } else if outbox.stalled_for(now) > self.limits.stalled_timeout {
                cut(&entry.switch, &self.stalled, "no progress");
            }
            return true;
        }
        match entry.switch.linger(now) {
            Linger::Released => false,
            // The body is done, yet the HTTP layer still holds the socket: it cannot get rid of the last bytes.
            Linger::Flushing(time) => {
                if time > self.limits.close_timeout {
                    cut(&entry.switch, &self.unfinished_close, "last bytes not taken");
                }
                true
            }
            Linger::Waiting(time) => {
                *lingering += 1;
                if time <= self.limits.linger && *lingering <= LINGERING_MAX {
                    return true;
                }
                entry.switch.release();
                false
            }
        }
    }
}

fn cut(switch: &KillSwitch, counter: &AtomicU64, reason: &'static str) {
    if switch.kill() {
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::info!(connection.id = switch.name(), reason, "connection cut");
    }
}
