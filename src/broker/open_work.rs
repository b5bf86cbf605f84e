//! Counts the requests that were taken in and have no answer yet: what a drain waits for.
//!
//! Lives here: the count, and the word that nothing new begins. Not a metric: a decision hangs on it.
//! Invariant: after [`OpenWork::close`] the count only falls, so waiting for zero comes to an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The open requests of one process.
#[derive(Debug, Default)]
pub struct OpenWork {
    open: Arc<AtomicUsize>,
    is_closed: AtomicBool,
}

/// One request that is open for as long as this lives.
#[derive(Debug)]
pub struct OpenRequest(Arc<AtomicUsize>);

impl OpenWork {
    /// Takes a request in; none when nothing new begins.
    #[must_use]
    pub fn begin(&self) -> Option<OpenRequest> {
        // Counted before it looks, and `close` is said before anybody counts: one of the two sees the other, which
        // takes the strongest ordering on both sides.
        self.open.fetch_add(1, Ordering::SeqCst);
        let request = OpenRequest(Arc::clone(&self.open));
        (!self.is_closed()).then_some(request)
    }

    /// Says that nothing new begins.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// Whether nothing new begins.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Whether nothing is open, and nothing can be any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_closed() && self.open.load(Ordering::SeqCst) == 0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_when_it_was_closed_and_all_that_began_has_ended() {
        let work = OpenWork::default();
        let (one, other) = (work.begin().unwrap(), work.begin().unwrap());
        drop(one);
        assert!(!work.is_done());
        work.close();
        assert!(!work.is_done());
        assert!(work.begin().is_none());
        drop(other);
        assert!(work.is_done());
    }

    #[test]
    fn whoever_begins_while_it_closes_is_refused_or_waited_for() {
        for _ in 0..200 {
            let work = Arc::new(OpenWork::default());
            let beginner = Arc::clone(&work);
            let began = std::thread::spawn(move || beginner.begin());
            work.close();
            let seen_done = work.is_done();
            let request = began.join().unwrap();
            assert!(!(seen_done && request.is_some()), "done, and yet something is open");
        }
    }
}
