//! Counts what one connection was let through and has not yet dealt with.
//!
//! The guard asks before it lets a data frame in; the session gives back by dropping a [`Credit`]. Control frames are not
//! metered: they leave nothing behind. Floor 5; credits may be dropped on any thread.
//!
//! Invariants:
//! 1. Outstanding messages and bytes stay within the bounds, except that one message is always let in, so that a lawful
//!    message of exactly the limit passes whatever the bounds are.
//! 2. Whoever was refused is woken by the next credit that comes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// The bounds of what one connection may bring in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportLimits {
    /// Largest message, all fragments together, in bytes. Larger: 1009, from the headers alone.
    pub message_bytes_max: usize,
    /// Most bytes of messages let in and not yet credited. At least one message is always let in.
    pub outstanding_bytes_max: usize,
    /// Most messages let in and not yet credited. At least one is always let in.
    pub outstanding_messages_max: usize,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self { message_bytes_max: 256 * 1024, outstanding_bytes_max: 256 * 1024, outstanding_messages_max: 64 }
    }
}

#[derive(Debug, Default)]
struct Outstanding {
    messages: usize,
    bytes: usize,
    reader: Option<Waker>,
}

/// The count of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    limits: TransportLimits,
    outstanding: Mutex<Outstanding>,
}

impl Meter {
    pub(super) fn new(limits: TransportLimits) -> Arc<Self> {
        Arc::new(Self { limits, outstanding: Mutex::new(Outstanding::default()) })
    }

    /// Lets a data frame in, or arranges that the reader is woken by the next credit.
    ///
    /// `is_first`: the frame starts a message. A later frame belongs to a message that is counted already.
    pub(super) fn admit(&self, is_first: bool, bytes: usize, cx: &Context<'_>) -> bool {
        let mut outstanding = self.lock();
        let others = if is_first { outstanding.messages } else { outstanding.messages.saturating_sub(1) };
        let fits = (!is_first || others < self.limits.outstanding_messages_max)
            && outstanding.bytes.saturating_add(bytes) <= self.limits.outstanding_bytes_max;
        if others > 0 && !fits {
            outstanding.reader = Some(cx.waker().clone());
            return false;
        }
        outstanding.bytes = outstanding.bytes.saturating_add(bytes);
        outstanding.messages += usize::from(is_first);
        true
    }

    /// The credit for a message of which every frame was admitted.
    pub(super) fn credit(self: &Arc<Self>, bytes: usize) -> Credit {
        Credit { meter: Some(Arc::clone(self)), bytes }
    }

    fn give_back(&self, bytes: usize) {
        let reader = {
            let mut outstanding = self.lock();
            outstanding.messages = outstanding.messages.saturating_sub(1);
            outstanding.bytes = outstanding.bytes.saturating_sub(bytes);
            outstanding.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right of one message to be in memory. Dropping it lets the connection read on.
#[derive(Debug)]
pub struct Credit {
    meter: Option<Arc<Meter>>,
    bytes: usize,
}

impl Credit {
    /// A credit that belongs to no connection, for messages that come from elsewhere.
    #[must_use]
    pub fn unmetered() -> Self {
        Self { meter: None, bytes: 0 }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            meter.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn meter(bytes: usize, messages: usize) -> Arc<Meter> {
        Meter::new(TransportLimits {
            message_bytes_max: 100,
            outstanding_bytes_max: bytes,
            outstanding_messages_max: messages,
        })
    }

    #[test]
    fn the_bounds_hold_and_a_credit_wakes_the_reader() {
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let meter = meter(100, 2);
        assert!(meter.admit(true, 60, &cx));
        assert!(!meter.admit(true, 41, &cx));
        assert!(meter.admit(true, 40, &cx));
        assert!(!meter.admit(true, 0, &cx));
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
        drop(meter.credit(60));
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(meter.admit(true, 60, &cx));
    }

    #[test]
    fn a_message_alone_is_let_in_whatever_the_bounds_are() {
        let cx = Context::from_waker(Waker::noop());
        let meter = meter(10, 0);
        for fragment in 0..100 {
            assert!(meter.admit(fragment == 0, 1, &cx), "{fragment}");
        }
        assert!(!meter.admit(true, 0, &cx));
        drop(meter.credit(100));
        assert!(meter.admit(true, 100, &cx));
    }
}
