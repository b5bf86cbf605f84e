//! What all outboxes of a process may hold together, so that many who do not read cannot take all its memory.
//!
//! Here lives [`OutboxBudget`], a count of bytes that the outboxes keep, and of those that hand out large chunks. Floor 3; it
//! knows nothing of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A large chunk, in bytes: about what one write to a socket takes without being cut.
pub(super) const LARGE_CHUNK_BYTES: usize = 64 * 1024;

/// All large chunks together are at most one part in so many of the budget, or one.
const LARGE_CHUNKS_SHARE: usize = 2;

/// The budget of a process.
///
/// What a connection writes at once stays with it as a buffer, so only so many may write much at once: who was the first to
/// have much to write, until they go.
#[derive(Debug)]
pub struct OutboxBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
    large_chunks_max: usize,
    large_chunks: AtomicUsize,
}

impl OutboxBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        let large_chunks_max = (bytes_max / LARGE_CHUNKS_SHARE / LARGE_CHUNK_BYTES).max(1);
        Arc::new(Self { bytes_max, bytes: AtomicUsize::new(0), large_chunks_max, large_chunks: AtomicUsize::new(0) })
    }

    /// Bytes that wait in all outboxes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
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

    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes the right to hand out large chunks, if there is one left.
    pub(super) fn take_large_chunk(&self) -> bool {
        let more = |taken| (taken < self.large_chunks_max).then_some(taken + 1);
        self.large_chunks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back_large_chunk(&self) {
        self.large_chunks.fetch_sub(1, Ordering::Relaxed);
    }
}
