//! The database's clock, as this process knows it between two questions.
//!
//! Every time in the log, and every expiry, is the database's: the broker's own wall clock may be wrong or jump.
//! What is kept is the database's time at one instant of the monotonic clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::protocol::ids::Timestamp;

/// An estimate of the database's clock; cheap to clone.
#[derive(Debug, Clone)]
pub struct DbClock(Arc<Mutex<Fix>>);

#[derive(Debug, Clone, Copy)]
struct Fix {
    time: Timestamp,
    at: Instant,
}

impl DbClock {
    /// A clock that was just read.
    #[must_use]
    pub fn new(time: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Fix { time, at: Instant::now() })))
    }

    /// Takes a new reading, made between `asked` and now.
    pub fn set(&self, time: Timestamp, asked: Instant) {
        let at = asked + asked.elapsed() / 2;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Fix { time, at };
    }

    /// The database's time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let fix = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fix.time.plus_micros(u64::try_from(fix.at.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}
