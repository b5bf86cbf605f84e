//! The database's clock, as this process knows it between two questions.
//!
//! Every time in the log, and every expiry, is the database's: the broker's own wall clock may be wrong or jump.
//! What is kept is the database's time at one instant of the monotonic clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::ids::Timestamp;

/// How far two readings may be apart from the time between them before the clock has jumped.
const SLACK: Duration = Duration::from_secs(1);

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

    /// Takes a new reading, made between `asked` and now; says whether the clock has jumped since the last one.
    pub fn set(&self, time: Timestamp, asked: Instant) -> bool {
        let doubt = asked.elapsed() / 2;
        let fix = Fix { time, at: asked + doubt };
        let before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), fix);
        let apart = before.time_at(fix.at).get().abs_diff(time.get());
        Duration::from_micros(apart) > SLACK + doubt
    }

    /// The database's time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).time_at(Instant::now())
    }
}

impl Fix {
    fn time_at(&self, instant: Instant) -> Timestamp {
        let since = instant.saturating_duration_since(self.at);
        self.time.plus_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_either_way_is_told_and_a_clock_that_goes_is_none() {
        let start = Timestamp::saturating(1_800_000_000_000_000);
        let clock = DbClock::new(start);
        let hour = 3_600_000_000;
        let read = |time| clock.set(time, Instant::now());
        assert!(!read(start.plus_micros(500_000)));
        assert!(read(start.plus_micros(hour)));
        assert!(!read(start.plus_micros(hour)));
        assert!(read(start));
        assert!(clock.now() >= start && clock.now() < start.plus_micros(hour));
    }
}
