//! Holds the bytes that wait in an outbox, in the order in which they leave.
//!
//! Much that goes to many is shared by them; little is copied behind what waits, so that one write takes it all. Floor 3.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// From so many bytes on a run is shared: copying it would cost more than a chunk of its own.
const SHARED_BYTES_MIN: usize = 4 * 1024;

/// The most that an empty queue asks for ahead of what it is given, in bytes.
const FORECAST_BYTES_MAX: usize = 16 * 1024;

/// Bytes in order. One that is [cleared](ByteQueue::clear) owns no memory.
#[derive(Debug, Default)]
pub(super) struct ByteQueue {
    shared: VecDeque<Bytes>,
    shared_bytes: usize,
    /// Behind all that is shared.
    copied: BytesMut,
    /// What the last chunk that emptied the queue held: the first allocation of the next.
    forecast_bytes: usize,
}

impl ByteQueue {
    pub(super) fn len(&self) -> usize {
        self.shared_bytes + self.copied.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes, which are shared if they are many.
    pub(super) fn push(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_BYTES_MIN {
            return self.copy(bytes);
        }
        if !self.copied.is_empty() {
            self.shared_bytes += self.copied.len();
            self.shared.push_back(std::mem::take(&mut self.copied).freeze());
        }
        self.shared_bytes += bytes.len();
        self.shared.push_back(bytes.clone());
    }

    /// Appends a copy.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        if self.copied.is_empty() {
            self.copied.reserve(bytes.len().max(self.forecast_bytes));
        }
        self.copied.extend_from_slice(bytes);
    }

    /// Takes the oldest bytes, at most so many; none only when it is empty.
    pub(super) fn take(&mut self, bytes_max: usize) -> Bytes {
        let chunk = match self.shared.front_mut() {
            Some(front) if front.len() > bytes_max => front.split_to(bytes_max),
            Some(_) => self.shared.pop_front().unwrap_or_default(),
            None if self.copied.len() > bytes_max => return self.copied.split_to(bytes_max).freeze(),
            None => {
                self.forecast_bytes = self.copied.len().min(FORECAST_BYTES_MAX);
                return std::mem::take(&mut self.copied).freeze();
            }
        };
        self.shared_bytes -= chunk.len();
        chunk
    }

    /// Forgets what waits and gives its memory back.
    pub(super) fn clear(&mut self) {
        *self = Self { forecast_bytes: self.forecast_bytes, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_however_they_came_and_are_taken() {
        let many = Bytes::from((0..9_000_u32).map(|byte| byte.to_le_bytes()[0]).collect::<Vec<_>>());
        for chunk_bytes in [1, 7, 5_000, 100_000] {
            let (mut queue, mut all) = (ByteQueue::default(), Vec::new());
            let (mut taken, mut sizes) = (Vec::new(), Vec::new());
            for round in 0..5 {
                queue.push(&many.slice(..10 + round));
                queue.push(&many);
                queue.copy(&many[..6_000]);
                all.extend_from_slice(&[&many[..10 + round], &many[..], &many[..6_000]].concat());
                let chunk = queue.take(chunk_bytes);
                sizes.push(chunk.len());
                taken.extend_from_slice(&chunk);
                assert_eq!(queue.len(), all.len() - taken.len());
            }
            while !queue.is_empty() {
                let chunk = queue.take(chunk_bytes);
                sizes.push(chunk.len());
                taken.extend_from_slice(&chunk);
            }
            assert!(taken == all, "chunks of {chunk_bytes}");
            assert!(sizes.iter().all(|size| (1..=chunk_bytes).contains(size)));
            assert!(queue.take(chunk_bytes).is_empty());
            queue.clear();
            assert_eq!(queue.shared.capacity().max(queue.copied.capacity()), 0);
        }
    }

    #[test]
    fn what_is_much_is_shared_and_what_is_little_is_copied() {
        let much = Bytes::from(vec![7; SHARED_BYTES_MIN]);
        let mut queue = ByteQueue::default();
        queue.push(&much);
        queue.push(&much.slice(1..));
        assert_eq!(queue.take(usize::MAX).as_ptr(), much.as_ptr());
        assert_ne!(queue.take(usize::MAX).as_ptr(), much.slice(1..).as_ptr());
    }
}
