//! What all outboxes of a process may hold together, so that many who do not read cannot take all its memory.
//!
//! Here lives [`OutboxBudget`], a count of bytes that the outboxes keep. Floor 3; it knows nothing of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The budget of a process.
#[derive(Debug)]
pub struct OutboxBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
    handed_on: AtomicU64,
}

impl OutboxBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes: AtomicUsize::new(0), handed_on: AtomicU64::new(0) })
    }

    /// Bytes that wait in all outboxes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that were handed to sockets so far.
    #[must_use]
    pub fn handed_on(&self) -> u64 {
        self.handed_on.load(Ordering::Relaxed)
    }

    /// Whether more may wait. Those who ask at once may each be told so: a frame too many each is no harm.
    pub(super) fn has_room(&self) -> bool {
        self.has_room_beside(0)
    }

    /// Whether more may wait once so many bytes have been taken.
    pub(super) fn has_room_beside(&self, bytes: usize) -> bool {
        self.bytes().saturating_add(bytes) < self.bytes_max
    }

    pub(super) fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn hand_on(&self, bytes: usize) {
        self.handed_on.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
